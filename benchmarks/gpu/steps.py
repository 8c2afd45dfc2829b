"""The training steps that are timed, one per kind, each on a fixed batch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from benchmarks.gpu.product import (
    DISTRIBUTIONS,
    PATTERNS,
    AdamWRecipe,
    AdaptiveSparsityConfig,
    BackwardConfig,
    BackwardPruner,
    Batch,
    Bilevel,
    BipConfig,
    Finetune,
    Greg1Config,
    Greg1Stage,
    Greg2Config,
    Greg2Stage,
    HydraConfig,
    Net,
    Recipe,
    Stage,
    TrainScores,
    TrainStage,
    TrainWithThresholds,
    build_masks,
    generator,
    models,
    parse,
    prunable,
    stepper,
)

KINDS = (
    "dense", "masked", "adamw", "bip", "bip/filter", "bip/channel", "hydra", "hydra/filter", "greg1/weight",
    "greg1/filter", "greg2/weight", "greg2/filter", "adaptive", "backward",
)  # fmt: skip
"""Names of stages, some with a pattern. ``masked`` and ``adamw`` train with masks of density 0.5; ``backward`` prunes
30 % of the weights in its backward passes."""

TIMED = ("dense", "masked", "bip", "hydra", "greg1/weight", "adaptive", "adamw")
"""Kinds that are timed on every model."""

LEARNING_RATE = 1e-3

FIRST = 6
"""Steps after which trials have captured one; at least one has then been replayed."""


@dataclass(frozen=True)
class Shape:
    """How a step computes: size of its batches, precision and memory format."""

    batch: int
    autocast: bool = False
    channels_last: bool = False
    dtype: torch.dtype = torch.float32

    @classmethod
    def of(cls, device: torch.device) -> Shape:
        """Return that of trials by default, and batches of 128; on a CPU, which tests that the code runs, of 2."""
        gpu = device.type == "cuda"
        return cls(batch_size(device), autocast=gpu, channels_last=gpu)

    @property
    def memory_format(self) -> torch.memory_format:
        """The memory format, as torch names it."""
        return torch.channels_last if self.channels_last else torch.contiguous_format


def batch_size(device: torch.device) -> int:
    """Return 128 on a GPU, and 2 on a CPU."""
    return 128 if device.type == "cuda" else 2


def input_shape(model: str) -> tuple[int, int, int]:
    """Return channels, height and width: of the digits for ``tiny``, of CIFAR-10 for other models."""
    return (1, 8, 8) if model == "tiny" else (3, 32, 32)


def new_net(model: str, device: torch.device, *, compiled: bool = False, shape: Shape | None = None) -> Net:
    """Return a network; by default in the precision and memory format of a trial on the device."""
    shape = shape or Shape.of(device)
    module = models.build(model, num_classes=10, in_channels=input_shape(model)[0], seed=0)
    module = module.to(device, shape.dtype).to(memory_format=shape.memory_format)  # type: ignore[call-overload]
    return Net(module.train(), autocast=shape.autocast, compile_forward=compiled)


def new_batch(model: str, device: torch.device, seed: int = 0, shape: Shape | None = None) -> Batch:
    """Return a batch of random images and labels for ``model``."""
    shape = shape or Shape.of(device)
    source = torch.Generator().manual_seed(seed)
    images = torch.randn((shape.batch, *input_shape(model)), generator=source).to(device, shape.dtype)
    labels = torch.randint(10, (shape.batch,), generator=source).to(device)
    return images.contiguous(memory_format=shape.memory_format), labels


@dataclass
class Step:
    """A network, the stage that trains it, and its batches. Calling it takes one step."""

    net: Net
    stage: Stage
    batches: list[Batch]

    def __call__(self) -> tuple[Tensor, Tensor]:
        self.stage.prepare()
        return self.stage.step(*self.batches)


def new_step(
    kind: str, model: str, device: torch.device, *, compiled: bool = False, shape: Shape | None = None
) -> Step:
    """Return a step of a kind, ready to be called; equal arguments give equal steps."""
    net = new_net(model, device, compiled=compiled, shape=shape)
    stage = _stage(kind, model, net)
    stage.enter(net)
    stage.attach(net)
    BackwardPruner(net.model, stage.recipe.backward, lambda layer: generator("backward", layer, device=device))
    stage.begin_epoch(0)
    return Step(net, stage, [new_batch(model, device, seed, shape) for seed in range(len(stage.streams))])


def runner(step: Step) -> Any:
    """Return what runs the step as trials do: on a GPU as a CUDA graph, if the stage can be captured."""
    config = parse({"method": "dense", "dataset": "cifar10", "model": "tiny", "device": str(step.net.device)})
    return stepper(step.stage, step.net, config)


def replayed(step: Step) -> Callable[[], object]:
    """Return the step as trials run it, with its batches copied into the graph's."""
    running = runner(step)
    return lambda: running.step(*step.batches)


def captured(step: Step) -> Callable[[], object]:
    """Return :func:`replayed`, on a GPU after its first steps, the last of which was the capture."""
    replay = replayed(step)
    for _ in range(FIRST if step.net.device.type == "cuda" else 0):
        replay()
    return replay


def _stage(kind: str, model: str, net: Net) -> Stage:
    name, _, pattern = kind.partition("/")
    fields: dict[str, Any] = {"dataset": "cifar10", "model": model}
    grouped = {**fields, "pattern": pattern or "weight"}
    backward = BackwardConfig() if name == "backward" else None
    recipe = Recipe(lr=LEARNING_RATE, backward=backward)
    if name in ("masked", "adamw"):
        _mask_half(net)
    if name in ("dense", "masked", "backward"):
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
    if name == "greg2":
        return Greg2Stage(Greg2Config(stage_pr=0.5, **grouped))
    if name == "adaptive":
        return TrainWithThresholds(AdaptiveSparsityConfig(starget=0.9, pthres=0, **fields))
    raise KeyError(kind)


def _mask_half(net: Net) -> None:
    weights = prunable(net.model)
    chosen = {"pattern": PATTERNS["weight"], "distribution": DISTRIBUTIONS["global"]}
    net.set_masks(build_masks(weights, density=0.5, absolute=True, **chosen))
