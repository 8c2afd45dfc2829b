"""Time limit of one run of the command (``max_hours``)."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def time_limit(hours: float | None, act: Callable[[], None]) -> Iterator[None]:
    """Call ``act`` from a thread if the block still runs after ``hours``; None sets no limit."""
    if hours is None:
        yield
        return
    timer = threading.Timer(min(hours * 3600, threading.TIMEOUT_MAX), act)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
