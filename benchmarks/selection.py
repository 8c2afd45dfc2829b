"""Selecting the top of 23.5 million weights (ResNet-50's) against sorting them. Goal: at least 6 times faster."""

from __future__ import annotations

import torch

from benchmarks.timing import pair
from trials.sparsity import select

WEIGHTS = 23_467_712


def main() -> None:
    weights = torch.randn(WEIGHTS, generator=torch.Generator().manual_seed(0))
    for density in (0.5, 0.1, 0.01):
        keep = int(density * WEIGHTS)
        timed = pair(lambda: weights.abs().sort(), lambda keep=keep: select([weights], keep, absolute=True), rounds=3)
        print(timed.line(f"selection, density {density}", "full sort", "select", ">= 6"))
