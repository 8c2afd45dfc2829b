"""Time of training steps relative to dense steps, on batches of 64 CIFAR-size images, in one thread.

On ResNet-18, for weights, filters and channels (goal: ratio at most 1.10, HYDRA 1.08): a masked step and a step of
HYDRA's scores against a dense step (forward, backward, SGD), and a BiP iteration, which has two steps, against two
dense steps. Also a BiP iteration against two plain forward and backward passes (goal: at most 1.06). On ResNet-56: a
step of GReg's prune phase against a dense step (goal: at most 1.05), with an update of lambda in every fifth step, the
released code's default for ImageNet.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.nn import functional as F

from benchmarks.timing import pair
from trials import models
from trials.config.recipes import Recipe
from trials.methods.base import TrainStage
from trials.methods.bip.bip import Bilevel, BipConfig
from trials.methods.bip.hydra import HydraConfig, TrainScores
from trials.methods.greg.greg1 import Greg1Config, Greg1Stage
from trials.methods.greg.greg2 import Greg2Config, Greg2Stage
from trials.methods.greg.groups import GroupPattern
from trials.methods.greg.growing import Growing
from trials.sparsity import DISTRIBUTIONS, PATTERNS, build_masks, prunable
from trials.training.net import Batch, Net


def new_net(model: str = "resnet18") -> Net:
    """Return a network in training mode, always with the same weights."""
    return Net(models.build(model, num_classes=10, in_channels=3, seed=0).train())


def batch(seed: int) -> Batch:
    """Return a batch of random images [64, 3, 32, 32] and labels."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(64, 3, 32, 32, generator=generator), torch.randint(10, (64,), generator=generator)


DENSITY = 0.5


def trainer(pattern: str | None, model: str = "resnet18") -> Callable[[], object]:
    """Return a function that takes one SGD step, with masks of ``pattern`` or, if None, dense."""
    net = new_net(model)
    if pattern is not None:
        net.set_masks(
            build_masks(
                prunable(net.model, linear=PATTERNS[pattern].linear),
                density=DENSITY,
                pattern=PATTERNS[pattern],
                distribution=DISTRIBUTIONS["global" if pattern == "weight" else "uniform"],
                absolute=True,
            )
        )
    stage = TrainStage("train", Recipe(epochs=1, lr=1e-3))
    stage.attach(net)
    stage.begin_epoch(0)
    data = batch(0)
    return lambda: stage.step(data)


def two_steps() -> Callable[[], object]:
    """Return a function that takes two dense SGD steps."""
    step = trainer(None)

    def run() -> None:
        step()
        step()

    return run


def bilevel(pattern: str = "weight", density: float = DENSITY) -> Callable[[], object]:
    """Return a function that runs one BiP iteration."""
    config = BipConfig(dataset="cifar10", model="resnet18", density=density, pattern=pattern, mask_lr=1e-3)
    return scored(Bilevel(config), 2)


def hydra(pattern: str) -> Callable[[], object]:
    """Return a function that takes one step of HYDRA's scores."""
    config = HydraConfig(dataset="cifar10", model="resnet18", density=DENSITY, pattern=pattern, prune=Recipe(lr=1e-3))
    return scored(TrainScores(config, config.prune), 1)


def scored(stage: Bilevel | TrainScores, batches: int) -> Callable[[], object]:
    """Return a function that takes one step of ``stage`` on ``batches`` batches."""
    net = new_net()
    stage.enter(net)
    stage.attach(net)
    stage.begin_epoch(0)
    data = [batch(seed) for seed in range(batches)]
    return lambda: stage.step(*data)


def growing(kind: str, pattern: GroupPattern) -> Callable[[], object]:
    """Return a function that runs five iterations of GReg's prune phase, the first of which updates lambda."""
    net = new_net("resnet56s")
    fields: Any = {"dataset": "cifar10", "model": "resnet56s", "stage_pr": 0.5, "pattern": pattern}
    stage: Growing = Greg1Stage(Greg1Config(**fields)) if kind == "GReg-1" else Greg2Stage(Greg2Config(**fields))
    stage.enter(net)
    stage.attach(net)
    stage.begin_epoch(0)
    data = batch(0)

    def run() -> None:
        for _ in range(5):
            stage.prepare()
            stage.step(data)

    return run


def five(step: Callable[[], object]) -> Callable[[], object]:
    """Return a function that calls ``step`` five times."""
    return lambda: [step() for _ in range(5)]


def two_passes() -> Callable[[], object]:
    """Return a function that runs two forward and backward passes, without an optimiser."""
    model = new_net().model
    data = [batch(0), batch(1)]

    def run() -> None:
        for x, y in data:
            model.zero_grad(set_to_none=True)
            F.cross_entropy(model(x), y).backward()

    return run


def main() -> None:
    torch.set_num_threads(1)
    for pattern in ("weight", "filter", "channel"):
        for name, ours, dense, against, goal in (
            ("masked step", trainer(pattern), trainer(None), "dense step", "<= 1.10"),
            ("HYDRA step", hydra(pattern), trainer(None), "dense step", "<= 1.08"),
            ("BiP iteration", bilevel(pattern), two_steps(), "2 dense steps", "<= 1.10"),
        ):
            print(pair(ours, dense).line(f"{name}, {pattern}, density {DENSITY}", name, against, goal), flush=True)
    for density in (0.1, 0.5):
        timed = pair(bilevel(density=density), two_passes())
        print(timed.line(f"BiP iteration, density {density}", "BiP", "2 x forward+backward", "<= 1.06"), flush=True)
    for kind, pattern in (("GReg-1", "filter"), ("GReg-2", "filter"), ("GReg-1", "weight")):
        timed = pair(growing(kind, pattern), five(trainer(None, "resnet56s")))
        print(timed.line(f"{kind} prune step, {pattern}", kind, "dense", "<= 1.05"))
