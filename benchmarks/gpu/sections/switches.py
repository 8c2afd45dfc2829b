"""Section ``switches``: what the fields ``deterministic`` and ``tf32`` and ``cudnn.benchmark`` cost a dense step."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

import torch

from benchmarks.gpu.check import Check, Result
from benchmarks.gpu.measuring import Captured, Card
from benchmarks.gpu.product import arithmetic
from benchmarks.gpu.steps import Shape, Step, batch_size, new_step

MODEL = "resnet20s"

WAYS: dict[str, dict[str, bool]] = {
    "as trials": {},
    "deterministic": {"deterministic": True},
    "without cudnn.benchmark": {"benchmark": False},
    "float32": {"float32": True},
    "float32, tf32": {"float32": True, "tf32": True},
    "float32, without cudnn.benchmark": {"float32": True, "benchmark": False},
}
"""By name, the switches; ``float32`` trains in float32 instead of with bfloat16 autocast."""


def switches(check: Check, result: Result) -> None:
    """Time a dense step of resnet20s in every way, eager and captured; torch's settings are restored."""
    for name, way in WAYS.items():
        if check.has(5.0, result, name):
            result[name] = {}
            with switched(check.device, way):
                check.attempt(result[name], "eager_ms", partial(_eager, check.card, way))
                if check.card.is_cuda:
                    check.attempt(result[name], "graph_ms", partial(_graph, check.card, way))


def _step(card: Card, way: dict[str, bool]) -> Step:
    autocast = card.is_cuda and not way.get("float32", False)
    shape = Shape(batch_size(card.device), autocast=autocast, channels_last=card.is_cuda)
    return new_step("dense", MODEL, card.device, shape=shape)


def _eager(card: Card, way: dict[str, bool]) -> float:
    return card.median_ms(_step(card, way), 0.4)


def _graph(card: Card, way: dict[str, bool]) -> float:
    return card.median_ms(Captured(_step(card, way)), 0.4)


@contextmanager
def switched(device: torch.device, way: dict[str, bool]) -> Iterator[None]:
    """Set torch's switches as a trial does, and ``cudnn.benchmark`` otherwise; give back the former ones at the end."""
    cudnn = torch.backends.cudnn
    before = cudnn.benchmark
    with arithmetic(device, tf32=way.get("tf32", False), deterministic=way.get("deterministic", False)):
        cudnn.benchmark = way.get("benchmark", cudnn.benchmark)
        try:
            yield
        finally:
            cudnn.benchmark = before
