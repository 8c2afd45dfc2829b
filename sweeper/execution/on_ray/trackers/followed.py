"""A trial as trackers see it."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Mapping
from dataclasses import dataclass
from numbers import Real
from pathlib import Path
from typing import Any

from sweeper.execution.told_rows import Told
from trials.dotted_paths import leaves
from trials.storage import files


def numbers_in(figures: Mapping[str, Any]) -> dict[str, float]:
    """The figures of a row that trackers can draw: without NaN, and integers beyond float64."""
    found: dict[str, float] = {}
    for key, value in figures.items():
        with contextlib.suppress(OverflowError):
            if isinstance(value, Real) and not math.isnan(value):
                found[key] = float(value)
    return found


@dataclass(frozen=True)
class Past:
    """A trial that was over before this run.

    Attributes:
        config: its config as JSON, defaults included.
        cell: its cell; of several, the last one.
        failed: whether it failed for good.
    """

    config: dict[str, Any]
    cell: str
    failed: bool


class Followed:
    """A trial of the sweep in place of Tune's, which is one attempt at it.

    Attributes:
        trial_id: its name.
        config: its config as JSON, defaults included.
        cell: its cell; of several, the one that asked first.
        run_id: 32 hexadecimal digits that tell the tracker's run of it from others; the same when the sweep is resumed.
        resumed: whether an earlier run of the sweep has begun to tell of it.
        rows: number of the last row that the tracker has; one that knows better may set it when the trial starts.
        evaluated_params: the fields by dotted path and the cell, without fields that are null or lists.
        local_path: its folder for files of the tracker.
        status: ``RUNNING``; at its end ``TERMINATED`` (complete or pruned) or ``ERROR``; ``PAUSED`` if this run of the
            sweep ends before it.
    """

    def __init__(
        self, trial_id: str, config: dict[str, Any], cell: str, told: Told, *, resumed: bool, folder: Path, sweep: str
    ) -> None:
        self.trial_id, self.config, self.cell = trial_id, config, cell
        self.run_id, self.resumed, self.rows = told.run, resumed, told.rows
        found = {path: value for path, value in leaves(config) if isinstance(value, str | int | float)}
        self.evaluated_params = {**found, **({"cell": cell} if cell else {})}
        self.experiment_dir_name = self.experiment_tag = sweep
        self.local_path = str(folder / trial_id)
        self.status = "RUNNING"
        self.attempt: Any = None
        """Tune's trial, of the last attempt; None for a trial that was over before this run of the sweep."""

    def init_local_path(self) -> None:
        """Make its folder, which colleagues may write if they may write the sweep's."""
        files.make_folder(Path(self.local_path))

    def __str__(self) -> str:
        return self.trial_id

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or self.__dict__.get("attempt") is None:
            raise AttributeError(name)
        return getattr(self.attempt, name)
