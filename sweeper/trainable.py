"""What a Ray worker does: one trial after the other in the same process, told by assignments."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

REPORT_EVERY_S = 1.0
"""Rows on their way to the live view are thinned to this; committed rows are not."""

SHOWN = ("stage", "level", "epoch", "val_accuracy", "density")


def run_assigned(assignment: dict[str, Any]) -> None:
    """Run one trial in its folder; its rows and its end are committed there, the reports only drive the display."""
    from ray import tune

    from trials.config import parse
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
        _share_gpu(assignment["gpu"])
        around = Surroundings(Path(assignment["stages"]), report, stop.exists, assignment["threads"])
        status = run(parse(assignment["config"]), Path(assignment["folder"]), around).status
    tune.report({"trial": assignment["trial"], "status": status})


def _share_gpu(gpu: float) -> None:
    """A trial that asked for a fraction of a card may use that fraction of its memory. Not yet run on a GPU."""
    import torch

    if 0 < gpu < 1 and torch.cuda.is_available():
        torch.cuda.set_per_process_memory_fraction(gpu)
