"""Coupled pruning beside Torch-Pruning: half of the channels of five networks, on random weights and one image size.

For each network: parameters and multiply-adds left, the largest difference between the outputs of the smaller network
and of the whole one with the same channels masked (relative to the largest output, float64), and seconds to find the
channels and cut them. Torch-Pruning (https://github.com/VainF/Torch-Pruning) is no dependency: its rows are left out
where it is not installed.

    python -m benchmarks coupled                      five networks
    python -m benchmarks coupled --all --jobs 2       42 torchvision classifiers, each in a process with a time limit
    python -m benchmarks coupled --models alexnet,swin_t
"""

from __future__ import annotations

import argparse
import copy
import importlib
import importlib.util
import os
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch
from torch import Tensor, nn

from tests.trials.stored_networks import enliven
from trials.compact import kept_rows, shrink, silent
from trials.sparsity.coupled import coupled_masks

MODELS = ("resnet18", "resnet50", "mobilenet_v2", "densenet121", "vit_b_16")
# fmt: off
CLASSIFIERS = (
    "alexnet", "vgg11", "vgg13_bn", "vgg16", "vgg19_bn", "squeezenet1_0", "squeezenet1_1", "googlenet",
    "inception_v3", "resnet18", "resnet34", "resnet50", "resnet101", "resnext50_32x4d", "resnext101_32x8d",
    "wide_resnet50_2", "densenet121", "densenet161", "densenet169", "densenet201", "mobilenet_v2",
    "mobilenet_v3_small", "mobilenet_v3_large", "mnasnet0_5", "mnasnet1_3", "shufflenet_v2_x0_5",
    "shufflenet_v2_x1_0", "shufflenet_v2_x2_0", "efficientnet_b0", "efficientnet_b3", "efficientnet_v2_s",
    "regnet_x_400mf", "regnet_x_3_2gf", "regnet_y_400mf", "regnet_y_3_2gf", "convnext_tiny", "convnext_small",
    "vit_b_16", "vit_b_32", "swin_t", "swin_v2_t", "maxvit_t",
)
# fmt: on
"""One or more of each family of classifiers that torchvision has, 42 in all."""

DENSITY = 0.5
LIMIT = 300
"""Seconds that a network may take, in both methods together."""

LINE = "{:<22} {:<14} {:>10} {:>8} {:>9} {:>9}  {:>8}"


