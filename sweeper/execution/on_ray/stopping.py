"""What a signal does to a run: its trials commit and end, and then the run does.

A batch system may signal every process of a job at once, the head of the run's Ray among them. Ray's own calls then
wait for a minute and end the process. So the run ends without them; the trials commit in their folders anyway.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import ray
from ray._private.worker import shutdown as at_exit

from sweeper.execution.live_view import LiveView
from sweeper.execution.signals import GRACE_S, handled
from sweeper.execution.stop_file import StopFile
from sweeper.options import STOPPED
from sweeper.results.tables import compact_tables
from sweeper.search.plan import Plan
from trials.errors import DamagedFile
from trials.storage.leases.lease import Lease
from trials.storage.trial_folder import TrialFolder
from trials.system.stop_signals import BATCH_WARNINGS

ECHO_S = 1.0
"""Signals within this many seconds of the first count as the same one: a closing terminal sends SIGHUP itself and
through its shell."""

HEAD_EVERY_S = 0.5

GONE_AFTER = 3
"""So many looks in a row at which nobody listens at the head's address."""

STORAGE_GRACE_S = 5.0
"""Seconds for which a driver still waits for a storage that errs, after a signal."""

FIRST_PUT_PAUSE_S, LONGEST_PUT_PAUSE_S = 0.5, 5.0
"""Pauses between tries to write the stop file double from the first to the longest."""

COMMIT_S = 10.0
"""Seconds that running trials have to commit, once the head is gone."""

LEAVE_S = 3.0
"""Seconds that the main thread has to leave Ray's calls, and then Ray has to end."""

LOST = "Ray has ended, too: what its trials have committed is kept"
"""Said when the head of a run's Ray has got the signal as well."""


class HeadGoneError(BaseException):
    """The head of the cluster is gone while the run stops. No part of a run may take it for an error of its own."""


class RunSignals:
    """What the signals of a run do.

    Attributes:
        first: when the first one came.
        handle: reinstalls the handlers after Ray has set its own.
        head: where the head of the run's Ray listens, once that is joined or started.
    """

    def __init__(
        self, stop_file: StopFile, plan: Plan, display: LiveView, lease: Lease, *, from_python: bool = False
    ) -> None:
        self.first: float | None = None
        self.handle: Callable[[], None] = lambda: None
        self.head: tuple[str, int] | None = None
        self._stop_file, self._plan, self._display, self._lease = stop_file, plan, display, lease
        self._from_python = from_python
        self._head_gone, self._over = False, threading.Event()
        self._timer = threading.Timer(GRACE_S, interrupt_main if from_python else self._leave)
        self._timer.daemon = True

    @contextmanager
    def handled(self) -> Iterator[RunSignals]:
        """On a signal in this block, let running trials commit and end; on another one (echoes and a batch system's
        warnings aside) or after GRACE_S, leave at once.

        That ends the process, or raises KeyboardInterrupt if it goes on (``from_python``).
        """
        with handled(self._act) as self.handle:
            try:
                yield self
            finally:
                self._over.set()
                self._timer.cancel()

    def long_ago(self) -> bool:
        """Whether a signal came, and the storage had some seconds since."""
        return self.first is not None and time.monotonic() - self.first > STORAGE_GRACE_S

    def out_of_time(self) -> None:
        """Let running trials commit and end, since ``max_hours`` are over."""
        self._plan.stop()
        _put_aside(self._stop_file, self._lease, self._over)
        hours = self._plan.space.max_hours
        self._display.note(f"max_hours is {hours}: running trials commit and end; the same command resumes")

    def _act(self, number: signal.Signals) -> None:
        if self._head_gone:
            raise HeadGoneError
        if self.first is not None:
            if number not in BATCH_WARNINGS and time.monotonic() - self.first > ECHO_S:
                if self._from_python:
                    raise KeyboardInterrupt
                self._leave()
            return
        self.first = time.monotonic()
        self._plan.stop()
        _put_aside(self._stop_file, self._lease, self._over)
        self._timer.start()
        if self.head is not None:
            threading.Thread(target=self._watch, args=[self.head], daemon=True).start()
        second = "does not wait for them" if self._from_python else "exits at once"
        self._display.note(f"{number.name}: running trials commit and end; a second signal {second}")

    def _watch(self, head: tuple[str, int]) -> None:
        """Give up once the head is gone and no trial runs any more, or runs for too long."""
        missed = 0
        while missed < GONE_AFTER:
            if self._over.wait(HEAD_EVERY_S):
                return
            missed = 0 if _listens(head) else missed + 1
        end = time.monotonic() + COMMIT_S
        while time.monotonic() < end and self._any_runs():
            if self._over.wait(HEAD_EVERY_S):
                return
        if not self._over.is_set():
            self._give_up()

    def _any_runs(self) -> bool:
        return any(_runs(TrialFolder(self._plan.folder.trial_folder(name))) for name in list(self._plan.running))

    def _give_up(self) -> None:
        """Have the main thread leave; if Ray does not let it, end the process."""
        self._head_gone = True
        interrupt_main()
        if self._over.wait(LEAVE_S):
            return
        with contextlib.suppress(OSError):  # what is missing then is derived, or known by its driver's end
            self._stop_file.remove()
            compact_tables(self._plan.folder)
            self._lease.release()
        if not self._from_python:
            self._display.note(f"{LOST}; the same command resumes")
            self._leave()

    def _leave(self) -> None:
        self._display.abandon()
        os._exit(STOPPED)


def head_address() -> tuple[str, int] | None:
    """Host and port of the head of the cluster that this process has joined or started."""
    if not ray.is_initialized():
        return None
    host, _, port = ray.get_runtime_context().gcs_address.rpartition(":")
    return host.strip("[]"), int(port)


def _listens(head: tuple[str, int]) -> bool:
    try:
        socket.create_connection(head, timeout=HEAD_EVERY_S).close()
    except TimeoutError:  # it is busy
        return True
    except OSError:
        return False
    return True


def _runs(trial: TrialFolder) -> bool:
    with contextlib.suppress(OSError, DamagedFile):
        state = trial.state()
        return state is not None and state.status == "running"
    return True


def _put_aside(stop_file: StopFile, lease: Lease, over: threading.Event) -> None:
    """Ask running trials to end, from a thread, since an object store may answer late.

    What the storage refuses, as on a full disk, is tried again until the run is ``over``.
    """

    token = lease.token

    def put() -> None:
        pause_s = FIRST_PUT_PAUSE_S
        while not over.is_set():
            with contextlib.suppress(OSError):
                stop_file.put(token)
                return
            over.wait(pause_s)
            pause_s = min(2 * pause_s, LONGEST_PUT_PAUSE_S)

    threading.Thread(target=put, daemon=True).start()


def interrupt_main() -> None:
    """Have the main thread handle a signal, from another one."""
    main = threading.main_thread().ident
    if main is not None:
        signal.pthread_kill(main, signal.SIGINT)


def leave_ray(display: LiveView) -> None:
    """End the Ray of this process, whose head is gone; what does not end in time ends with the process."""
    display.note(LOST)
    ending = threading.Thread(target=ray.shutdown, daemon=True)
    ending.start()
    ending.join(LEAVE_S)
    if ending.is_alive():
        atexit.unregister(at_exit)
