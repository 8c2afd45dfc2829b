"""Selection of the largest of ResNet-50's 23.5 million weights, compared with a full sort.

Goals: 10 times faster than the sort, with at most 1 MB allocated beyond the given weights and the returned masks.
"""

from __future__ import annotations

import torch
from torch import Tensor

from benchmarks.memory import peak_bytes
from benchmarks.timing import pair
from trials.models import MODELS
from trials.sparsity import prunable, select


def resnet50() -> list[Tensor]:
    """Return random weights of ResNet-50's shapes (10 classes), 23,467,712 in all."""
    with torch.device("meta"):
        model = MODELS["resnet50"](num_classes=10, in_channels=3)
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(weight.shape, generator=generator) for weight in prunable(model).values()]


def main() -> None:
    weights = resnet50()
    flat = torch.cat([weight.flatten() for weight in weights])
    total = len(flat)
    for density in (0.5, 0.1, 0.01):
        keep = int(density * total)
        timed = pair(lambda: flat.abs().sort(), lambda keep=keep: select(weights, keep, absolute=True), rounds=3)
        print(timed.line(f"selection of {total:,}, density {density}", "full sort", "select", ">= 10"), flush=True)
        beyond = peak_bytes(lambda keep=keep: select(weights, keep, absolute=True)) - total
        print(f"  beside weights and masks: {beyond / 1e6:.3f} MB (goal <= 1)", flush=True)
