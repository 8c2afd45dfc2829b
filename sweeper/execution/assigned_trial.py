"""One assignment in a worker: run its trial, commit how it ended, and report to the driver on the way."""

from __future__ import annotations

import socket
import time
import traceback
from collections.abc import Callable, Mapping
from typing import Any

from sweeper.execution.stop_file import StopFile
from sweeper.folder.sweep_folder import is_stopped
from trials.errors import Superseded
from trials.methods.parsing import parse
from trials.running.trial import TrialHost, run
from trials.storage.place import STORAGE_LAG_S, Place, place
from trials.storage.trial_folder import TrialFolder
from trials.training.device import limit_gpu_memory
from trials.training.stage_context import Map, ShouldStop

REPORT_EVERY_S = 1.0
"""Least time between two rows that a trial reports to the live view; every row is committed."""

SHOWN = ("stage", "level", "epoch", "val_accuracy", "density")
"""The columns of a row that a report carries."""

MakeMap = Callable[[Mapping[str, float], ShouldStop], Map]
"""Makes a trial's ``map`` from the resources of one piece and what asks whether to stop."""


class Reporter:
    """What a trial says to its driver, and what it asks it.

    Args:
        assignment: the trial's, as the driver sent it.
        send: passes a message on to the driver.
        notice: whether this process has been told to end.
    """

    def __init__(self, assignment: Mapping[str, Any], send: Callable[[dict[str, Any]], None], notice: ShouldStop):
        self.trial, self.judged_by = assignment["trial"], assignment.get("judged_by")
        self.alive_every_s: float = assignment["alive_every_s"]
        self.folder, self.stop_file = place(assignment["folder"]), StopFile(place(assignment["stop"]))
        self._send, self._notice = send, notice
        self._sent_at = time.monotonic()

    def send(self, **message: Any) -> None:
        self._sent_at = time.monotonic()
        self._send({"trial": self.trial, **message})

    def report(self, row: dict[str, Any]) -> None:
        """Send a row for the live view, unless the last message was sent just now."""
        if time.monotonic() - self._sent_at >= REPORT_EVERY_S:
            self.send(**{key: row[key] for key in SHOWN})

    def should_stop(self) -> bool:
        """Whether the trial is asked to end. A trial that asks is alive, which the driver hears from time to time."""
        if self._notice() or self.stop_file.there():
            return True
        if time.monotonic() - self._sent_at >= self.alive_every_s:
            self.send(alive=True)
        return False

    def is_over(self, step: int, row: dict[str, Any]) -> bool:
        """Whether the search ends the trial after this step. The driver has committed that once ``send`` returns."""
        if self.judged_by is None:
            return False
        self.send(**{key: row[key] for key in SHOWN}, step=step, value=row[self.judged_by])
        return is_stopped(self.folder, step)

    def warn(self, text: str) -> None:
        self.send(note=text)


def run_assigned(
    assignment: dict[str, Any],
    send: Callable[[dict[str, Any]], None],
    notice: ShouldStop = lambda: False,
    make_map: MakeMap | None = None,
) -> None:
    """Run one trial in its folder. Its rows and its end are committed there; messages only drive the display.

    Args:
        assignment: as :meth:`sweeper.execution.on_ray.tune_searcher.PlanSearcher.suggest` sends it.
        send: passes a message on to the driver.
        notice: whether this process has been told to end.
        make_map: how a trial with several pieces runs them at once; None runs them one after the other.
    """
    reporter = Reporter(assignment, send, notice)
    if not _sees(reporter.folder):
        reporter.send(blind=socket.gethostname())
        return
    status = "preempted"
    if not reporter.should_stop():
        reporter.send(alive=True)
        limit_gpu_memory(assignment["gpu"])
        several = assignment["pieces"] > 1
        trial_host = TrialHost(
            place(assignment["stages"]),
            reporter.report,
            reporter.should_stop,
            assignment["threads"],
            is_over=reporter.is_over,
            warn=reporter.warn,
            alone=assignment["alone"],
            map=make_map(assignment["resources"], reporter.stop_file.there) if make_map and several else None,
        )
        try:
            status = run(parse(assignment["config"]), reporter.folder, trial_host).status
        except Superseded:
            raise
        except Exception as error:  # noqa: BLE001  e.g. a device that this machine does not have
            status = _could_not_begin(reporter.folder, error)
    reporter.send(status=status)


def _sees(folder: Place) -> bool:
    """Whether the driver's config.json is seen here within the storage's lag; a new machine may lack the storage."""
    end = time.monotonic() + STORAGE_LAG_S
    while not (folder / "config.json").exists():
        if time.monotonic() > end:
            return False
        time.sleep(0.2)
    return True


def _could_not_begin(folder: Place, error: Exception) -> str:
    """Commit a failure that the trial itself could not."""
    attempt, _ = TrialFolder(folder).begin(host=socket.gethostname())
    failure = {"type": type(error).__name__, "message": str(error), "traceback": traceback.format_exc()}
    attempt.end("failed", error=failure, failures=attempt.state.failures + 1)
    return attempt.state.status
