"""Section ``kernels``: which kernels take the device's time in one step of every kind."""

from __future__ import annotations

from collections import Counter
from typing import Any

from torch.profiler import ProfilerActivity, profile

from benchmarks.gpu.check import Check, Result
from benchmarks.gpu.kinds import kind_of_kernel, kind_of_operator
from benchmarks.gpu.measuring import Card
from benchmarks.gpu.steps import KINDS, Step, new_step

MODEL = "resnet20s"
LONGEST = 12
ANNOTATIONS = ("Optimizer.", "ProfilerStep", "Torch-Compiled Region")
"""Beginnings of the names of ranges that torch marks; they are no kernels."""

NAME = 110
"""Characters of a kernel's name that are kept."""


def kernels(check: Check, result: Result) -> None:
    """Record the kernels of a step of resnet20s; on a CPU, of some, the operators and their time.

    ``result`` is keyed by kind of step, and by ``vgg16`` and ``resnet18`` for their dense steps. Shares are of
    ``device_ms``, the time that all kernels take together.
    """
    named = {kind: (kind, MODEL) for kind in KINDS} | {model: ("dense", model) for model in ("resnet18", "vgg16")}
    for name, (kind, model) in named.items() if check.card.is_cuda else list(named.items())[:4]:
        if check.has(5.0, result, name):
            check.attempt(result, name, lambda kind=kind, model=model: _of(check, new_step(kind, model, check.device)))


def _of(check: Check, step: Step) -> dict[str, Any]:
    for _ in range(3 if check.card.is_cuda else 1):
        step()
    return measured(check.card, step)


def measured(card: Card, step: Step) -> dict[str, Any]:
    """Return number, time, kinds and the longest of the kernels (on a CPU: operators) of one step."""
    kind_of = kind_of_kernel if card.is_cuda else kind_of_operator
    with profile(activities=[ProfilerActivity.CUDA if card.is_cuda else ProfilerActivity.CPU]) as profiler:
        step()
        card.wait()
    launched = _launched(profiler) if card.is_cuda else _called(profiler)
    calls: Counter[str] = Counter()
    spent: Counter[str] = Counter()
    for name, microseconds in launched:
        calls[name] += 1
        spent[name] += microseconds
    total = sum(spent.values()) or 1.0
    kinds: dict[str, dict[str, Any]] = {}
    for name, microseconds in spent.most_common():
        of = kinds.setdefault(kind_of(name), {"calls": 0, "us": 0.0})
        of["calls"] += calls[name]
        of["us"] += microseconds
    shares = {kind: {**of, "us": round(of["us"], 1), "share": round(of["us"] / total, 4)} for kind, of in kinds.items()}
    return {
        "kernels" if card.is_cuda else "operators": sum(calls.values()),
        "device_ms": round(total / 1e3, 4),
        "kinds": dict(sorted(shares.items(), key=lambda item: -item[1]["us"])),
        "longest": [
            {"name": name[:NAME], "calls": calls[name], "us": round(time, 1), "share": round(time / total, 4)}
            for name, time in spent.most_common(LONGEST)
        ],
    }


def _launched(profiler: profile) -> list[tuple[str, float]]:
    """Return name and microseconds of every kernel, copy and fill on the device, without annotations of ranges."""
    found = []
    for event in profiler.profiler.kineto_results.events():  # type: ignore[union-attr]
        name = event.name()
        annotation = name.startswith(ANNOTATIONS) or getattr(event, "is_user_annotation", lambda: False)()
        if "CUDA" in str(event.device_type()) and not name.startswith("cuda") and not annotation:
            found.append((name, event.duration_ns() / 1e3))
    return found


def _called(profiler: profile) -> list[tuple[str, float]]:
    """Return name and own microseconds of every ATen operator."""
    events = profiler.events() or []
    return [(event.name, event.self_cpu_time_total) for event in events if event.name.startswith("aten::")]