def lively(name: str) -> nn.Module:
    """A torchvision model with random weights and statistics, so that no output is trivial; float64."""
    from torchvision.models import get_model

    torch.manual_seed(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model: nn.Module = get_model(name).double().eval()
    return enliven(model)


@torch.no_grad()
def ours(model: nn.Module, x: Tensor) -> tuple[Tensor, nn.Module]:
    """Mask half of the coupled units and cut them; returns the masked network's outputs and the smaller one."""
    masks = coupled_masks(model, density=DENSITY, distribution="uniform", generator=torch.Generator().manual_seed(0))
    for name, mask in masks.items():
        model.get_parameter(name).mul_(mask)
    masked = copy.deepcopy(model)
    shrink(model, kept_rows(model, silent(model), "filter"))
    return masked, model


@torch.no_grad()
def theirs(model: nn.Module, x: Tensor) -> tuple[Tensor, nn.Module]:
    """The same with Torch-Pruning's dependency graph; masked are the columns of what it removes."""
    tp: Any = importlib.import_module("torch_pruning")
    last = [module for module in model.modules() if isinstance(module, nn.Linear)][-1:]
    last = last or [module for module in model.modules() if isinstance(module, nn.Conv2d)][-1:]
    heads = {m: m.num_heads for m in model.modules() if isinstance(m, nn.MultiheadAttention)}
    with torch.enable_grad():
        pruner = tp.pruner.BasePruner(
            model,
            x,
            importance=tp.importance.GroupMagnitudeImportance(p=2),
            pruning_ratio=1 - DENSITY,
            ignored_layers=last,
            num_heads=heads,
        )
    masked = copy.deepcopy(model)
    names = {module: name for name, module in model.named_modules()}
    inputs = (tp.prune_conv_in_channels, tp.prune_linear_in_channels, tp.prune_depthwise_conv_in_channels)
    entries: dict[str, dict[str, Tensor]] = {name: {} for name in names.values()}
    for group in pruner.step(interactive=True):
        for dep, positions in group:
            module, name = dep.target.module, names.get(dep.target.module, "")
            if dep.handler in inputs and isinstance(module, (nn.Conv2d, nn.Linear)):
                width = module.weight.shape[1]  # of a grouped convolution, it cuts the same positions of every group
                groups = getattr(module, "groups", 1)
                if groups > 1 and groups == module.in_channels:
                    continue
                left = entries[name].get("left", torch.arange(width))
                off = torch.as_tensor([position for position in positions if position < width])
                masked.get_submodule(name).weight[:, left[off]] = 0
                stays = torch.ones(len(left), dtype=torch.bool)
                stays[off] = False
                entries[name]["left"] = left[stays]
        group.prune()
    return masked, model


def size(model: nn.Module, x: Tensor) -> tuple[int, int]:
    """Parameters, and multiply-adds for one image, as torch's own counter counts them."""
    from torch.utils.flop_counter import FlopCounterMode

    torch.backends.mha.set_fastpath_enabled(False)  # the counter does not see what it computes
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model(x)
    return sum(p.numel() for p in model.parameters()), counter.get_total_flops() // 2


def compared(name: str, method: Callable[[nn.Module, Tensor], tuple[nn.Module, nn.Module]], label: str) -> None:
    """Print a row."""
    model = lively(name)
    pixels = 299 if name.startswith("inception") else 224 if name.startswith(("vit", "swin", "maxvit")) else 96
    x = torch.rand(1, 3, pixels, pixels, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    before = size(model, x)
    start = time.perf_counter()
    try:
        masked, smaller = method(model, x)
        seconds = time.perf_counter() - start
        with torch.no_grad():
            expected, got = masked(x), smaller(x)
        difference = float((got - expected).abs().max() / expected.abs().max())
    except Exception as error:  # noqa: BLE001  a network that a method cannot cut is a row, too
        line = str(error).strip().partition("\n")[0][:70]
        print(f"{name:<22} {label:<14} {type(error).__name__}: {line}", flush=True)
        return
    after = size(smaller, x)
    shares = [f"{100 * a / b:.1f} %" for a, b in zip(after, before, strict=True)]
    row = (name, label, f"{after[0] / 1e6:.2f} M", shares[0], shares[1], f"{difference:.1e}", f"{seconds:.2f}")
    print(LINE.format(*row), flush=True)


def one_by_one(names: Sequence[str], methods: Sequence[str], jobs: int) -> None:
    """Print the rows of networks that each run in a process of its own, in order, with a limit of time and reasons."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}

    def rows(name: str) -> str:
        command = [sys.executable, "-m", "benchmarks", "coupled", "--models", name, "--bare"]
        try:
            done = subprocess.run(command, env=environment, timeout=LIMIT, capture_output=True, text=True, check=False)
        except subprocess.TimeoutExpired as stopped:
            printed = stopped.stdout or b""
            text = printed.decode() if isinstance(printed, bytes) else printed
            return "\n".join([*_rows(text, name), f"{name:<22} stopped after {LIMIT} s"])
        found = _rows(done.stdout, name)
        if len(found) < len(methods):
            last = (done.stderr.strip().splitlines() or [f"ended with {done.returncode}"])[-1]
            found.append(f"{name:<22} {last[:90]}")
        return "\n".join(found)

    with ThreadPoolExecutor(jobs) as pool:
        for text in pool.map(rows, names):
            print(text, flush=True)


def _rows(text: str, name: str) -> list[str]:
    return [line for line in text.splitlines() if line.startswith(f"{name} ")]


def main(arguments: Sequence[str] = ()) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks coupled", description=str(__doc__).partition("\n")[0])
    parser.add_argument("--all", action="store_true", help="42 torchvision classifiers, each in a process of its own")
    parser.add_argument("--models", metavar="NAME,...", help="other torchvision classifiers")
    parser.add_argument("--jobs", type=int, default=1, help="with --all: processes at a time (default: 1)")
    parser.add_argument("--bare", action="store_true", help="rows only")
    options = parser.parse_args(arguments)
    methods = {"couple: true": ours}
    if importlib.util.find_spec("torch_pruning") is not None:
        methods["Torch-Pruning"] = theirs
    if not options.bare:
        print(LINE.format("network", "", "parameters", "", "MACs", "differs", "seconds"), flush=True)
    if options.all:
        one_by_one(CLASSIFIERS, list(methods), options.jobs)
    else:
        for name in options.models.split(",") if options.models else MODELS:
            for label, method in methods.items():
                compared(name, method, label)
    if len(methods) == 1 and not options.bare:
        print("Torch-Pruning is not installed (pip install torch-pruning), so its rows are left out")


if __name__ == "__main__":
    main(sys.argv[1:])
