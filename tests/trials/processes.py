"""Processes to kill, forked from a server that has imported everything, so that each starts in milliseconds."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.process import BaseProcess
from typing import Any

CONTEXT = multiprocessing.get_context("forkserver")
# torch's optimisers and pyarrow import the last two on first use, which takes a second and a half
CONTEXT.set_forkserver_preload(["trials.running.trial", "trials.methods", "torch._dynamo", "pandas"])

PATIENCE_S = 60.0
"""Seconds that a test waits for an expected event before it fails."""


@contextmanager
def started(target: Callable[..., object], *arguments: Any) -> Iterator[BaseProcess]:
    """A process that runs ``target``; killed at the end if it still lives."""
    process = CONTEXT.Process(target=target, args=arguments, daemon=True)
    process.start()
    try:
        yield process
    finally:
        if process.is_alive():
            assert process.pid is not None
            os.kill(process.pid, signal.SIGKILL)
        process.join(PATIENCE_S)


def wait_for(condition: Callable[[], object], what: str, patience_s: float = PATIENCE_S) -> None:
    """Return when the condition holds; fail after ``patience_s`` seconds."""
    end = time.monotonic() + patience_s
    while not condition():
        assert time.monotonic() < end, f"waited in vain for {what}"
        time.sleep(0.005)
