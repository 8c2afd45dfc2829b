"""What a Ray worker does: one trial after the other in the same process, told by assignments."""

from __future__ import annotations

import socket
import time
import traceback
from pathlib import Path
from typing import Any

REPORT_EVERY_S = 1.0
"""Rows on their way to the live view are thinned to this; committed rows are not."""

SHOWN = ("stage", "level", "epoch", "val_accuracy", "density")


def run_assigned(assignment: dict[str, Any]) -> None:
    """Run one trial in its folder; its rows and its end are committed there, the reports only drive the display."""
    from ray import tune

    from trials.config import parse
    from trials.errors import Superseded
    from trials.training import limit_gpu_memory
    from trials.trial import Surroundings, run

    stop = Path(assignment["stop"])
    last = time.monotonic()

    def report(row: dict[str, Any]) -> None:
        nonlocal last
        if time.monotonic() - last >= REPORT_EVERY_S:
            last = time.monotonic()
            tune.report({"trial": assignment["trial"], **{key: row[key] for key in SHOWN}})

    status = "preempted"
    if not stop.exists():
        limit_gpu_memory(assignment["gpu"])
        around = Surroundings(Path(assignment["stages"]), report, stop.exists, assignment["threads"])
        try:
            status = run(parse(assignment["config"]), Path(assignment["folder"]), around).status
        except Superseded:
            raise
        except Exception as error:  # noqa: BLE001  e.g. a device that this machine does not have
            status = _could_not_begin(Path(assignment["folder"]), error)
    tune.report({"trial": assignment["trial"], "status": status})


def _could_not_begin(folder: Path, error: Exception) -> str:
    """Commit a failure that the trial itself could not."""
    from trials.ledger import TrialFolder

    attempt, _ = TrialFolder(folder).begin(host=socket.gethostname())
    failure = {"type": type(error).__name__, "message": str(error), "traceback": traceback.format_exc()}
    attempt.end("failed", error=failure, failures=attempt.state.failures + 1)
    return attempt.state.status
