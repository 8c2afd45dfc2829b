"""What a Ray worker does: one trial after the other in the same process, told by assignments."""

from __future__ import annotations

import socket
import time
import traceback
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from trials.storage.place import Place

REPORT_EVERY_S = 1.0
"""Rows on their way to the live view are thinned to this; committed rows are not."""

LAG_S = 10.0
"""How long what the driver has written may be invisible here: NFS keeps what it saw for some seconds."""

SHOWN = ("stage", "level", "epoch", "val_accuracy", "density")


def run_assigned(assignment: dict[str, Any], notice: Callable[[], bool] = lambda: False) -> None:
    """Run one trial in its folder; its rows and its end are committed there, the reports only drive the display.

    ``notice``: whether this process has been told to end.
    """
    from ray import tune

    from sweeper.execution.on_ray.parallel_tasks import side_by_side
    from sweeper.execution.stop_file import StopFile
    from sweeper.folder.sweep_folder import is_stopped
    from trials.errors import Superseded
    from trials.methods.parsing import parse
    from trials.running.trial import Surroundings, run
    from trials.storage.place import place
    from trials.training.device import limit_gpu_memory

    stop, folder, stages = StopFile(place(assignment["stop"])), place(assignment["folder"]), place(assignment["stages"])
    told_at, alive_every_s = time.monotonic(), assignment["alive_every_s"]

    def tell(**what: Any) -> None:
        nonlocal told_at
        told_at = time.monotonic()
        tune.report({"trial": assignment["trial"], **what})

    def report(row: dict[str, Any]) -> None:
        if time.monotonic() - told_at >= REPORT_EVERY_S:
            tell(**{key: row[key] for key in SHOWN})

    def should_stop() -> bool:
        """Asked between steps and while waiting: whoever asks is alive."""
        if notice() or stop.there():
            return True
        if time.monotonic() - told_at >= alive_every_s:
            tell(alive=True)
        return False

    def is_over(step: int, row: dict[str, Any]) -> bool:
        """Ask the driver: it has decided, and committed that, once ``tune.report`` returns."""
        if column is None:
            return False
        tell(**{key: row[key] for key in SHOWN}, step=step, value=row[column])
        return is_stopped(folder, step)

    column = assignment.get("judged_by")
    if not _sees(folder):
        tell(blind=socket.gethostname())
        return
    status = "preempted"
    if not should_stop():
        tell(alive=True)
        limit_gpu_memory(assignment["gpu"])
        together = side_by_side(assignment["resources"], stop.there) if assignment["pieces"] > 1 else None
        around = Surroundings(
            stages,
            report,
            should_stop,
            assignment["threads"],
            is_over=is_over,
            warn=lambda text: tell(note=text),
            alone=assignment["alone"],
            map=together,
        )
        try:
            status = run(parse(assignment["config"]), folder, around).status
        except Superseded:
            raise
        except Exception as error:  # noqa: BLE001  e.g. a device that this machine does not have
            status = _could_not_begin(folder, error)
    tell(status=status)


def _sees(folder: Place) -> bool:
    """Whether what the driver has scheduled is seen from here, soon: a machine may have come that lacks the storage."""
    end = time.monotonic() + LAG_S
    while not (folder / "config.json").exists():
        if time.monotonic() > end:
            return False
        time.sleep(0.2)
    return True


def _could_not_begin(folder: Place, error: Exception) -> str:
    """Commit a failure that the trial itself could not."""
    from trials.storage.trial_folder import TrialFolder

    attempt, _ = TrialFolder(folder).begin(host=socket.gethostname())
    failure = {"type": type(error).__name__, "message": str(error), "traceback": traceback.format_exc()}
    attempt.end("failed", error=failure, failures=attempt.state.failures + 1)
    return attempt.state.status
