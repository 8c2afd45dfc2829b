"""Run a plan's trials with Ray Tune until nothing is left to run or a stop is requested."""

from __future__ import annotations

import logging
import os
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from ray import tune

from sweeper.execution.live_view import LiveView
from sweeper.execution.on_ray.callbacks import Callbacks, make_callbacks
from sweeper.execution.on_ray.ended_trials import NoProgress, know_every_death
from sweeper.execution.on_ray.kept import connected, disconnect
from sweeper.execution.on_ray.placement import Gate, WhenStuck
from sweeper.execution.on_ray.requirements import Waiting, require_machines, require_room
from sweeper.execution.on_ray.shipping import code_copies
from sweeper.execution.on_ray.stopping import HeadGoneError, RunSignals, head_address, leave_ray
from sweeper.execution.on_ray.token_file import narrowed_token
from sweeper.execution.on_ray.tune_searcher import PlanSearcher
from sweeper.execution.on_ray.watchdog import Watchdog
from sweeper.execution.on_ray.worker import TrialWorker
from sweeper.execution.on_ray.worker_environment import require_environment
from sweeper.execution.signals import without_stacks
from sweeper.execution.stop_file import StopFile
from sweeper.execution.time_limit import time_limit
from sweeper.search.plan import Plan
from trials.errors import Preempted, StorageError
from trials.plugins.importing import admit
from trials.storage.leases.lease import Lease
from trials.storage.outages import impatient
from trials.storage.scratch import scratch_folder

WORKER = "sparsity-trial"
"""Name of :class:`TrialWorker` in Tune's registry."""

_registering = threading.Lock()


def run_plan(
    plan: Plan,
    display: LiveView,
    lease: Lease,
    *,
    address: str | None = None,
    runtime_env: Mapping[str, Any] | None = None,
    from_python: bool = False,
) -> bool:
    """Run what the plan has left, until nothing is or the plan is stopped; return whether a signal has stopped it.

    Args:
        runtime_env: what workers get beside the sweep's own (:mod:`sweeper.runtime_env`).
        from_python: the process goes on afterwards. A second signal raises KeyboardInterrupt in place of ending it: a
            Ray that was started here ends with its trials; in another one they see the stop file, and commit.

    Raises:
        UserError: a cluster, room for a trial, storage, plug-ins or packages of a machine, or a callback cannot be had.
    """
    stop = StopFile(plan.folder.stop)
    stop.remove_unless_for(lease.token)
    given_up = False
    try:
        with (
            scratch_folder() as scratch,
            RunSignals(stop, plan, display, lease, from_python=from_python).handled() as signals,
            time_limit(plan.space.max_hours, signals.out_of_time),
        ):
            alone = _connected(plan, display, signals, address, runtime_env)
            if not plan.stopping and _have_all(plan, display, alone, runtime_env):
                searcher = PlanSearcher(plan, display, lease)
                searcher.storage.interrupted = signals.long_ago
                _run_out(searcher, scratch, signals.handle)
            return signals.first is not None
    except HeadGoneError:
        leave_ray(display)
        return True
    except KeyboardInterrupt:
        given_up = not disconnect()
        raise
    finally:
        if not given_up:
            with suppress(OSError), impatient():  # else the next run does
                stop.remove()


def _connected(
    plan: Plan,
    display: LiveView,
    signals: RunSignals,
    address: str | None,
    runtime_env: Mapping[str, Any] | None,
) -> bool:
    """Join or start Ray; a signal meanwhile stops the plan. Returns whether the Ray is this process's alone."""
    address_of_ray = address or os.environ.get("RAY_ADDRESS")
    display.doing("starting Ray" if address_of_ray in (None, "local") else f"connecting to Ray at {address_of_ray}")
    if (narrowed := narrowed_token()) is not None:
        display.note(narrowed)
    with without_stacks():
        try:
            return connected(address, plan.folder.path, plan.space.code, runtime_env, display.note)
        finally:
            signals.handle()
            signals.head = head_address()
            if plan.stopping:
                display.note("stopped while Ray was starting")


