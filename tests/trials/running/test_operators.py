"""How many operators a step takes on a GPU, relative to a dense step: there, each costs a launch however small it is.

Counted without a GPU, on the device ``meta`` and with the branches that a GPU takes: all operators of the forward and
backward pass and of the update that torch dispatches, but for views. A fused optimiser counts once; for lists of
tensors see tests/trials/operators.py.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch

from tests.trials.on_meta import attached, batches_for, take_gpu_branches
from tests.trials.operators import operators
from trials.config.recipes import Recipe
from trials.methods.adaptive.adaptive_sparsity import AdaptiveSparsityConfig, TrainWithThresholds
from trials.methods.base import Stage, TrainStage
from trials.methods.bip.bip import Bilevel, BipConfig
from trials.methods.bip.hydra import HydraConfig, TrainScores
from trials.methods.greg.greg1 import Greg1Config, Greg1Stage
from trials.methods.greg.greg2 import Greg2Config, Greg2Stage

MOST = {
    "masked": 1.03,
    "bip": 2.2,
    "hydra": 1.5,
    "greg1": 1.1,
    "greg1 filter": 1.1,
    "greg2 filter": 1.1,
    "adaptive": 1.4,
}
"""Operators of a step over those of a dense step; BiP's step has two batches."""

FORMATS = {"contiguous": torch.contiguous_format, "channels_last": torch.channels_last}


def stage_of(kind: str, model: str) -> Stage:
    name, _, pattern = kind.partition(" ")
    fields: dict[str, Any] = {"dataset": "cifar10", "model": model, "pattern": pattern or "weight"}
    recipe = Recipe(epochs=1)
    if name == "bip":
        return Bilevel(BipConfig(density=0.2, **fields))
    if name == "hydra":
        return TrainScores(HydraConfig(density=0.2, **fields), recipe)
    if name == "greg1":
        return Greg1Stage(Greg1Config(stage_pr=0.5, **fields))
    if name == "greg2":
        return Greg2Stage(Greg2Config(stage_pr=0.5, **fields))
    if name == "adaptive":
        return TrainWithThresholds(AdaptiveSparsityConfig(starget=0.9, pthres=0, dataset="cifar10", model=model))
    return TrainStage("train", recipe)


def counted(kind: str, model: str, memory_format: str) -> int:
    """Operators of a stage's step."""
    stage = stage_of(kind, model)
    attached(stage, model, 3, FORMATS[memory_format], masked=kind != "dense")
    batches = batches_for(stage, 3, 32, 32)
    stage.prepare()
    with operators() as found:
        stage.step(*batches)
    return sum(found.values())


@pytest.mark.parametrize("memory_format", FORMATS)
@pytest.mark.parametrize("model", ["resnet20s", "vgg16"])
@pytest.mark.parametrize("kind", MOST)
def test_a_step_takes_few_operators(kind: str, model: str, memory_format: str, monkeypatch: pytest.MonkeyPatch) -> None:
    take_gpu_branches(monkeypatch)
    dense = counted("dense", model, memory_format)
    assert counted(kind, model, memory_format) <= MOST[kind] * dense


def test_lists_of_other_strides_count_one_by_one() -> None:
    ones = [torch.ones(2, 3, 4, 4) for _ in range(3)]
    others = [one.contiguous(memory_format=torch.channels_last) for one in ones]
    for second, expected in ((ones, 1), (others, 3)):
        with operators() as found:
            torch._foreach_mul_(ones, second)
        assert sum(found.values()) == expected
