"""Timing of two functions in alternation, so that drifts of the machine's speed do not change their ratio."""

from __future__ import annotations

import platform
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Pair:
    """Seconds of A and of B in each round."""

    a: list[float]
    b: list[float]

    @property
    def ratio(self) -> float:
        """Median over the rounds of A / B."""
        return statistics.median(x / y for x, y in zip(self.a, self.b, strict=True))

    def line(self, name: str, a: str, b: str, goal: str) -> str:
        """Return one printable result."""
        ratios = sorted(x / y for x, y in zip(self.a, self.b, strict=True))
        return (
            f"{name}: {a} {statistics.median(self.a) * 1e3:.1f} ms, {b} {statistics.median(self.b) * 1e3:.1f} ms, "
            f"ratio {self.ratio:.3f} (min {ratios[0]:.3f}, max {ratios[-1]:.3f}, n {len(ratios)}; goal {goal})"
        )


def pair(a: Callable[[], object], b: Callable[[], object], rounds: int = 7, warmup: int = 1) -> Pair:
    """Time A and B in alternation, after ``warmup`` rounds that are not counted."""
    for _ in range(warmup):
        a()
        b()
    times: tuple[list[float], list[float]] = ([], [])
    for _ in range(rounds):
        for function, seconds in zip((a, b), times, strict=True):
            start = time.perf_counter()
            function()
            seconds.append(time.perf_counter() - start)
    return Pair(*times)


def machine() -> str:
    """Return a description of the CPU, threads and versions."""
    cpu = platform.processor() or platform.machine()
    try:
        with open("/proc/cpuinfo") as info:  # noqa: PTH123
            cpu = next(line.split(":")[1].strip() for line in info if line.startswith("model name"))
    except (OSError, StopIteration):
        pass
    return f"{cpu}, {torch.get_num_threads()} thread(s), torch {torch.__version__}, Python {platform.python_version()}"
