"""Simulated SIGKILL within one process: a write that never returns, at each point where a kill can hit it."""

from __future__ import annotations

import random
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from trials.storage import files

PLACES = ("before", "torn", "unnamed", "after")
"""Before the write, with half of the temporary file written, before the rename, or after it."""


class Killed(BaseException):
    """Not an Exception, so that no handler of failures catches it, just as none can catch SIGKILL."""


@contextmanager
def killed_at_write(number: int, place: str) -> Iterator[None]:
    """Kill at the ``number``-th write (from 1) of this thread. Writes of leases do not count: their owner lives on."""
    original, me, count = files.write, threading.get_ident(), 0

    def write(path: Path, content: bytes) -> None:
        nonlocal count
        if threading.get_ident() == me and path.name != "lease.json":
            count += 1
            if count == number:
                if place in ("torn", "unnamed"):
                    whole = len(content) if place == "unnamed" else len(content) // 2
                    path.with_name(f".{path.name}.99999.tmp").write_bytes(content[:whole])
                if place == "after":
                    original(path, content)
                raise Killed
        original(path, content)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(files, "write", write)
        yield


def deaths(seed: int, longest: int) -> Iterator[tuple[int, str]]:
    """Endless random (number, place) for :func:`killed_at_write`."""
    draw = random.Random(seed)
    while True:
        yield draw.randint(1, longest), draw.choice(PLACES)
