"""Run a plan's trials with Ray Tune until nothing is left to run or a stop is requested."""

from __future__ import annotations

import atexit
import contextlib
import os
import shutil
import signal
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from ray import tune

from sweeper.execution.live_view import LiveView
from sweeper.execution.on_ray.callbacks import Guarded, make_callbacks
from sweeper.execution.on_ray.cluster import connect, leave_without_teardown
from sweeper.execution.on_ray.placement import Gate, WhenStuck
from sweeper.execution.on_ray.requirements import require_plugins, require_room, require_shared
from sweeper.execution.on_ray.tune_searcher import PlanSearcher
from sweeper.execution.on_ray.watchdog import Watchdog
from sweeper.execution.on_ray.worker import TrialWorker
from sweeper.execution.signals import GRACE_S, handled
from sweeper.execution.stop_file import StopFile
from sweeper.execution.time_limit import time_limit
from sweeper.search.plan import Plan
from trials.errors import UserError
from trials.storage.lease import Lease

ECHO_S = 1.0
"""Signals within this many seconds of the first count as the same one: a closing terminal sends SIGHUP itself and
through its shell."""


def run_plan(plan: Plan, display: LiveView, lease: Lease, *, address: str | None = None) -> None:
    """Run everything the plan has left. Returns when nothing is left or the plan was stopped (``plan.stopping``).

    Raises:
        UserError: there is no cluster, no room for a trial, a machine does not share the storage, or a callback cannot
            be made.
    """
    space, folder = plan.space, plan.folder
    stop = StopFile(folder.stop)

    def out_of_time() -> None:
        plan.stop()
        _put(stop, lease)
        display.note(f"max_hours is {space.max_hours}: running trials commit and end; the same command resumes")

    stop.remove_unless_for(lease.token)
    scratch = _scratch()
    try:
        with _signals(stop, plan, display, lease) as handle_signals, time_limit(space.max_hours, out_of_time):
            try:
                alone = connect(address, folder.path, space.plugins)
            except SystemExit:  # raised by Ray's own SIGTERM handler
                display.note("stopped while Ray was starting")
                plan.stop()
                atexit.register(leave_without_teardown)
            handle_signals()
            if plan.stopping:
                return
            require_room(space, None if alone else display)
            require_shared(folder.path)
            require_plugins(space.plugins)
            searcher = PlanSearcher(plan, display, lease)
            with _ended(make_callbacks(space.callbacks, folder.path, display.note)) as callbacks:
                _tuner(searcher, scratch, callbacks).fit()
                while searcher.again:
                    searcher.again = False
                    _tuner(searcher, Path(tempfile.mkdtemp(dir=scratch)), callbacks).fit()
    finally:
        stop.remove()
        shutil.rmtree(scratch, ignore_errors=True)


@contextmanager
def _ended(callbacks: list[Guarded]) -> Iterator[list[Guarded]]:
    try:
        yield callbacks
    finally:
        for callback in callbacks:
            callback.end()


def _tuner(searcher: PlanSearcher, scratch: Path, callbacks: Sequence[Guarded]) -> tune.Tuner:
    """A Tuner that runs what the searcher suggests until the searcher finishes; Tune's own files go to ``scratch``."""
    return tune.Tuner(
        TrialWorker,
        tune_config=tune.TuneConfig(search_alg=searcher, scheduler=Gate(searcher), num_samples=-1, reuse_actors=True),
        run_config=tune.RunConfig(
            name=searcher.folder.path.name,
            storage_path=str(scratch),
            verbose=0,
            failure_config=tune.FailureConfig(max_failures=0),  # the plan decides what is tried again
            callbacks=[Watchdog(searcher), *callbacks],
            stop=WhenStuck(searcher),
        ),
    )


def _scratch() -> Path:
    try:
        return Path(tempfile.mkdtemp(prefix="sweeper-"))
    except OSError as error:
        raise UserError(f"{tempfile.gettempdir()} cannot be written ({error}): make room, or set TMPDIR") from None


def _put(stop_file: StopFile, lease: Lease) -> None:
    """Ask running trials to end, from a thread, since an object store may answer late."""

    def put() -> None:
        with contextlib.suppress(OSError):  # e.g. a full disk: the trials then end with their driver
            stop_file.put(lease.token)

    threading.Thread(target=put, daemon=True).start()


@contextmanager
def _signals(stop_file: StopFile, plan: Plan, display: LiveView, lease: Lease) -> Iterator[Callable[[], None]]:
    """On a signal, let running trials commit and end; exit at once on another one (echoes aside) or after GRACE_S."""
    first: float | None = None
    timer = threading.Timer(GRACE_S, _leave)
    timer.daemon = True

    def stop(number: signal.Signals) -> None:
        nonlocal first
        if first is not None:
            if time.monotonic() - first > ECHO_S:
                _leave()
            return
        first = time.monotonic()
        plan.stop()
        _put(stop_file, lease)
        timer.start()
        display.note(f"{number.name}: running trials commit and end; a second signal exits at once")

    with handled(stop) as again:
        try:
            yield again
        finally:
            timer.cancel()


def _leave() -> None:
    os._exit(130)
