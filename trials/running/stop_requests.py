"""Signals that ask a trial to commit and end."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from trials.system.stop_signals import BATCH_WARNINGS, STOP_SIGNALS, restore, was_warned


@contextmanager
def stop_requests(*, impatient: bool = False) -> Iterator[list[int]]:
    """Collect signals that ask to end in the yielded list instead of ending, so that the trial commits first.

    Signals reach the main thread only: in another one, nothing is collected. A SIGHUP that the process was started to
    ignore, as by nohup, stays ignored.

    Args:
        impatient: raise KeyboardInterrupt on a second signal; a batch system's warnings may come again.
    """
    asked: list[int] = []

    def handler(number: int, _: object) -> None:
        asked.append(number)
        was_warned(number)
        if impatient and len(asked) > 1 and number not in BATCH_WARNINGS:
            raise KeyboardInterrupt

    if threading.current_thread() is not threading.main_thread():
        yield asked
        return
    ignored = [signal.SIGHUP] if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN else []
    before = {number: signal.signal(number, handler) for number in STOP_SIGNALS if number not in ignored}
    try:
        yield asked
    finally:
        restore(before)
