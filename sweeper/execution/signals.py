"""What SIGINT, SIGTERM and SIGHUP do. They interrupt, but while trials run; then the runner says what they do."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

GRACE_S = 60.0
"""How long running trials get, after a signal, to commit what they have."""

WATCHED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@contextmanager
def handled(act: Callable[[signal.Signals], None]) -> Iterator[Callable[[], None]]:
    """``act`` on each of these signals. Yields what installs the handlers again, for after Ray has put in its own.

    A terminal that hung up is not written to any more: what ``act`` and others print is dropped, not an error.
    Signals reach the main thread only; in another nothing is handled.
    """
    terminals = [fd for fd in (1, 2) if os.isatty(fd)]

    def handler(number: int, frame: FrameType | None) -> None:
        if number == signal.SIGHUP:
            for fd in terminals:
                _write_nowhere(fd)
        act(signal.Signals(number))

    def install() -> dict[signal.Signals, Any]:
        if threading.current_thread() is not threading.main_thread():
            return {}
        return {number: signal.signal(number, handler) for number in WATCHED}

    def again() -> None:
        install()

    before = install()
    try:
        yield again
    finally:
        for number, old in before.items():
            signal.signal(number, old)


@contextmanager
def interruptible() -> Iterator[None]:
    """SIGTERM and SIGHUP interrupt as Ctrl-C does."""

    def interrupt(number: signal.Signals) -> None:
        raise KeyboardInterrupt

    with handled(interrupt):
        yield


@contextmanager
def survive_hangup() -> Iterator[None]:
    """Processes that are started meanwhile ignore that the terminal is closed: their driver still needs them to end."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGHUP, before)


def _write_nowhere(fd: int) -> None:
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, fd)
    os.close(nowhere)
