"""Handlers of the signals that ask a command to end: they interrupt it, except where the code that runs trials acts."""

from __future__ import annotations

import os
import signal
import sys
import tempfile
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Any

from trials.system.stop_signals import BATCH_WARNINGS, STOP_SIGNALS, restore, was_warned

GRACE_S = 60.0
"""Seconds that running trials have, after a signal, to commit their work."""

WATCHED = STOP_SIGNALS


@contextmanager
def handled(act: Callable[[signal.Signals], None]) -> Iterator[Callable[[], None]]:
    """Call ``act`` on each of these signals. Yields a function that reinstalls the handlers after Ray has set its own.

    Ray's handler raises SystemExit, which Python drops if it is raised in a finalizer: such a signal would be lost.
    So the numbers of all signals are collected as well, and the yielded function calls ``act`` for those that
    another handler took. While Ray starts it has a native handler of SIGTERM too (abseil's), which sets an alarm
    that aborts the process after 3 seconds; any alarm is cancelled (:func:`alarms_held`, if Python cannot act that
    soon). After a SIGHUP, output to the closed terminal is dropped instead of raising an error. A SIGHUP that the
    process was started to ignore, as by nohup, stays ignored. Signals reach the main thread only; in other threads
    this installs no handlers.
    """
    terminals = [fd for fd in (1, 2) if os.isatty(fd)]
    taken: Counter[int] = Counter()
    ignored = [signal.SIGHUP] if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN else []

    def handler(number: int, frame: FrameType | None) -> None:
        taken[number] += 1
        was_warned(number)
        signal.alarm(0)
        if number == signal.SIGHUP:
            for fd in terminals:
                _write_nowhere(fd)
        act(signal.Signals(number))

    def install() -> dict[signal.Signals, Any]:
        if threading.current_thread() is not threading.main_thread():
            return {}
        return {number: signal.signal(number, handler) for number in WATCHED if number not in ignored}

    with _arrivals() as arrived:

        def again() -> None:
            install()
            for number in WATCHED:
                if arrived()[number] > taken[number]:
                    handler(number, None)

        before = install()
        try:
            yield again
        finally:
            restore(before)


@contextmanager
def _arrivals() -> Iterator[Callable[[], Counter[int]]]:
    """Yield a function that returns how often each signal has arrived in this block, whatever handler it had."""
    counts: Counter[int] = Counter()
    if threading.current_thread() is not threading.main_thread():
        yield lambda: counts
        return
    read, write = os.pipe()
    os.set_blocking(read, False)
    os.set_blocking(write, False)
    before = signal.set_wakeup_fd(write, warn_on_full_buffer=False)

    def arrived() -> Counter[int]:
        with suppress(BlockingIOError):
            while content := os.read(read, 4096):
                counts.update(content)
        return counts

    try:
        yield arrived
    finally:
        signal.set_wakeup_fd(before, warn_on_full_buffer=False)
        os.close(read)
        os.close(write)


@contextmanager
def interruptible() -> Iterator[None]:
    """Raise KeyboardInterrupt on each of these signals, as on Ctrl-C."""

    seen: list[signal.Signals] = []

    def interrupt(number: signal.Signals) -> None:
        seen.append(number)
        if len(seen) == 1 or number not in BATCH_WARNINGS:
            raise KeyboardInterrupt

    with handled(interrupt):
        yield


@contextmanager
def alarms_held() -> Iterator[None]:
    """Hold back SIGALRM in this block, in this thread and in what it starts: enter it before other threads start.

    The alarm that Ray's native handler of SIGTERM sets aborts the process if Python's handler does not cancel it within
    3 seconds. While Ray starts on a busy machine it may be unable to: Ray holds Python's lock meanwhile.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGALRM])
    try:
        yield
    finally:
        signal.alarm(0)
        if signal.SIGALRM in signal.sigpending():
            signal.signal(signal.SIGALRM, signal.signal(signal.SIGALRM, signal.SIG_IGN) or signal.SIG_DFL)  # drops it
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextmanager
def without_stacks() -> Iterator[None]:
    """Leave out of stderr what native code prints when SIGTERM arrives: the stack of each thread, for many lines.

    Ray installs such a handler while it starts, before ours can be set again. What else is written to stderr in this
    block appears at its end.
    """
    try:
        kept = os.dup(2)
    except OSError:  # stderr is closed
        yield
        return
    with tempfile.TemporaryFile() as written:
        sys.stderr.flush()
        os.dup2(written.fileno(), 2)
        try:
            yield
        finally:
            sys.stderr.flush()
            os.dup2(kept, 2)
            os.close(kept)
            written.seek(0)
            with suppress(OSError):
                os.write(2, written.read().partition(b"*** SIGTERM received")[0])


def _write_nowhere(fd: int) -> None:
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, fd)
    os.close(nowhere)
