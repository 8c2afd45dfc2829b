"""The training steps that are timed, one per kind, each on a fixed batch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from benchmarks.gpu.product import (
    DISTRIBUTIONS,
    PATTERNS,
    AdamWRecipe,
    AdaptiveSparsityConfig,
    Batch,
    Bilevel,
    BipConfig,
    Finetune,
    Greg1Config,
    Greg1Stage,
    HydraConfig,
    Net,
    Recipe,
    Stage,
    TrainScores,
    TrainStage,
    TrainWithThresholds,
    build_masks,
    models,
    prunable,
)

KINDS = ("dense", "masked", "adamw", "bip", "bip/filter", "hydra", "greg1", "greg1/filter", "adaptive")
"""Names of stages, some with a pattern. ``masked`` and ``adamw`` train with masks of density 0.5."""

LEARNING_RATE = 1e-3


def batch_size(device: torch.device) -> int:
    """Return 128 on a GPU, and 2 on a CPU, which only tests that the code runs."""
    return 128 if device.type == "cuda" else 2


def input_shape(model: str) -> tuple[int, int, int]:
    """Return channels, height and width: of the digits for ``tiny``, of CIFAR-10 for other models."""
    return (1, 8, 8) if model == "tiny" else (3, 32, 32)


def new_net(model: str, device: torch.device, *, compiled: bool = False) -> Net:
    """Return a network as a trial with default precision and memory format: on a GPU bfloat16 and channels last."""
    module = models.build(model, num_classes=10, in_channels=input_shape(model)[0], seed=0).to(device)
    if device.type == "cuda":
        module = module.to(memory_format=torch.channels_last)
    return Net(module.train(), autocast=device.type == "cuda", compile_forward=compiled)


def new_batch(model: str, device: torch.device, seed: int = 0) -> Batch:
    """Return a batch of random images and labels for ``model``."""
    generator = torch.Generator().manual_seed(seed)
    images = torch.randn((batch_size(device), *input_shape(model)), generator=generator).to(device)
    labels = torch.randint(10, (batch_size(device),), generator=generator).to(device)
    if device.type == "cuda":
        images = images.contiguous(memory_format=torch.channels_last)
    return images, labels


@dataclass
class Step:
    """A network, the stage that trains it, and its batches. Calling it takes one step."""

    net: Net
    stage: Stage
    batches: list[Batch]

    def __call__(self) -> tuple[Tensor, Tensor]:
        self.stage.prepare()
        return self.stage.step(*self.batches)


def new_step(kind: str, model: str, device: torch.device, *, compiled: bool = False) -> Step:
    """Return a step of a kind, ready to be called; equal arguments give equal steps."""
    net = new_net(model, device, compiled=compiled)
    stage = _stage(kind, model, net)
    stage.enter(net)
    stage.attach(net)
    stage.begin_epoch(0)
    return Step(net, stage, [new_batch(model, device, seed) for seed in range(len(stage.streams))])


def _stage(kind: str, model: str, net: Net) -> Stage:
    name, _, pattern = kind.partition("/")
    fields: dict[str, Any] = {"dataset": "cifar10", "model": model}
    grouped = {**fields, "pattern": pattern or "weight"}
    recipe = Recipe(lr=LEARNING_RATE)
    if name in ("masked", "adamw"):
        _mask_half(net)
    if name in ("dense", "masked"):
        return TrainStage("train", recipe)
    if name == "adamw":
        finetune = Finetune("finetune", AdamWRecipe())
        finetune.all_steps = 10**6
        return finetune
    if name == "bip":
        return Bilevel(BipConfig(density=0.5, mask_lr=LEARNING_RATE, prune={"lr": LEARNING_RATE}, **grouped))
    if name == "hydra":
        config = HydraConfig(density=0.5, prune=recipe, **grouped)
        return TrainScores(config, config.prune)
    if name == "greg1":
        return Greg1Stage(Greg1Config(stage_pr=0.5, **grouped))
    if name == "adaptive":
        return TrainWithThresholds(AdaptiveSparsityConfig(starget=0.9, pthres=0, **fields))
    raise KeyError(kind)


def _mask_half(net: Net) -> None:
    weights = prunable(net.model)
    chosen = {"pattern": PATTERNS["weight"], "distribution": DISTRIBUTIONS["global"]}
    net.set_masks(build_masks(weights, density=0.5, absolute=True, **chosen))