def _have_all(plan: Plan, display: LiveView, alone: bool, runtime_env: Mapping[str, Any] | None) -> bool:
    """Require what trials need of the machines; return False if a signal has stopped the plan meanwhile."""
    if runtime_env:
        display.doing("making the runtime environment on every machine")
    require_environment(runtime_env, display.note, lambda: plan.stopping)
    if plan.stopping:
        return False
    display.doing("asking the machines for room, and whether they share the storage")
    require_room(plan.space, None if alone else display)
    require_machines(plan.folder.path, plan.space.code, Waiting(display.note, lambda: plan.stopping))
    return not plan.stopping


def _run_out(searcher: PlanSearcher, scratch: Path, handle: Callable[[], None]) -> None:
    searcher.display.doing("starting Ray Tune")
    searcher.copies = code_copies(admit(searcher.plan.space.code), scratch / "code")
    plan = searcher.plan
    space = plan.space
    groups = any(part is not None for part in (space.replicates, space.confirm, space.pbt))
    told = space.callbacks, plan.folder, searcher.display.note
    callbacks = searcher.callbacks = make_callbacks(*told, groups=groups)
    with _ended(callbacks), _quiet_tune():
        callbacks.catch_up(plan)
        if not plan.over:
            _fit(searcher, scratch, [Watchdog(searcher, handle), *callbacks.each])
        while searcher.again:
            searcher.again = False
            again = Path(tempfile.mkdtemp(dir=scratch))
            _fit(searcher, again, [Watchdog(searcher, handle), *callbacks.each])


def _fit(searcher: PlanSearcher, scratch: Path, callbacks: Sequence[tune.Callback]) -> None:
    """Run a Tuner; if the storage has ended the run, raise that instead of what Tune makes of it.

    Raises:
        StorageError: it has erred for too long.
        KeyboardInterrupt: a signal came while it erred.
    """
    know_every_death()
    try:
        _tuner(searcher, scratch, callbacks).fit()
    except Exception:
        if searcher.storage.ended_by is None:
            raise
    if isinstance(searcher.storage.ended_by, StorageError):
        raise searcher.storage.ended_by from None
    if searcher.storage.ended_by is not None:
        raise KeyboardInterrupt from None


@contextmanager
def _quiet_tune() -> Iterator[None]:
    """Silence what Tune logs of trials, which the display has shown; a Ray of the process's own logs as it likes."""
    levels = {"ray.tune": logging.ERROR, "ray.tune.tune": logging.CRITICAL}
    before = {name: logging.getLogger(name).level for name in levels}
    for name, level in levels.items():
        logging.getLogger(name).setLevel(level)
    controller = logging.getLogger("ray.tune.execution.tune_controller")
    controller.addFilter(_is_not_of_storage)
    try:
        yield
    finally:
        controller.removeFilter(_is_not_of_storage)
        for name, level in before.items():
            logging.getLogger(name).setLevel(level)


def _is_not_of_storage(record: logging.LogRecord) -> bool:
    """Whether Tune may log something: a storage that errs ends the run with a line of its own."""
    return record.exc_info is None or not isinstance(record.exc_info[1], (StorageError, Preempted))


@contextmanager
def _ended(callbacks: Callbacks) -> Iterator[None]:
    try:
        yield
    finally:
        callbacks.end()


def _tuner(searcher: PlanSearcher, scratch: Path, callbacks: Sequence[tune.Callback]) -> tune.Tuner:
    """A Tuner that runs what the searcher suggests until the searcher finishes; Tune's own files go to ``scratch``."""
    with _registering:  # Tune's registry is not made for threads
        tune.register_trainable(WORKER, TrialWorker, warn=False)
    return tune.Tuner(
        WORKER,
        tune_config=tune.TuneConfig(search_alg=searcher, scheduler=Gate(searcher), num_samples=-1, reuse_actors=True),
        run_config=tune.RunConfig(
            name=searcher.folder.path.name,
            storage_path=str(scratch),
            verbose=0,
            progress_reporter=_Silent(),
            failure_config=tune.FailureConfig(max_failures=0),  # the plan decides what is tried again
            callbacks=[NoProgress(), *callbacks],
            stop=WhenStuck(searcher),
        ),
    )


class _Silent(tune.ProgressReporter):  # type: ignore[misc]  # Ray is not typed
    """Reports nothing. Tune's own reporter clears a notebook cell's output, the sweep's panel included."""

    def should_report(self, trials: list[Any], done: bool = False) -> bool:
        return False

    def report(self, trials: list[Any], done: bool, *sys_info: str) -> None:
        """Do nothing."""
