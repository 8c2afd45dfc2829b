"""The GPU check: ``python -m benchmarks.gpu [--device cuda|cpu] [--seconds 350] [--out DIR] [--only NAME,…]``.

Writes DIR/gpu_check.json after every section and DIR/gpu_check.md at the end, and prints the latter. Sections are
independent: an error is recorded and the next section runs. A section with too little time left is recorded as
skipped. Required packages: torch, numpy, pyarrow, filelock, pillow, scikit-learn and pydantic. It needs no network and
no Ray, and changes no setting of the GPU. On a CPU it runs in a tiny size, to test the check itself.
"""

from __future__ import annotations

import argparse
import fnmatch
import os
import signal
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from benchmarks.gpu.check import Check, Result
from benchmarks.gpu.compiling import compile_others, compile_resnet20s
from benchmarks.gpu.machine import machine
from benchmarks.gpu.measuring import Card
from benchmarks.gpu.packing import same_process, stacked
from benchmarks.gpu.processes import processes, processes_mps, work
from benchmarks.gpu.report import report
from benchmarks.gpu.smoke import NAMES, smoke
from benchmarks.gpu.timings import kernels, loop, steps, waits

TIMED = ("dense", "masked", "bip", "hydra", "greg1", "adaptive", "adamw")


@dataclass(frozen=True)
class Section:
    """A part of the check; ``needs_s`` is the time it needs at least, in seconds."""

    name: str
    needs_s: float
    run: Callable[[Check, Result], None]
    needs_cuda: bool = False


SECTIONS = (
    Section("machine", 1, machine),
    Section("smoke", 5, smoke),
    Section("waits", 5, waits),
    Section("steps_resnet20s", 5, steps("resnet20s", TIMED, 0.5)),
    Section("loop", 5, loop),
    Section("steps_vgg16", 5, steps("vgg16", ("dense", "masked", "bip", "hydra"), 0.3)),
    Section("steps_resnet18", 5, steps("resnet18", ("dense", "masked", "bip", "hydra"), 0.3)),
    Section("same_process", 30, same_process, needs_cuda=True),
    Section("stacked", 5, stacked),
    Section("processes", 15, processes),
    Section("processes_mps", 60, processes_mps, needs_cuda=True),
    Section("compile_resnet20s", 60, compile_resnet20s, needs_cuda=True),
    Section("compile_others", 70, compile_others, needs_cuda=True),
    Section("kernels", 5, kernels, needs_cuda=True),
)


def options(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Parse the command line; ``sections`` and ``names`` (trials of ``smoke``) are resolved from their patterns."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu", description="What the project does on a GPU.")
    parser.add_argument("--device", default="cuda", help="cuda, or cpu to see that the check itself works")
    parser.add_argument("--seconds", type=float, default=350.0, help="how long all sections together may take")
    parser.add_argument("--out", type=Path, default=Path(), help="folder of gpu_check.json and gpu_check.md")
    parser.add_argument("--only", default="*", help="names of sections, patterns too: machine,steps_*")
    parser.add_argument("--trials", default="*", help="names of trials of the section smoke, patterns too: dense,bip*")
    parser.add_argument("--worker", type=Path, help=argparse.SUPPRESS)
    chosen = parser.parse_args(arguments)
    try:
        chosen.sections = matching([section.name for section in SECTIONS], chosen.only)
        chosen.names = matching(NAMES, chosen.trials)
        chosen.device = torch.empty(0, device=chosen.device).device
    except (ValueError, RuntimeError, AssertionError) as error:  # torch without CUDA raises AssertionError
        parser.error(str(error).partition("\n")[0])
    return chosen


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


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the chosen sections, or a worker of the section ``processes``; return the exit code."""
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))  # so that workers and MPS are ended too
    chosen = options(arguments)
    torch.set_num_threads(1)
    if chosen.worker:
        work(chosen.worker, chosen.device)
        return 0
    check = Check(Card(chosen.device), chosen.seconds, chosen.out, chosen.names)
    with tempfile.TemporaryDirectory() as cache:
        os.environ["XDG_CACHE_HOME"] = cache
        for section in SECTIONS:
            if section.name in chosen.sections:
                check.section(section.name, section.needs_s, section.needs_cuda, section.run)
    page = f"# GPU check\n\n{report(check.results)}\n"
    (check.folder / "gpu_check.md").write_text(page)
    print(page, end="")
    return 0


if __name__ == "__main__":
    sys.exit(main())
