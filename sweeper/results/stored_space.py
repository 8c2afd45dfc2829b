"""Read what reports need of a sweep's stored space, and refuse in one line what was changed by hand.

The driver reads a space whole before it runs anything, which needs torch; a report reads only what it uses.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field, fields
from typing import Any
from weakref import WeakKeyDictionary

import pandas as pd
from pandas.api.types import is_numeric_dtype

from sweeper.columns import config_column
from sweeper.folder.sweep_folder import SweepFolder
from sweeper.results.bounds import fields_of
from sweeper.results.frames import SweepTables
from sweeper.space.grid.cells import make_cells
from sweeper.space.grid.conditions import When, read_when
from sweeper.space.grid.grid import read_grid
from sweeper.space.options.confirm import read_confirm
from sweeper.space.options.constraints import Constraint, stored_constraints
from sweeper.space.options.objectives import Objective, stored_objectives
from sweeper.space.options.replicates import Replicates, read_replicates
from sweeper.space.values import mapping, plain
from trials.dotted_paths import leaves
from trials.errors import UserError, one_line, shown

_NAMES = ("method", "dataset", "model")


@dataclass(frozen=True)
class StoredSpace:
    """What reports need of a space.

    Attributes:
        paths: dotted paths of the grid.
        cells: number of cells.
        search: dotted paths of the searched hyperparameters.
        conditions: where each of them is searched; any of them may hold. An empty one always holds.
        partial: paths of the grid that only some cells have.
        samples: number of points that each cell's search may try; None if the file does not say it.
        objectives: columns that rank the trials; the first one chooses a cell's best trial.
        constraints: bounds that a cell's best trial must keep.
        confirm: number of confirmations of a cell's best sample; 0 if its own trial is the figure.
        seeds: seeds of the confirmations.
        replicates: those of every point; None if a point is one trial.
        retries: number of times that a failed trial is run again.
        keys: those of the cells.
        fixed: what all trials have in common but those that confirm: numbers and names in the template, by path.
    """

    paths: tuple[str, ...]
    cells: int
    search: tuple[str, ...]
    samples: int | None
    objectives: tuple[Objective, ...]
    constraints: tuple[Constraint, ...]
    confirm: int = 0
    conditions: Mapping[str, tuple[When, ...]] = field(default_factory=dict)
    seeds: tuple[int, ...] = ()
    replicates: Replicates | None = None
    partial: frozenset[str] = frozenset()
    retries: int = 0
    keys: frozenset[str] = frozenset()
    fixed: Mapping[str, str | float] = field(default_factory=dict)

    @property
    def trials_per_point(self) -> int:
        """Number of replicates of a point."""
        return len(self.replicates.points()) if self.replicates else 1

    @property
    def trials_per_cell(self) -> int | None:
        """Number of trials that each cell's search may run; None if the file does not say it."""
        return None if self.samples is None else self.samples * self.trials_per_point

    def searched_in(self, values: Mapping[str, Any]) -> list[str]:
        """The fields that are searched in the cell with these grid values, under a condition on others included."""
        return [path for path in self.search if any(self._may_hold(when, values) for when in self.conditions[path])]

    def _may_hold(self, when: When, values: Mapping[str, Any]) -> bool:
        lacking = {path for path in self.partial if values.get(path) is None or values[path] != values[path]}  # or NaN
        return all(
            path in self.search or (path not in lacking and condition.holds(values.get(path)))
            for path, condition in when
        )


WITHOUT_SPACE = StoredSpace(("trial",), 0, (), None, stored_objectives({}), ())
"""Stands for the space of trials that were run one by one (``python -m trials``): each is a group of its own."""


_known: WeakKeyDictionary[SweepTables, StoredSpace | None] = WeakKeyDictionary()
"""The spaces of tables that :func:`with_space` has made."""


def with_space(sweep: SweepTables, space: StoredSpace | None) -> SweepTables:
    """The tables again, with their space as it was read: a report asks for it in each of its figures."""
    known = SweepTables(**{field.name: getattr(sweep, field.name) for field in fields(SweepTables)})
    _known[known] = space
    return known


def stored_space(sweep: SweepTables) -> StoredSpace | None:
    """Return the space of a sweep as of its last change; None if the sweep has no ``sweep.yaml``.

    Tables of :func:`with_space` have the space that it was given.

    Raises:
        UserError: the file is damaged, is of another version, or does not fit the trials.
    """
    if sweep in _known:
        return _known[sweep]
    document = SweepFolder(sweep.path).space_document()
    if document is None:
        return None
    try:
        space = _read(document)
        _require_numbers(sweep, space)
    except UserError as error:
        raise UserError(
            f"{sweep.path / 'sweep.yaml'} was written for another version, or changed by hand "
            f"({' '.join(str(error).split())}): restore it, or move it away; the trials are kept and the next run "
            "writes it anew"
        ) from None
    return space


