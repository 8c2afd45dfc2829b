"""Seconds of the parts of a regrowth: SSIM, saliency, selection, mask update, brief finetuning.

``python -m benchmarks regrowth --model resnet20 --runs 3 --json FILE --figure FILE``; ``--quick`` is one episode. The
parts are those of the released benchmark (EnumaCaliber/Bidirection-Prune-Regrowth at b40cb9f,
benchmark_regrowth_methods.py and quick_benchmark.py), but the code that trials run is timed: the released one ranks
other weights than its method selects, and leaves the factor w^2 out of its saliency. Images are random, since their
content takes no time; networks are not trained. First comes an episode of a few steps that is not timed, since whatever
runs first in a process also imports and allocates. The device is synchronised before and after every part.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.timing import machine
from trials.config.trial_config import TrialConfig
from trials.data import DATASETS, RawData
from trials.errors import UserError
from trials.methods.parsing import parse
from trials.methods.regrow.episodes import Bench, Episode, EpisodeRecipe, run_episode
from trials.models import MODELS
from trials.regrowth.allocation import Request, uniform_original
from trials.regrowth.initial import grown, write_weights
from trials.regrowth.layer_signals import choose_targets, measured_ssim, scores
from trials.regrowth.selection import highest, referenced
from trials.sparsity import prunable
from trials.training.build import build_loader, build_net
from trials.training.device import resolve_device
from trials.training.net import Net
from trials.training.network_copy import forget

DATA = "random_images"
DENSITY, REGROWN = 0.01, 0.01
BATCH = 128

PARTS = {
    "ssim": "SSIM of dense and sparse features",
    "saliency": "saliency of the dense network",
    "reference_load": "loading the reference's masks and weights",
    "reference_select": "selection by reference",
    "saliency_select": "selection by saliency",
    "update": "mask and weight update",
    "finetune": "brief finetuning",
}
"""Names of the parts, and what each is."""


@dataclass
class Timings:
    """Seconds of every run, by part."""

    device: torch.device
    seconds: dict[str, list[float]] = field(default_factory=dict)

    def part(self, name: str, work: Callable[[], Any]) -> Any:
        """Run a part and note its seconds; returns its result."""
        self._wait()
        began = time.perf_counter()
        result = work()
        self._wait()
        self.seconds.setdefault(name, []).append(time.perf_counter() - began)
        return result

    def _wait(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)


def random_images(count: int, side: int) -> RawData:
    """A data set of random RGB images of ten classes."""
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(256, (count + BATCH, 3, side, side), generator=generator, dtype=torch.uint8)
    labels = torch.arange(count + BATCH) % 10
    moments = ((0.5,) * 3, (0.25,) * 3)
    data = (pixels[:count], labels[:count], pixels[count:], labels[count:])
    return RawData("random", *data, 10, *moments, 4, True, "", f"{side:04}{count:012}")


def networks(config: TrialConfig, raw: RawData, device: torch.device) -> tuple[Net, Net]:
    """The dense network, and a copy that keeps the largest weights of every layer."""
    dense = build_net(config, raw, device)
    dense.model.eval()
    sparse = dense.clone()
    masks = {}
    for name, weight in prunable(sparse.model).items():
        kept = max(1, round(DENSITY * weight.numel()))
        threshold = weight.detach().abs().reshape(-1).kthvalue(weight.numel() - kept + 1).values
        masks[name] = weight.detach().abs() >= threshold
    sparse.set_masks(masks)
    return dense, sparse


def episode(config: TrialConfig, raw: RawData, options: argparse.Namespace, timings: Timings) -> int:
    """Run every part once; returns the number of regrown weights."""
    dense, sparse = networks(config, raw, timings.device)
    data = build_loader(config, raw, timings.device)
    generator = torch.Generator().manual_seed(0)
    ssim = timings.part("ssim", lambda: measured_ssim(dense, sparse, data, options.ssim_batches, "mean_map"))
    targets = choose_targets(sparse, ssim, layers=None, threshold=None, order="ssim", missing=None, generator=generator)
    total = sum(mask.numel() for mask in sparse.masks.values())
    counts = uniform_original(Request(int(REGROWN * total), targets.capacities, targets.ssim, generator))
    asked = dict(zip(targets.names, counts, strict=True))
    found = timings.part(
        "saliency",
        lambda: scores(
            "saliency", dense, sparse, data, targets.names,
            unit="weight", of="dense", batches=options.saliency_batches, seed=0,
        ),
    )  # fmt: skip
    masks, values = timings.part("reference_load", lambda: _stored(dense, timings.device))

    def by_reference() -> dict[str, Tensor]:
        every = {name: torch.ones_like(mask) for name, mask in sparse.masks.items()}
        return {n: referenced(sparse.masks[n], every[n], masks[n], k, generator)[0] for n, k in asked.items()}

    timings.part("reference_select", by_reference)
    indices = timings.part(
        "saliency_select", lambda: {n: highest(sparse.masks[n], found[n], k) for n, k in asked.items()}
    )
    given = {name: values[name].reshape(-1)[index] for name, index in indices.items()}
    bench = Bench.of(config, sparse, 0, EpisodeRecipe(epochs=options.epochs, data_fraction=options.data_fraction))

    def update() -> None:
        sparse.set_masks(grown(sparse.masks, indices))
        write_weights(prunable(sparse.model), indices, given)

    timings.part("update", update)
    forget()
    timings.part("finetune", lambda: run_episode(bench, Episode(0, indices, given), lambda: False))
    return sum(counts)


def warm_up(config: TrialConfig, raw: RawData, options: argparse.Namespace, device: torch.device) -> None:
    """Run every part on one batch, so that no part that is timed imports, compiles or allocates for the first time."""
    one_batch = {"ssim_batches": 1, "saliency_batches": 1, "epochs": 1, "data_fraction": BATCH / options.images}
    episode(config, raw, argparse.Namespace(**{**vars(options), **one_batch}), Timings(device))


def _stored(dense: Net, device: torch.device) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Masks and weights of a reference network, read from a file that is written first."""
    weights = {name: weight.detach() for name, weight in prunable(dense.model).items()}
    content = {"masks": {name: torch.ones_like(w, dtype=torch.bool) for name, w in weights.items()}, "model": weights}
    with tempfile.NamedTemporaryFile(suffix=".pt") as file:
        torch.save(content, file.name)
        read = torch.load(file.name, map_location=device, weights_only=True)
    return read["masks"], read["model"]


