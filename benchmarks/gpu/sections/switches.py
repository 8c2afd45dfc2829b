"""Section ``switches``: what torch's global switches cost a dense step: deterministic, TF32, cudnn.benchmark."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from benchmarks.gpu.check import Check, Result
from benchmarks.gpu.measuring import Captured, Card
from benchmarks.gpu.steps import Shape, Step, batch_size, new_step

MODEL = "resnet20s"

WAYS: dict[str, dict[str, bool]] = {
    "as torch sets them": {},
    "deterministic": {"deterministic": True},
    "cudnn.benchmark": {"benchmark": True},
    "float32, TF32 off": {"float32": True, "tf32": False},
    "float32, TF32 on": {"float32": True, "tf32": True},
    "float32, TF32 off, cudnn.benchmark": {"float32": True, "tf32": False, "benchmark": True},
}
"""By name, the switches; ``float32`` trains in float32 instead of with bfloat16 autocast."""


def switches(check: Check, result: Result) -> None:
    """Time a dense step of resnet20s in every way, eager and captured; torch's settings are restored."""
    for name, way in WAYS.items():
        if check.has(5.0, result, name):
            result[name] = {}
            with switched(way):
                check.attempt(result[name], "eager_ms", lambda way=way: _eager(check.card, way))
                if check.card.is_cuda:
                    check.attempt(result[name], "graph_ms", lambda way=way: _graph(check.card, way))


def _step(card: Card, way: dict[str, bool]) -> Step:
    autocast = card.is_cuda and not way.get("float32", False)
    shape = Shape(batch_size(card.device), autocast=autocast, channels_last=card.is_cuda)
    return new_step("dense", MODEL, card.device, shape=shape)


def _eager(card: Card, way: dict[str, bool]) -> float:
    return card.median_ms(_step(card, way), 0.4)


def _graph(card: Card, way: dict[str, bool]) -> float:
    return card.median_ms(Captured(_step(card, way)), 0.4)


@contextmanager
def switched(way: dict[str, bool]) -> Iterator[None]:
    """Set torch's global switches, and restore them at the end."""
    cudnn, matmul = torch.backends.cudnn, torch.backends.cuda.matmul
    before = cudnn.deterministic, cudnn.benchmark, cudnn.allow_tf32, matmul.allow_tf32
    deterministic = torch.are_deterministic_algorithms_enabled()
    warn_only = torch.is_deterministic_algorithms_warn_only_enabled()
    fills = torch.utils.deterministic.fill_uninitialized_memory
    try:
        torch.utils.deterministic.fill_uninitialized_memory = False  # it costs a kernel for each new tensor
        cudnn.benchmark = way.get("benchmark", cudnn.benchmark)
        cudnn.deterministic = way.get("deterministic", cudnn.deterministic)
        cudnn.allow_tf32 = way.get("tf32", cudnn.allow_tf32)
        matmul.allow_tf32 = way.get("tf32", matmul.allow_tf32)
        if way.get("deterministic"):
            torch.use_deterministic_algorithms(True, warn_only=True)  # without an environment variable cuBLAS warns
        yield
    finally:
        cudnn.deterministic, cudnn.benchmark, cudnn.allow_tf32, matmul.allow_tf32 = before
        torch.use_deterministic_algorithms(deterministic, warn_only=warn_only)
        torch.utils.deterministic.fill_uninitialized_memory = fills
