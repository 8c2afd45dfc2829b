"""The cells of two sweeps, matched by their grid values without the seed, with the trials that are their figures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sweeper.columns import config_column
from sweeper.results.cell_trials import CellTrials
from sweeper.results.frames import SweepTables
from sweeper.results.retried import with_retries
from sweeper.results.stored_space import StoredSpace, stored_space
from sweeper.results.summary import ACCURACIES, cells_of, order_of
from trials.errors import UserError
from trials.storage.rows import Row

SPLIT = ("split_seed", "val_fraction", "stratify_split")
"""Fields that decide which images are held out for validation."""

IDENTITY = ("seed", "split_seed")
"""Fields whose values make a pair of trials."""

SEARCHED = "(searched)"
"""Stands for the value of a grid's field where the other sweep searches it: it equals nothing."""

_READ = ("data", *map(config_column, ("dataset", "model", "seed", *SPLIT)))


@dataclass(frozen=True)
class Side:
    """One of the two sweeps.

    Attributes:
        tables: its tables.
        space: what its sweep.yaml says.
        cells: those that have a trial.
    """

    tables: SweepTables
    space: StoredSpace
    cells: tuple[CellTrials, ...]

    @classmethod
    def of(cls, sweep: SweepTables, figures: Sequence[str], paths: Sequence[str]) -> Side:
        """Read a sweep's cells with these figures, and what they have in the fields ``paths``."""
        space = space_of_cells(sweep)
        tables = with_retries(sweep, space)
        own = [path for path in space.paths if path != "seed"]
        columns = [*figures, *ACCURACIES, *_READ, *map(config_column, paths)]
        more = (space.confirm, space.replicates)
        cells = cells_of(tables, space.objectives[0], own, space.search, space.constraints, columns, *more)
        return cls(tables, space, tuple(cells))

    def value(self, cell: CellTrials, path: str) -> Any:
        """What a cell's trials have in a field; :data:`SEARCHED` if they differ."""
        if path in self.space.search:
            return SEARCHED
        found = {row.get(config_column(path)) for row in cell.trials}
        return found.pop() if len(found) == 1 else SEARCHED


@dataclass
class OneCell:
    """A cell in one of the sweeps, over all its seeds.

    Attributes:
        rows: rows of ``trials`` that are its figures.
        waiting: how far the seeds without a figure are.
        confirmed: whether the figures are confirmations of the best point.
    """

    rows: list[Row] = field(default_factory=list)
    waiting: list[str] = field(default_factory=list)
    confirmed: bool = False

    def by_identity(self, figure: str) -> dict[tuple[Any, ...], list[float]]:
        """The figures by the values of IDENTITY, those that are no finite numbers left out."""
        found: dict[tuple[Any, ...], list[float]] = {}
        for row in self.rows:
            value = row.get(figure)
            if isinstance(value, (int, float)) and abs(value) < float("inf"):
                found.setdefault(tuple(row.get(config_column(path)) for path in IDENTITY), []).append(float(value))
        return found


@dataclass(frozen=True)
class MatchedCell:
    """A combination of grid values, and the cell that each sweep has there; None if it has none."""

    values: Mapping[str, Any]
    a: OneCell | None
    b: OneCell | None


def space_of_cells(sweep: SweepTables) -> StoredSpace:
    """The space of a sweep.

    Raises:
        UserError: it has none, so that there are no cells.
    """
    space = stored_space(sweep)
    if space is None:
        raise UserError(f"{sweep.path.name} has no sweep.yaml, but cells are compared by a space's grid: sweep a space")
    return space


def matched_cells(a: Side, b: Side, paths: Sequence[str]) -> tuple[list[str], list[MatchedCell]]:
    """Match cells by their values of ``paths``, those left out that have one value in each sweep.

    Returns:
        The paths that count, and all cells in the order of their values: densities descending, others ascending.
    """
    varying = [path for path in paths if any(len({side.value(c, path) for c in side.cells}) > 1 for side in (a, b))]
    sides = [_by_values(side, varying) for side in (a, b)]
    keys = sorted({*sides[0], *sides[1]}, key=lambda key: order_of(varying, key))
    matched = [MatchedCell(dict(zip(varying, key, strict=True)), sides[0].get(key), sides[1].get(key)) for key in keys]
    return varying, matched


def _by_values(side: Side, paths: Sequence[str]) -> dict[tuple[Any, ...], OneCell]:
    found: dict[tuple[Any, ...], OneCell] = {}
    for cell in side.cells:
        one = found.setdefault(tuple(side.value(cell, path) for path in paths), OneCell())
        one.rows += cell.figures
        one.waiting += [cell.waiting] if cell.waiting else []
        one.confirmed |= cell.confirmed is not None
    return found
