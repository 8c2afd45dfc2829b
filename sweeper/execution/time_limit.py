"""How long a run of the command may take (``max_hours``)."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def time_limit(hours: float | None, act: Callable[[], None]) -> Iterator[None]:
    """``act`` after so many hours, from a thread, if what is inside still goes on; None never."""
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
