"""Run one assignment in a worker: run its trial, commit its end, and report to the driver meanwhile."""

from __future__ import annotations

import socket
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from sweeper.execution.stop_file import StopFile
from sweeper.execution.told_rows import rows_from
from sweeper.folder.sweep_folder import is_stopped
from trials.config.trial_config import TrialConfig
from trials.errors import (
    DEAD_DEVICE,
    OUT_OF_MEMORY,
    Preempted,
    StorageError,
    Superseded,
    UserError,
    as_unicode,
    one_line,
)
from trials.methods.parsing import parse
from trials.plugins.importing import admit_sent
from trials.running.trial import TrialHost, run
from trials.storage.outages import STORAGE_PATIENCE_S
from trials.storage.place import STORAGE_LAG_S, Place, place
from trials.storage.trial_folder import State, TrialFolder
from trials.training.device import is_lost, lacks_memory, limit_gpu_memory
from trials.training.graphs import has_failed_capture
from trials.training.stage_context import Map, ShouldStop

REPORT_EVERY_S = 1.0
"""Minimum seconds between two rows that a trial sends to the live view; every row is committed."""

SHOWN = ("stage", "level", "epoch", "val_accuracy", "density")
"""Columns of a row that a report contains."""

COMPARED = ("prunable", "sparsity", "kept", "macs", "flops", "parameters")
"""Columns beside these that decide with what a pruner compares a row."""

MakeMap = Callable[[Mapping[str, float], ShouldStop], Map]
"""Makes a trial's ``map`` from the resources of one piece and a callback that says whether to stop."""


class Reporter:
    """A trial's communication with its driver: sends rows and notes, and finds out whether to stop.

    Args:
        assignment: the trial's assignment, as the driver sent it.
        send: sends a message to the driver.
        notice: whether this process has been told to end.
        where: part of every message: the ``node``, ``machine`` and ``card`` on which this process runs.
    """

    def __init__(
        self,
        assignment: Mapping[str, Any],
        send: Callable[[dict[str, Any]], None],
        notice: ShouldStop,
        where: Mapping[str, str] | None = None,
    ) -> None:
        self.trial, self.judged_by = assignment["trial"], assignment.get("judged_by")
        self.alive_every_s: float = assignment["alive_every_s"]
        self.followed: int | None = assignment.get("followed")
        self.folder, self.stop_file = place(assignment["folder"]), StopFile(place(assignment["stop"]))
        self._send, self._notice, self._where = send, notice, where or {}
        self.knows_where = bool(where)
        self._sent_at = time.monotonic()

    def send(self, **message: Any) -> None:
        """Send a message, with the trial's id, to the driver."""
        self._sent_at = time.monotonic()
        self._send({"trial": self.trial, **self._where, **message})

    def end(self, usable: bool, **message: Any) -> bool:
        """Send the last message of a trial that does not run; returns ``usable``."""
        self.send(**message)
        return usable

    def report(self, row: dict[str, Any]) -> None:
        """Send a row for the live view, unless the last message is less than ``REPORT_EVERY_S`` old."""
        if self.followed is None and time.monotonic() - self._sent_at >= REPORT_EVERY_S:
            self.send(**{key: row[key] for key in SHOWN})

    def follow(self, rows: Sequence[dict[str, Any]]) -> None:
        """Send the rows that callbacks have not been told, if callbacks follow the trial."""
        if self.followed is not None and len(rows) > self.followed:
            new = rows_from(rows, self.followed)
            self.followed = len(rows)
            self.send(**{key: rows[-1][key] for key in SHOWN}, rows=new)

    def should_stop(self) -> bool:
        """Whether the trial must end. Also sends a sign of life if the last message is ``alive_every_s`` old."""
        if self._notice() or self.stop_file.there():
            return True
        if time.monotonic() - self._sent_at >= self.alive_every_s:
            self.send(alive=True)
        return False

    def is_over(self, step: int, row: dict[str, Any]) -> bool:
        """Whether the search ends the trial after this step. When ``send`` returns, the driver has committed that."""
        if self.judged_by is None:
            return False
        compared = {key: row[key] for key in COMPARED if key in row}
        self.send(**{key: row[key] for key in SHOWN}, **compared, step=step, value=row[self.judged_by])
        return is_stopped(self.folder, step)

    def warn(self, text: str) -> None:
        """Send a warning for the live view."""
        self.send(note=text)

    def storage(self, text: str, errs: bool) -> None:
        """Send that this trial waits for the storage, or that it works again."""
        self.send(storage=text, errs=errs)