def _read(document: Mapping[str, Any]) -> StoredSpace:
    if "grid" not in document:
        raise UserError("grid is missing: say {} for a single cell")
    grid = read_grid(plain(mapping(document["grid"], "grid"), "grid"))
    search = {} if (content := document.get("search")) is None else mapping(content, "search")
    samples, confirm = document.get("samples"), read_confirm(document.get("confirm"))
    if samples is not None and (not isinstance(samples, int) or isinstance(samples, bool) or samples < 1):
        raise UserError(f"samples is {shown(samples)}, but must be a whole number of at least 1")
    cells, replicates = make_cells(grid), read_replicates(document.get("replicates"))
    varied = {*grid, *search, *(replicates.values if replicates else ())}
    return StoredSpace(
        paths=tuple(grid),
        cells=len(cells),
        search=tuple(plain(search, "search")),
        conditions={path: _conditions(entry, f"search.{path}") for path, entry in search.items()},
        samples=samples,
        objectives=stored_objectives(document),
        constraints=stored_constraints(document),
        confirm=len(confirm.points()) if confirm else 0,
        seeds=confirm.seed if confirm else (),
        replicates=replicates,
        retries=retries if isinstance(retries := document.get("retries", 1), int) else 1,
        partial=frozenset(path for path, axis in grid.items() if axis.when),
        keys=frozenset(cell.key for cell in cells),
        fixed={} if document.get("cases") or document.get("pbt") else dict(_fixed(document.get("trial"), varied)),
    )


def _fixed(template: object, varied: Collection[str]) -> Iterator[tuple[str, str | float]]:
    """The numbers of a template, and its method, data set and model, where neither grid nor search has other ones."""
    for path, value in leaves(template) if isinstance(template, Mapping) else ():
        a_number = isinstance(value, (int, float)) and not isinstance(value, bool)
        is_varied = any(path == other or path.startswith(f"{other}.") for other in varied)
        if not is_varied and (a_number or (path in _NAMES and isinstance(value, str))):
            yield path, value


def _conditions(entry: object, where: str) -> tuple[When, ...]:
    """Where a search's entry is searched: of one distribution, or of several with a condition each."""
    each = entry if isinstance(entry, list) else [entry]
    whens = [one.get("when") for one in each if isinstance(one, Mapping)]
    return tuple(() if when is None else read_when(when, f"{where}.when") for when in whens)


def foreign_trials(sweep: SweepTables, space: StoredSpace) -> str:
    """Why a sweep's space, or some of its trials, must be another sweep's, in a few words; empty if nothing says so.

    A grid only grows, what the template fixes stays as it is, and a search gives each of its numbers to one trial.
    """
    trials = sweep.trials[sweep.trials["cell"].notna()] if space.keys else sweep.trials[:0]
    strangers = trials[~trials["cell"].isin(space.keys)]
    if len(strangers):
        trial, cell = strangers.iloc[0][["trial", "cell"]]
        return f"trial {trial} is in cell {shown(cell)}, which it lacks"
    trials = trials[trials["confirms"].isna()]
    for path, value in space.fixed.items():
        column = config_column(path)
        if column in trials and (isinstance(value, str) or is_numeric_dtype(trials[column])):
            others = trials[trials[column].notna() & (trials[column] != value)]
            if len(others):
                trial, there = others["trial"].iloc[0], others[column].tolist()[0]
                return f"trial {trial} has {path} {shown(there)}, but it says {shown(value)}"
    return _same_numbers(trials, space)


def _same_numbers(trials: pd.DataFrame, space: StoredSpace) -> str:
    """The first two trials of the search, without confirmations, that are the same sample."""
    replicated = map(config_column, space.replicates.values if space.replicates else ())
    told_apart = ["cell", "number", *(column for column in replicated if column in trials)]
    numbered = trials[trials["number"].notna()]
    twice = numbered[numbered.duplicated(told_apart, keep=False)]
    for _, same in twice.groupby(told_apart, dropna=False, sort=False):
        (one, cell, number), other = same.iloc[0][["trial", "cell", "number"]], same["trial"].iloc[1]
        return f"trials {one} and {other} are both sample {number}" + (f" of cell {one_line(cell)}" if cell else "")
    return ""


def _require_numbers(sweep: SweepTables, space: StoredSpace) -> None:
    """Refuse objectives and bounds that are no numbers in the trials, and bounds from a field that no trial has."""
    used = {objective.column: f"objective is {objective.column!r}" for objective in space.objectives}
    for i, constraint in enumerate(space.constraints):
        used[constraint.column] = f"constraints[{i}].column is {constraint.column!r}"
        for path in fields_of(constraint):
            used[config_column(path)] = f"constraints[{i}] has the field {path!r}"
            if len(sweep.trials) and config_column(path) not in sweep.trials:
                raise UserError(
                    f"constraints[{i}] has the field {path!r}, but no trial has it: name one that they have"
                )
    for column in (column for column in used if column in sweep.trials):
        values = sweep.trials[column].dropna()
        if len(values) and not is_numeric_dtype(values):
            there = shown(values.iloc[0])
            raise UserError(
                f"{used[column]}, but the trials have {there} there: name one that holds numbers; if it is a figure of "
                "your own method, let columns() return numbers and run another sweep"
            )
