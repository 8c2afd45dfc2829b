"""Run the sections in processes of their own and go on after one that dies, hangs or has lost the device; no torch."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from itertools import takewhile
from pathlib import Path

from benchmarks.gpu.plan import Section
from benchmarks.gpu.results import RUNNING, read_results, write_results

ROOT = Path(__file__).resolve().parents[2]

REFUSED = 2
"""Exit code of a process that was given a wrong option."""

LOST = 17
"""Exit code of a process whose device has died."""

POLL_S = 0.1
ASK_S = 2.0
GRACE_S = 10.0
"""Seconds that a section may take beyond the check's time, and a process to end when it is told to."""

Command = Callable[[Sequence[Section], float], list[str]]
"""Returns the command of a process that runs some sections in a number of seconds."""


def supervise(sections: Sequence[Section], command: Command, folder: Path, seconds: float) -> int:
    """Run all sections, as far as the time allows; return the exit code: 0, or ``REFUSED`` if a process refuses."""
    end = time.monotonic() + seconds
    write_results(folder, {})
    left, in_vain, reason = list(sections), 0, None
    while left:
        if in_vain == 2 or time.monotonic() > end:
            _skip(folder, left, f"two processes began no section: {reason}" if in_vain == 2 else "0 s left")
            break
        first = left[0].process
        group = list(takewhile(lambda section, first=first: section.process == first, left))
        process = subprocess.Popen(command(group, end - time.monotonic()), cwd=ROOT, stdin=subprocess.DEVNULL)
        try:
            reason = _watch(process, group, folder, end)
        finally:
            _end(process)
        if process.returncode == REFUSED and len(left) == len(sections):
            return REFUSED
        reason = reason or _how(process.returncode)
        done = _settle(folder, group, reason)
        in_vain = 0 if done else in_vain + 1
        left = [section for section in left if section.name not in done]
    return 0


def _watch(process: subprocess.Popen[bytes], group: Sequence[Section], folder: Path, end: float) -> str | None:
    """Wait for a process; return why it must be ended, None if it has ended by itself."""
    limits = {section.name: section.limit_s for section in group}
    began: dict[str, float] = {}
    while process.poll() is None:
        now = time.monotonic()
        if now > end + GRACE_S:
            return "the check's time is over"
        running = next((name for name in limits if RUNNING in read_results(folder).get(name, {})), None)
        if running is not None and now - began.setdefault(running, now) > limits[running]:
            return f"it took longer than {limits[running]:.0f} s"
        time.sleep(POLL_S)
    return None


def _end(process: subprocess.Popen[bytes]) -> None:
    """End a process; it is told to first, so that it can end its own processes."""
    for _ in range(int(GRACE_S / ASK_S)):  # more than once: a destructor that is interrupted swallows the exception
        if process.poll() is not None:
            return
        process.terminate()
        with suppress(subprocess.TimeoutExpired):
            process.wait(ASK_S)
    process.kill()
    process.wait()


def _settle(folder: Path, group: Sequence[Section], reason: str) -> set[str]:
    """Record the error of the section in which a process ended; return the sections that need not run any more."""
    results = read_results(folder)
    for section in group:
        if results.get(section.name, {}).pop(RUNNING, False):
            results[section.name]["error"] = reason
            print(f"{section.name}: {reason}", file=sys.stderr, flush=True)
    write_results(folder, results)
    return {section.name for section in group if section.name in results}


def _skip(folder: Path, sections: Sequence[Section], reason: str) -> None:
    write_results(folder, {**read_results(folder), **{section.name: {"skipped": reason} for section in sections}})


def _how(code: int) -> str:
    """Say how a process has ended."""
    if code < 0:
        return f"its process was ended by {signal.Signals(-code).name}"
    return "the device is dead" if code == LOST else f"its process ended with code {code}"