def run_assigned(
    assignment: dict[str, Any],
    send: Callable[[dict[str, Any]], None],
    notice: ShouldStop = lambda: False,
    make_map: MakeMap | None = None,
    where: Mapping[str, str] | None = None,
) -> bool:
    """Run one trial in its folder. Its rows and its end are committed there; messages only drive the display.

    Returns whether this process can run further trials: not once its device is dead (then no trial begins) or it
    failed to capture a CUDA graph.

    Args:
        assignment: as :meth:`sweeper.execution.on_ray.tune_searcher.PlanSearcher.suggest` returns it.
        send: sends a message to the driver.
        notice: whether this process has been told to end.
        make_map: makes the ``map`` that runs the pieces of a trial at once; None runs them one after another.
        where: the ``node``, ``machine`` and ``card`` where this process runs; without, what fails is the trial's fault.

    Raises:
        Superseded: another attempt at the trial has begun.
    """
    reporter = Reporter(assignment, send, notice, where)
    host = _host(assignment, reporter, make_map)
    try:
        with host.patience().active():
            return _run(assignment, reporter, host)
    except StorageError as error:
        return reporter.end(True, lost=str(error))
    except Preempted:  # asked to stop while the storage erred
        return reporter.end(True, status="preempted")


def _run(assignment: dict[str, Any], reporter: Reporter, host: TrialHost) -> bool:
    if not _sees(reporter.folder):
        return reporter.end(True, blind=socket.gethostname())
    if reporter.should_stop():
        return reporter.end(True, status="preempted")
    reporter.send(alive=True)
    if _device_is_lost(assignment):
        return reporter.end(False, dead=True)
    limit_gpu_memory(assignment["gpu"])
    try:
        state = run(_config_of(assignment), reporter.folder, host)
    except (Superseded, StorageError, Preempted):
        raise
    except Exception as error:  # noqa: BLE001  e.g. a device that this machine does not have
        if _device_is_lost(assignment):
            return reporter.end(False, dead=True)
        if reporter.should_stop():
            return reporter.end(True, status="preempted")
        if reporter.knows_where and (told := _fault_of_this_machine(error)):
            return reporter.end(True, **told)
        state = _could_not_begin(reporter.folder, error, assignment["alone"])
    reporter.send(status=state.status)
    return (state.error or {}).get("type") != DEAD_DEVICE and not has_failed_capture()


def _config_of(assignment: Mapping[str, Any]) -> TrialConfig:
    try:
        admit_sent(assignment.get("plugins", ()))
    except UserError as error:
        raise _Unfit(f"cannot run the sweep's plug-ins ({error})") from error
    return parse(assignment["config"])


class _Unfit(UserError):
    """This machine can run no trial of the sweep."""


def _fault_of_this_machine(error: Exception) -> dict[str, Any]:
    """What to tell the driver of an error before a trial began: the driver could read its config, so that this machine
    may differ. Nothing if memory was short, which another trial may have taken."""
    if isinstance(error, _Unfit):
        return {"unfit": str(error)}
    if lacks_memory(error):
        return {}
    return {"cannot": [type(error).__name__, one_line(str(error)), traceback.format_exc()]}


def _device_is_lost(assignment: Mapping[str, Any]) -> bool:
    return is_lost(str(assignment["config"].get("device", "auto")), assignment["gpu"])


def _host(assignment: Mapping[str, Any], reporter: Reporter, make_map: MakeMap | None) -> TrialHost:
    several = assignment["pieces"] > 1
    return TrialHost(
        place(assignment["stages"]),
        reporter.report,
        reporter.should_stop,
        assignment["threads"],
        is_over=reporter.is_over,
        follow=reporter.follow,
        warn=reporter.warn,
        alone=assignment["alone"],
        map=make_map(assignment["resources"], reporter.stop_file.there) if make_map and several else None,
        data=assignment.get("data"),
        commit=assignment.get("commit"),
        limit_s=assignment.get("limit_s"),
        storage=reporter.storage,
        storage_patience_s=assignment.get("storage_patience_s", STORAGE_PATIENCE_S),
    )


def _sees(folder: Place) -> bool:
    """Whether the driver's config.json is visible here within the storage's lag; a new machine may lack the storage."""
    end = time.monotonic() + STORAGE_LAG_S
    while not (folder / "config.json").exists():
        if time.monotonic() > end:
            return False
        time.sleep(0.2)
    return True


def _could_not_begin(folder: Place, error: Exception, alone: bool) -> State:
    """Commit the failure of a trial that could not begin, and return its state."""
    attempt, _ = TrialFolder(folder).begin(host=socket.gethostname())
    full = lacks_memory(error)
    name = OUT_OF_MEMORY if full else type(error).__name__
    failure = {"type": name, "message": as_unicode(str(error)), "traceback": as_unicode(traceback.format_exc())}
    attempt.end("failed", error=failure, failures=attempt.state.failures + (alone or not full))
    return attempt.state
