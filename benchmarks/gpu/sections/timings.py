"""Sections ``waits``, ``steps_…`` and ``compiled_…``: a training step's waits for the device, and its milliseconds."""

from __future__ import annotations

import time
import warnings
from collections import Counter
from functools import partial
from pathlib import Path
from typing import Any

import torch

from benchmarks.gpu.check import Check, Result
from benchmarks.gpu.measuring import Card
from benchmarks.gpu.sections.counting import Operators
from benchmarks.gpu.sections.packing import on_streams
from benchmarks.gpu.steps import KINDS, TIMED, Step, captured, new_step, replayed

STEPS = 5
MODEL = "resnet20s"
"""Model of every section but those that name one. On a CPU, only a dense step is timed for other models."""


def waits(check: Check, result: Result) -> None:
    """Count waits for the device in five steps, by source line; on a CPU, count reads of a tensor's value.

    On a CPU those are no waits, and masks are selected by another path, which reads values.
    """
    count = _waits_on_cuda if check.card.is_cuda else _reads_on_cpu
    for kind in KINDS:
        check.attempt(result, kind, lambda kind=kind: count(new_step(kind, MODEL, check.device)))


def _waits_on_cuda(step: Step) -> dict[str, Any]:
    """Count torch's synchronisation warnings, which cover reads of values and copies but not every wait."""
    for _ in range(2):
        step()
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("warn")
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            for _ in range(STEPS):
                step()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    seen = [warning for warning in caught if "synchroniz" in str(warning.message)]
    lines = Counter(f"{Path(warning.filename).name}:{warning.lineno}" for warning in seen)
    return {"waits_in_5_steps": len(seen), "where": dict(lines.most_common(4))}


def _reads_on_cpu(step: Step) -> dict[str, Any]:
    with Operators() as operators:
        for _ in range(STEPS):
            step()
    return {"reads_in_5_steps": operators.reads}


def steps(model: str, seconds: float, check: Check, result: Result) -> None:
    """Time a step of each kind, eager and as the CUDA graph that trials replay."""
    for kind in TIMED if check.card.is_cuda or model == MODEL else TIMED[:1]:
        if check.has(10.0, result, kind):
            result[kind] = {}
            _time_kind(check, result[kind], kind, model, seconds)


def _time_kind(check: Check, result: Result, kind: str, model: str, seconds: float) -> None:
    card = check.card

    def eager() -> float:
        return card.median_ms(new_step(kind, model, card.device), seconds)

    def graph() -> float:
        return card.median_ms(captured(new_step(kind, model, card.device)), seconds)

    check.attempt(result, "eager_ms", eager)
    if not card.is_cuda and model != MODEL:
        return
    if not new_step(kind, model, card.device).stage.captures:
        result["graph_ms"] = {"skipped": "this stage is not captured"}
    elif check.attempt(result, "graph_ms", graph):
        check.attempt(result, "graph_vs_eager", lambda: _difference(card, kind, model))


def _difference(card: Card, kind: str, model: str) -> float:
    """Return the largest difference of a parameter between eager and captured training after 13 steps.

    It is relative to the largest absolute value of the same tensor. On a GPU at least nine of the captured steps are
    replayed; on a CPU, where nothing is captured, both take three steps.
    """
    step, twin = new_step(kind, model, card.device), new_step(kind, model, card.device)
    replay = replayed(twin)
    for _ in range(13 if card.is_cuda else 3):
        step()
        replay()  # the first steps run eagerly too
    card.wait()
    weights = [[p.detach() for p in each.net.model.parameters()] for each in (step, twin)]
    return max(float((a - b).abs().max() / a.abs().max().clamp(min=1e-30)) for a, b in zip(*weights, strict=True))


def compiled(model: str, streams: bool, check: Check, result: Result) -> None:
    """Time compiled steps, eager and as CUDA graphs; with ``streams`` also K compiled dense steps on K streams."""
    for kind in TIMED:
        if check.has(40.0 if kind == "dense" else 10.0, result, kind):
            result[kind] = {}
            _time_compiled(check, result[kind], kind, model)
    if streams:
        on_streams(check, result.setdefault("streams", {}), model, (1, 4, 8, 16), compiled=True)


def _time_compiled(check: Check, result: Result, kind: str, model: str) -> None:
    card = check.card
    made: list[Step] = []

    def first_step() -> float:
        start = time.monotonic()
        made.append(new_step(kind, model, card.device, compiled=True))
        made[0]()
        card.wait()
        return round(time.monotonic() - start, 1)

    if check.attempt(result, "first_step_s", first_step):
        check.attempt(result, "compiled_ms", lambda: card.median_ms(made[0], 0.3))
        if made[0].stage.captures:
            check.attempt(result, "compiled_graph_ms", lambda: card.median_ms(captured(made[0]), 0.3))


steps_resnet20s = partial(steps, "resnet20s", 0.5)
steps_resnet18 = partial(steps, "resnet18", 0.3)
steps_vgg16 = partial(steps, "vgg16", 0.3)
compiled_resnet20s = partial(compiled, "resnet20s", True)
compiled_resnet18 = partial(compiled, "resnet18", False)
compiled_vgg16 = partial(compiled, "vgg16", False)
