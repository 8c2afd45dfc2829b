"""What the searches of a sweep have tried: each point with its hyperparameters and objectives."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sweeper.columns import config_column
from sweeper.report.gathered import Gathered
from sweeper.results.point_tables import points_table
from sweeper.results.points import is_number
from sweeper.results.rows_of_frames import rows_of
from sweeper.space.grid.conditions import When
from trials.errors import UserError
from trials.storage.rows import Row


@dataclass(frozen=True)
class SearchedPoint:
    """A point of a cell's search.

    Attributes:
        cell: the cell's key.
        number: its number in the search, by which the cell's points are ordered.
        status: ``complete``, ``pruned``, ``failed``, ``running`` or another one that is not over.
        grid: the cell's values.
        params: the hyperparameters that were searched for it, without those whose condition does not hold.
        values: by objective, the judged value; empty unless the point is complete.
        feasible: whether it keeps its bounds.
        trials: ids of its trials.
        until_epoch: of a population's member, where its generation ends; else 0.
    """

    cell: str
    number: int
    status: str
    grid: Mapping[str, Any]
    params: Mapping[str, Any]
    values: Mapping[str, float]
    feasible: bool
    trials: tuple[str, ...]
    until_epoch: int = 0


@dataclass(frozen=True)
class Searched:
    """The points of all cells, in the order of cells and numbers.

    Attributes:
        points: they.
        search: dotted paths of the hyperparameters that some point has.
        objectives: by column, 1 if higher values are better, else -1.
        entries: what the space says of each hyperparameter.
    """

    points: tuple[SearchedPoint, ...]
    search: tuple[str, ...]
    objectives: Mapping[str, int]
    entries: Mapping[str, Any]

    @property
    def cells(self) -> list[str]:
        """Keys of the cells that have a point."""
        return list(dict.fromkeys(point.cell for point in self.points))

    def values_of(self, path: str) -> list[Any]:
        """What the points have in a hyperparameter, those left out that lack it."""
        return [point.params[path] for point in self.points if path in point.params]

    def is_logarithmic(self, path: str) -> bool:
        """Whether a hyperparameter is drawn from a logarithmic range in some cell, and all its values allow an axis."""
        entry = self.entries.get(path)
        each = entry if isinstance(entry, Sequence) else [entry]
        asked = any(isinstance(one, Mapping) and ("loguniform" in one or one.get("log") is True) for one in each)
        return asked and are_numbers(values := self.values_of(path)) and all(value > 0 for value in values)

    def best(self, objective: str) -> dict[str, SearchedPoint]:
        """By cell, the best complete point that keeps its bounds; of a population, of its last generation."""
        found: dict[str, SearchedPoint] = {}
        sign = self.objectives[objective]
        known = [point for point in self.points if objective in point.values]
        last = {point.cell: point.until_epoch for point in sorted(known, key=lambda point: point.until_epoch)}
        for point in known:
            if point.feasible and point.until_epoch == last[point.cell]:
                best = found.get(point.cell)
                if best is None or sign * point.values[objective] > sign * best.values[objective]:
                    found[point.cell] = point
        return found


def are_numbers(values: Sequence[Any]) -> bool:
    """Whether all of the values are numbers; booleans are none."""
    return all(isinstance(value, (int, float)) and not isinstance(value, bool) for value in values)


def searched(gathered: Gathered) -> Searched:
    """Return what the searches of a sweep have tried.

    Raises:
        UserError: there is no search, or no point has begun.
    """
    name, space = gathered.sweep.path.name, gathered.space
    if not gathered.has_space or not space.search:
        raise UserError(f"{name} searches no hyperparameters: its space has no section search")
    entries = gathered.documents[-1]["space"].get("search") or {}
    table = points_table(gathered.sweep, space)
    trials = rows_of(gathered.sweep.trials, {"trial", "until_epoch"})
    ends = {row["trial"]: row.get("until_epoch") or 0 for row in trials}
    points = tuple(_point(row, gathered, ends) for row in rows_of(table, set(table.columns)))
    if not points:
        raise UserError(f"{name} has no trial yet: start it first")
    there = {path for point in points for path in point.params}
    signs = {objective.column: objective.sign for objective in space.objectives}
    return Searched(points, tuple(path for path in space.search if path in there), signs, entries)


def _point(row: Row, gathered: Gathered, ends: Mapping[str, int]) -> SearchedPoint:
    space = gathered.space
    grid = {path: row[config_column(path)] for path in space.paths}
    given = {path: row[config_column(path)] for path in space.search}
    active = [path for path in space.search if _is_active(path, grid, given, space.conditions)]
    values = {o.column: float(row[o.column]) for o in space.objectives if is_number(row[o.column])}
    return SearchedPoint(
        row["cell"], int(row["point"]), row["status"], grid,
        {path: given[path] for path in active if given[path] is not None},
        values if row["status"] == "complete" else {}, row["missed"] == 0, tuple(row["trials"]),
        int(ends[row["trials"][0]]),
    )  # fmt: skip


def _is_active(
    path: str, grid: Mapping[str, Any], given: Mapping[str, Any], conditions: Mapping[str, tuple[When, ...]]
) -> bool:
    """Whether a hyperparameter was searched for a point: whether one of its conditions holds there."""

    def value_of(other: str) -> Any:
        if other in given:
            return given[other] if other != path and _is_active(other, grid, given, conditions) else None
        return grid.get(other)

    return any(
        all((value := value_of(other)) is not None and condition.holds(value) for other, condition in when)
        for when in conditions[path]
    )
