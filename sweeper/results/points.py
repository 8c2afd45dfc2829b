"""The points of a cell's search: a trial each, or the trials of all replicates of a point (``replicates:``)."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sweeper.columns import config_column
from sweeper.results.bounds import missed_by_all
from sweeper.space.options.constraints import Constraint
from sweeper.space.options.objectives import Objective
from sweeper.space.options.replicates import Replicates
from trials.storage.rows import Row


def is_number(value: object) -> bool:
    """Whether a table's value is a finite number."""
    return isinstance(value, (int, float)) and math.isfinite(value)


@dataclass(frozen=True)
class PointTrials:
    """The trials of one point.

    Attributes:
        rows: their rows of ``trials``, in the order of the space's replicates.
        of: number of replicates that a point has in the end.
        judge: makes one value of theirs; None where a point is one trial.
        needed: columns without which a complete trial counts as failed, as for the search: objectives, bounded columns.
    """

    rows: tuple[Row, ...]
    of: int = 1
    judge: Replicates | None = None
    needed: Collection[str] = ()

    @property
    def first(self) -> Row:
        """The row that stands for the point: of its first replicate."""
        return self.rows[0]

    @property
    def status(self) -> str:
        """``complete`` if every replicate is, ``failed`` if one is, ``pruned`` if it ended before all were complete."""
        found = {"failed" if self._lacks_figures(row) else row["status"] for row in self.rows}
        if "failed" in found:
            return "failed"
        if "pruned" in found or any(row.get("dropped") is not None for row in self.rows):
            return "pruned"
        if found == {"complete"}:
            return "complete" if len(self.rows) >= self.of else "running"
        return "running" if "running" in found or "complete" in found else min(found)

    def _lacks_figures(self, row: Row) -> bool:
        return row["status"] == "complete" and not all(is_number(row.get(name)) for name in self.needed)

    def is_complete(self, objectives: Iterable[str]) -> bool:
        """Whether every replicate is complete and has a number in each of these columns."""
        names = list(objectives)
        return self.status == "complete" and all(is_number(row.get(name)) for row in self.rows for name in names)

    def value(self, objective: Objective) -> float:
        """The value by which the point is judged; its rows must have numbers there."""
        values = [float(row[objective.column]) for row in self.rows]
        return values[0] if self.judge is None else self.judge.judge.value(values, objective.sign)

    def missed(self, constraints: Sequence[Constraint]) -> float | None:
        """By how much the point misses its bounds: each by as much as its worst replicate; None if that is unknown."""
        return missed_by_all(self.rows, constraints)


def points_in(trials: Sequence[Row], replicates: Replicates | None, needed: Collection[str] = ()) -> list[PointTrials]:
    """Return the points of a cell, in the order of their first trials' ids.

    Args:
        trials: rows of ``trials`` of the cell's search, in the order of their ids.
        needed: see :class:`PointTrials`.
    """
    if replicates is None:
        return [PointTrials((row,), needed=needed) for row in trials]
    wanted = replicates.points()
    order = {tuple(values.items()): i for i, values in enumerate(wanted)}
    found: dict[Any, list[Row]] = {}
    for row in trials:
        found.setdefault(row["number"], []).append(row)
    points = []
    for rows in found.values():
        places = {id(row): order.get(_replicate_of(row, replicates), len(order)) for row in rows}
        ordered = sorted(rows, key=lambda row, places=places: places[id(row)])  # type: ignore[misc]
        points.append(PointTrials(tuple(ordered), len(wanted), replicates, needed))
    return sorted(points, key=lambda point: str(point.first["trial"]))


def _replicate_of(row: Mapping[str, Any], replicates: Replicates) -> tuple[tuple[str, Any], ...]:
    return tuple((path, row.get(config_column(path))) for path in replicates.values)


def columns_of_replicates(replicates: Replicates | None) -> set[str]:
    """The columns of ``trials`` that :func:`points_in` reads."""
    return {"trial", "number", "status", "dropped", *(map(config_column, replicates.values) if replicates else ())}


def columns_judged(objectives: Iterable[Objective], constraints: Iterable[Constraint]) -> set[str]:
    """The columns in which a complete trial must have a number, or it counts as failed."""
    return {objective.column for objective in objectives} | {constraint.column for constraint in constraints}


def best_point(
    points: Sequence[PointTrials], objective: Objective, constraints: Sequence[Constraint]
) -> PointTrials | None:
    """The best complete point that keeps its bounds; None if there is none."""
    counting = [point for point in points if point.is_complete([objective.column]) and point.missed(constraints) == 0]
    return max(counting, key=lambda point: objective.sign * point.value(objective), default=None)


def nearest_to_bounds(
    points: Sequence[PointTrials], objective: Objective, constraints: Sequence[Constraint]
) -> PointTrials | None:
    """The complete point that misses its bounds by least, the better one of equal ones; None if nothing says by how
    much."""
    known = [
        (missed, -objective.sign * point.value(objective), point)
        for point in points
        if point.is_complete([objective.column]) and (missed := point.missed(constraints)) is not None
    ]
    return min(known, key=lambda item: item[:2])[2] if known else None
