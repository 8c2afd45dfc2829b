"""Sections ``compile_resnet20s`` and ``compile_others``: steps with ``torch.compile``, also as CUDA graphs."""

from __future__ import annotations

import time

from benchmarks.gpu.check import Check, Result
from benchmarks.gpu.measuring import Captured
from benchmarks.gpu.packing import on_streams
from benchmarks.gpu.steps import Step, new_step


def compile_resnet20s(check: Check, result: Result) -> None:
    """Time a compiled dense and BiP step of resnet20s, and K compiled dense steps on K streams."""
    for kind in ("dense", "bip"):
        if check.has(45.0, result, kind):
            result[kind] = {}
            _time_compiled(check, result[kind], kind, "resnet20s")
    result["streams"] = {}
    on_streams(check, result["streams"], "resnet20s", (1, 4, 8, 16), compiled=True)


def compile_others(check: Check, result: Result) -> None:
    """Time compiled dense steps of vgg16 and resnet18."""
    for model in ("vgg16", "resnet18"):
        if check.has(50.0, result, model):
            result[model] = {}
            _time_compiled(check, result[model], "dense", model)


def _time_compiled(check: Check, result: Result, kind: str, model: str) -> None:
    card = check.card
    steps: list[Step] = []

    def first_step() -> float:
        start = time.monotonic()
        steps.append(new_step(kind, model, card.device, compiled=True))
        steps[0]()
        card.wait()
        return round(time.monotonic() - start, 1)

    if check.attempt(result, "first_step_s", first_step):
        check.attempt(result, "compiled_ms", lambda: card.median_ms(steps[0]))
        check.attempt(result, "compiled_graph_ms", lambda: card.median_ms(Captured(steps[0])))
