"""The sections of the check, the most important first, and the processes they run in; imports no torch."""

from __future__ import annotations

import fnmatch
import importlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Section:
    """A part of the check.

    Attributes:
        name: key of its results.
        where: its function, ``module:name`` in benchmarks/gpu/sections; called with the check and its results.
        process: consecutive sections of one name share a process. Profilers and compilers slow down later launches, so
            that what is timed does not share a process with them.
        needs_s: seconds that it needs at least.
        limit_s: seconds after which its process is ended.
        needs_cuda: whether it is skipped on a CPU.
    """

    name: str
    where: str
    process: str
    needs_s: float = 5.0
    limit_s: float = 90.0
    needs_cuda: bool = False

    def load(self) -> Any:
        """Import and return the section's function."""
        module, _, name = self.where.partition(":")
        return getattr(importlib.import_module(f"benchmarks.gpu.sections.{module}"), name)


SECTIONS = (
    Section("machine", "machine:machine", "timed", 1),
    Section("steps_resnet20s", "timings:steps_resnet20s", "timed"),
    Section("waits", "timings:waits", "timed"),
    Section("counts", "counting:counts", "timed"),
    Section("loop", "around:loop", "timed"),
    Section("epoch", "epoch:epoch", "timed", 20, 120),
    Section("switches", "switches:switches", "timed"),
    Section("same_process", "packing:same_process", "timed", 15, needs_cuda=True),
    Section("steps_resnet18", "timings:steps_resnet18", "timed"),
    Section("steps_vgg16", "timings:steps_vgg16", "timed"),
    Section("smoke", "smoke:smoke", "whole", 10, 150),
    Section("kernels", "kernels:kernels", "whole"),
    Section("processes", "processes:processes", "whole", 15, 120),
    Section("processes_mps", "processes:processes_mps", "whole", 40, 120, needs_cuda=True),
    Section("compiled_resnet20s", "timings:compiled_resnet20s", "compiled", 50, 120, needs_cuda=True),
    Section("smoke_compiled", "smoke:smoke_compiled", "compiled", 40, 120, needs_cuda=True),
    Section("compiled_resnet18", "timings:compiled_resnet18", "compiled", 50, 120, needs_cuda=True),
    Section("compiled_vgg16", "timings:compiled_vgg16", "compiled", 50, 120, needs_cuda=True),
    Section("stacked", "packing:stacked", "compiled", 5),
)


def matching(names: Sequence[str], patterns: str) -> tuple[str, ...]:
    """Return the names that match at least one of the comma-separated patterns.

    Raises:
        ValueError: a pattern matches no name.
    """
    wanted: set[str] = set()
    for pattern in patterns.split(","):
        fitting = fnmatch.filter(names, pattern)
        if not fitting:
            raise ValueError(f"{pattern!r} is none of: {', '.join(names)}")
        wanted.update(fitting)
    return tuple(name for name in names if name in wanted)


def chosen(patterns: str) -> tuple[Section, ...]:
    """Return the sections whose names match.

    Raises:
        ValueError: a pattern matches no section.
    """
    names = matching([section.name for section in SECTIONS], patterns)
    return tuple(section for section in SECTIONS if section.name in names)
