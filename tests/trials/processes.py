"""Processes to kill: forked from a server that has imported all there is, so that one starts in milliseconds."""

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
# the last two are what torch's optimisers and pyarrow import when they are first used: a second and a half
CONTEXT.set_forkserver_preload(["trials.running.trial", "trials.methods", "torch._dynamo", "pandas"])

PATIENCE_S = 60.0
"""How long a test waits for what must come, before it fails."""


@contextmanager
def started(target: Callable[..., object], *arguments: Any) -> Iterator[BaseProcess]:
    """A process that runs ``target``; gone for certain at the end."""
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
    """Return when the condition holds; fail if it never does."""
    end = time.monotonic() + patience_s
    while not condition():
        assert time.monotonic() < end, f"waited in vain for {what}"
        time.sleep(0.005)
