"""Coupled pruning beside Torch-Pruning: half of the channels of five networks, on random weights and one image size.

For each network: parameters and multiply-adds left, the largest difference between the outputs of the smaller network
and of the whole one with the same channels masked (relative to the largest output, float64), and seconds to find the
channels and cut them. Torch-Pruning (https://github.com/VainF/Torch-Pruning) is no dependency: its rows are left out
where it is not installed. ``python -m benchmarks coupled``; SWEEPER_COUPLED=NAME,... for other torchvision models.
"""

from __future__ import annotations

import copy
import importlib
import importlib.util
import os
import time
import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from trials.compact import kept_rows, shrink, silent
from trials.sparsity.coupled import coupled_masks

MODELS = "resnet18,resnet50,mobilenet_v2,densenet121,vit_b_16"
DENSITY = 0.5
LINE = "{:<22} {:<14} {:>10} {:>8} {:>9} {:>9}  {:>8}"


def lively(name: str) -> nn.Module:
    """A torchvision model with random weights and statistics, so that no output is trivial; float64."""
    from torchvision.models import get_model

    torch.manual_seed(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model: nn.Module = get_model(name).double().eval()
    generator = torch.Generator().manual_seed(0)
    for key, tensor in model.state_dict().items():
        if not tensor.is_floating_point():
            continue
        if tensor.dim() > 1:
            tensor.uniform_(-1, 1, generator=generator).mul_((6 / tensor[0].numel()) ** 0.5)
        elif tensor.dim() == 1:
            low = 0.5 if "var" in key or "weight" in key else -0.5
            tensor.uniform_(low, low + 1, generator=generator)
    return model


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
    entries = {name: {} for name in names.values()}
    for group in pruner.step(interactive=True):
        for dep, positions in group:
            module, name = dep.target.module, names.get(dep.target.module, "")
            if (
                dep.handler in inputs
                and isinstance(module, (nn.Conv2d, nn.Linear))
                and getattr(module, "groups", 1) == 1
            ):
                left = entries[name].get("left", torch.arange(module.weight.shape[1]))
                off = torch.as_tensor(positions)
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
    pixels = getattr(model, "image_size", 299 if name.startswith("inception") else 96)
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


def main() -> None:
    print(LINE.format("network", "", "parameters", "", "MACs", "differs", "seconds"))
    there = importlib.util.find_spec("torch_pruning") is not None
    for name in os.environ.get("SWEEPER_COUPLED", MODELS).split(","):
        compared(name, ours, "couple: true")
        if there:
            compared(name, theirs, "Torch-Pruning")
    if not there:
        print("Torch-Pruning is not installed (pip install torch-pruning), so its rows are left out")


if __name__ == "__main__":
    main()
