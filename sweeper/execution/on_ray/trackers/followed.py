"""A trial as trackers see it."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Mapping
from dataclasses import dataclass
from numbers import Real
from pathlib import Path
from typing import Any

from sweeper.execution.on_ray.trackers.point import TrackedPoint
from sweeper.execution.told_rows import Told, rows_from
from trials.dotted_paths import leaves
from trials.errors import DamagedFile
from trials.storage import files
from trials.storage.place import Place
from trials.storage.trial_folder import TrialFolder


def numbers_in(figures: Mapping[str, Any]) -> dict[str, float]:
    """The figures of a row that trackers can draw: without NaN, and integers beyond float64."""
    found: dict[str, float] = {}
    for key, value in figures.items():
        with contextlib.suppress(OverflowError):
            if isinstance(value, Real) and not math.isnan(value):
                found[key] = float(value)
    return found


def committed_rows(trial: Place) -> list[dict[str, Any]]:
    """The rows of a trial as its folder has them, rows_from; none of a damaged one, which the next run repairs."""
    folder = TrialFolder(trial)
    try:
        state = folder.state()
        found = folder.rows(state.commits[-1]).get("epochs", []) if state is not None and state.commits else []
    except (DamagedFile, OSError):
        return []
    return rows_from(found, 0)


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
        point: the point that it belongs to; known once the callback is told of the start.
        group: what the trials of the point are grouped under.
        grouped: whether points of the sweep have several trials: replicates, confirmations or segments.
        local_path: its folder for files of the tracker; one that groups may change it when the trial starts.
        status: ``RUNNING``; at its end ``TERMINATED`` (complete or pruned) or ``ERROR``; ``PAUSED`` if this run of the
            sweep ends before it.
    """

    def __init__(
        self, trial_id: str, config: dict[str, Any], cell: str, told: Told, *, resumed: bool, folder: Path, sweep: str
    ) -> None:
        self.trial_id, self.config, self.cell = trial_id, config, cell
        self.run_id, self.resumed, self.rows = told.run, resumed, told.rows
        self.point, self.group, self.grouped = TrackedPoint(), sweep, False
        self.experiment_dir_name = self.experiment_tag = sweep
        self.local_path = str(folder / trial_id)
        self.status = "RUNNING"
        self.checkpoint = None  # Ray's loggers ask for one, to go on from
        self.attempt: Any = None
        """Tune's trial, of the last attempt; None for a trial that was over before this run of the sweep."""

    @property
    def evaluated_params(self) -> dict[str, Any]:
        """The fields by dotted path, cell, point and role, without fields that are null or lists."""
        found = {path: value for path, value in leaves(self.config) if isinstance(value, str | int | float)}
        own = {"cell": self.cell, "point": self.point.name}
        role = {"role": self.point.role} if self.point.name else {}
        return {**found, **{name: value for name, value in own.items() if value}, **role}

    @property
    def tags(self) -> list[str]:
        """Its cell, method and density."""
        found = [self.cell, str(self.config.get("method") or "")]
        found += [f"density={self.config['density']}"] if "density" in self.config else []
        return [tag for tag in dict.fromkeys(found) if tag]

    def init_local_path(self) -> None:
        """Make its folder, which colleagues may write if they may write the sweep's."""
        files.make_folder(Path(self.local_path))

    def __str__(self) -> str:
        return self.trial_id

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or self.__dict__.get("attempt") is None:
            raise AttributeError(name)
        return getattr(self.attempt, name)