def summary(timings: Timings, runs: int) -> dict[str, dict[str, Any]]:
    """Mean, standard deviation (over the runs; None of one run) and seconds of every part."""
    return {
        name: {
            "what": PARTS[name],
            "mean": statistics.mean(seconds),
            "std": statistics.stdev(seconds) if runs > 1 else None,
            "seconds": seconds,
        }
        for name, seconds in timings.seconds.items()
    }


def draw(parts: dict[str, dict[str, Any]], title: str) -> Any:
    """Return a matplotlib figure: preprocessing, selection, update and finetuning, and both ways as a whole."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 6), layout="constrained")
    figure.suptitle(title, fontsize="medium")
    axes = figure.subplots(2, 2).flatten()
    groups = {
        "preprocessing": ("ssim", "saliency"),
        "selection": ("reference_load", "reference_select", "saliency_select"),
        "the same for both": ("update", "finetune"),
    }
    for axis, (name, chosen) in zip(axes, groups.items(), strict=False):
        means, stds = ([parts[part][key] for part in chosen] for key in ("mean", "std"))
        spread = {"yerr": stds, "capsize": 4} if None not in stds else {}
        bars = axis.bar([part.replace("_", "\n") for part in chosen], means, color="#0072B2", **spread)
        axis.bar_label(bars, fmt="%.3g s", fontsize="small", padding=2)
        axis.margins(y=0.15)
        axis.set(title=name, ylabel="seconds")
    ways = {
        "reference": ("ssim", "reference_load", "reference_select", "update", "finetune"),
        "saliency": ("saliency", "saliency_select", "update", "finetune"),
    }
    for number, chosen in enumerate(ways.values()):
        bottom = 0.0
        for part in chosen:
            label = part if not number or part in ("saliency", "saliency_select") else None
            axes[3].bar([number], parts[part]["mean"], bottom=bottom, color=f"C{list(PARTS).index(part)}", label=label)
            bottom += parts[part]["mean"]
    axes[3].set_xticks(range(2), ways)
    axes[3].legend(frameon=False, fontsize="small", loc="upper left", bbox_to_anchor=(1, 1))
    axes[3].set(title="one episode", ylabel="seconds")
    return figure


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks regrowth", description=__doc__.partition("\n")[0])
    parser.add_argument(
        "--model", choices=sorted(MODELS), default="resnet20", metavar="NAME", help="default: %(default)s"
    )
    parser.add_argument("--runs", type=int, default=3, help="default: %(default)s")
    parser.add_argument("--quick", action="store_true", help="one run: a single episode")
    parser.add_argument("--epochs", type=int, default=1, help="of the brief finetuning; released: 50; default: 1")
    parser.add_argument("--data-fraction", type=float, default=1.0, help="of the images, in an epoch; default: 1")
    parser.add_argument("--images", type=int, default=12800, help="random images; default: %(default)s")
    parser.add_argument("--side", type=int, default=32, help="their side in pixels; default: %(default)s")
    parser.add_argument("--ssim-batches", type=int, default=20, help="default: %(default)s")
    parser.add_argument("--saliency-batches", type=int, default=50, help="default: %(default)s")
    parser.add_argument("--device", default="auto", help="default: %(default)s")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures as JSON")
    parser.add_argument("--figure", type=Path, metavar="FILE", help="draw them, with matplotlib")
    return parser


def _require_outputs(parser: argparse.ArgumentParser, options: argparse.Namespace) -> None:
    """End with exit code 2 before anything is timed if a file that is asked for cannot be written."""
    for option, path in (("--json", options.json), ("--figure", options.figure)):
        if path and (
            path.is_dir() or not path.absolute().parent.is_dir() or not os.access(path.absolute().parent, os.W_OK)
        ):
            parser.error(f"{option} is {str(path)!r}, but must be a file in a folder that can be written")
    if options.figure and importlib.util.find_spec("matplotlib") is None:
        parser.error("drawing needs matplotlib: pip install matplotlib")
    if options.figure and options.figure.suffix not in (".png", ".pdf", ".svg"):
        parser.error(f"--figure is {str(options.figure)!r}, but must end in .png, .pdf or .svg")


def main(arguments: Sequence[str]) -> int:
    """Time the parts, print a line for each, write what was asked for; returns the exit code."""
    parser = _parser()
    options = parser.parse_args(list(arguments))
    runs = 1 if options.quick else options.runs
    if runs < 1 or options.epochs < 0 or options.images < 2 * BATCH:
        parser.error(f"--runs must be at least 1, --epochs at least 0 and --images at least {2 * BATCH}")
    if min(options.side, options.ssim_batches, options.saliency_batches) < 1 or not 0 < options.data_fraction <= 1:
        parser.error("--side and the numbers of batches must be at least 1, and --data-fraction in (0, 1]")
    _require_outputs(parser, options)
    try:
        device = resolve_device(options.device)
    except UserError as error:
        parser.error(str(error))
    raw = random_images(options.images, options.side)
    timings, regrown = Timings(device), 0
    DATASETS[DATA] = lambda _folder: raw
    try:
        config = parse({"method": "regrow", "model": options.model, "dataset": DATA, "device": str(device)})
        warm_up(config, raw, options, device)
        for _ in range(runs):
            regrown = episode(config, raw, options, timings)
    finally:
        del DATASETS[DATA]
        forget()
    parts = summary(timings, runs)
    title = f"{options.model}, {regrown:,} weights regrown, {options.epochs} epochs of finetuning, {device}, n {runs}"
    print(title)
    for name, part in parts.items():
        spread = "" if part["std"] is None else f" ± {part['std']:.4f}"
        print(f"{name:17} {part['mean']:10.4f} s{spread}  {part['what']}")
    if options.json:
        about = {"machine": machine(), "device": str(device), "model": options.model, "regrown": regrown, "runs": runs}
        options.json.write_text(json.dumps({**about, "epochs": options.epochs, "parts": parts}, indent=1))
    if options.figure:
        draw(parts, title).savefig(options.figure, dpi=110)
    return 0
