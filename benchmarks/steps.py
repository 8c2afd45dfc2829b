"""Training steps of ResNet-18 on batches of 64 CIFAR-size images, one thread.

A masked step against a dense one (goal: at most 1.10 times), and a whole BiP iteration against two plain forward and
backward passes of the same model (goal: at most 1.15 times).
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch.nn import functional as F

from benchmarks.timing import pair
from trials import models
from trials.config import Recipe
from trials.methods.base import TrainStage
from trials.methods.bip import Bilevel, BipConfig
from trials.sparsity import DISTRIBUTIONS, PATTERNS, build_masks, prunable
from trials.training import Batch, Net


def new_net() -> Net:
    return Net(models.build("resnet18", num_classes=10, in_channels=3, seed=0).train())


def batch(seed: int) -> Batch:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(64, 3, 32, 32, generator=generator), torch.randint(10, (64,), generator=generator)


def trainer(density: float | None) -> Callable[[], object]:
    """One SGD step per call, masked to ``density`` or dense."""
    net = new_net()
    if density is not None:
        net.set_masks(
            build_masks(
                prunable(net.model),
                density=density,
                pattern=PATTERNS["weight"],
                distribution=DISTRIBUTIONS["global"],
                absolute=True,
            )
        )
    stage = TrainStage("train", Recipe(epochs=1, lr=1e-3))
    stage.attach(net)
    stage.begin_epoch(0)
    data = batch(0)
    return lambda: stage.step(data)


def bilevel() -> Callable[[], object]:
    """One BiP iteration per call."""
    net = new_net()
    config = BipConfig(dataset="cifar10", model="resnet18", density=0.1, mask_lr=1e-3)
    stage = Bilevel(config)
    stage.enter(net)
    stage.attach(net)
    stage.begin_epoch(0)
    upper, lower = batch(0), batch(1)
    return lambda: stage.step(upper, lower)


def two_passes() -> Callable[[], object]:
    """Two forward and backward passes per call, and nothing else."""
    model = new_net().model
    data = [batch(0), batch(1)]

    def run() -> None:
        for x, y in data:
            model.zero_grad(set_to_none=True)
            F.cross_entropy(model(x), y).backward()

    return run


def main() -> None:
    torch.set_num_threads(1)
    timed = pair(trainer(0.1), trainer(None))
    print(timed.line("masked step, density 0.1", "masked", "dense", "<= 1.10"))
    timed = pair(bilevel(), two_passes())
    print(timed.line("BiP iteration, density 0.1", "BiP", "2 x forward+backward", "<= 1.15"))
