"""Stages on the device ``meta``, with the branches that a GPU takes: operators run, but no tensor has values."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import pytest
import torch

from trials.data.loader import Batch
from trials.methods.base import Stage, TrainStage
from trials.methods.bip.scored import ScoredStage
from trials.methods.dwp.drop import DropThenTrain
from trials.methods.greg.groups import group_shape
from trials.methods.greg.growing import Growing, GrowingLayer
from trials.methods.regrow.finetuning import BEFORE, Finetune
from trials.models import MODELS
from trials.sparsity import prunable
from trials.training import launches
from trials.training.net import Net


class OneOperator(torch.optim.Optimizer):
    """Stands for torch's fused optimisers, which do not exist on ``meta``: one operator on lists, and no wait."""

    def __init__(self, parameters: Any, lr: Any, **options: Any) -> None:
        super().__init__(parameters, {"lr": lr})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:
        trained = [t for group in self.param_groups for t in group["params"] if t.grad is not None]
        if trained:
            torch._foreach_add_(trained, [tensor.grad for tensor in trained])


def take_gpu_branches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launches, "few_launches", lambda device: True)
    monkeypatch.setattr(torch, "autocast", lambda *arguments, **options: nullcontext())  # torch's refuses meta
    monkeypatch.setattr(torch.optim, "SGD", OneOperator)
    monkeypatch.setattr(torch.optim, "AdamW", OneOperator)


def attached(
    stage: Stage, model: str, channels: int, memory_format: torch.memory_format, *, masked: bool = True
) -> Net:
    """Attach a stage to a network on ``meta``, under a mask if it can have one, as if it were resumed."""
    with torch.device("meta"):
        module = MODELS[model](num_classes=10, in_channels=channels)
    net = Net(module.to(memory_format=memory_format).train())
    weights = prunable(net.model)
    everything = {name: torch.ones_like(weight, dtype=torch.bool) for name, weight in weights.items()}
    if isinstance(stage, Growing):
        shapes = {name: group_shape(weight, stage.config.pattern) for name, weight in weights.items()}
        stage.layers = {
            name: GrowingLayer(1, torch.empty(shape, dtype=torch.bool, device="meta")) for name, shape in shapes.items()
        }
        stage.iteration = 1  # not one that updates lambda, which the host does
    elif isinstance(stage, ScoredStage):
        net.set_masks({name: everything[name] for name in stage.config.scored(net)})
    elif masked:
        net.set_masks(everything)
    if isinstance(stage, Finetune):
        stage.all_steps = 10
        net.snapshots[BEFORE] = dict(everything)
    if isinstance(stage, DropThenTrain):  # its own counts, once per attempt, what the masks drop
        TrainStage.attach(stage, net)
    else:
        stage.attach(net)
    stage.begin_epoch(0)
    return net


def batches_for(stage: Stage, *shape: int) -> list[Batch]:
    """A batch of 4 images of this shape for each stream of a stage."""
    images, labels = torch.empty(4, *shape, device="meta"), torch.empty(4, dtype=torch.int64, device="meta")
    return [(images, labels) for _ in stage.streams]
