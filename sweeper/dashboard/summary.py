"""A sweep as one study: every point of every cell, with grid values and hyperparameters as parameters."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

from optuna.distributions import BaseDistribution
from optuna.trial import FrozenTrial

from sweeper.dashboard.parameters import common_distribution, shown_value
from sweeper.folder.confirmations import confirmation_of
from sweeper.folder.sweep_folder import Record, SweepFolder
from sweeper.means import mean_of
from sweeper.screen.number_texts import fixed
from sweeper.search.cells.cell_studies import StudiedPoint
from sweeper.space.space import Space
from sweeper.space.values import finite_number

_ATTRS = ("val_accuracy", "test_accuracy", "density", "flops")
"""Columns of a trial's result that a point shows beside its objectives."""


def summary_name(folder: SweepFolder) -> str:
    """Return the summary's name, which stands before those of the cells in any order of letters."""
    return f"(all points of {folder.path.name})"


def summary_trials(
    space: Space, points: Iterable[StudiedPoint], records: Iterable[Record]
) -> dict[tuple[str, int], FrozenTrial]:
    """Return every point as a trial of the summary, by cell and number, in the order in which the points began.

    Parameters are the cell's grid values and the hyperparameters of the point; one that the point's cell lacks, or
    whose condition does not hold, is left out. A parameter has one distribution in all trials, as Optuna's
    importances and plots need it, so that of a hyperparameter covers its ranges in all cells.
    """
    found = sorted(points, key=lambda one: (one.trial.datetime_start or datetime.max, one.cell, one.number))
    distributions = _distributions(space, found, records)
    return {(one.cell, one.number): _trial(space, one, distributions) for one in found}


def _distributions(
    space: Space, points: Sequence[StudiedPoint], records: Iterable[Record]
) -> dict[str, BaseDistribution]:
    grids = [cell.values for cell in space.cells()]
    grids += [sample.grid for record in records for sample in record.samples]
    fixed: dict[str, list[Any]] = {}
    drawn: dict[str, list[BaseDistribution]] = {}
    seen: dict[str, list[Any]] = {}
    for grid in grids:
        for path, value in grid.items():
            _add(fixed.setdefault(path, []), value)
    for point in points:
        for path, distribution in point.trial.distributions.items():
            if distribution not in drawn.setdefault(path, []):
                drawn[path].append(distribution)
            seen.setdefault(path, []).append(point.trial.params[path])
    paths = [*fixed, *(path for path in drawn if path not in fixed)]
    return {path: common_distribution(fixed.get(path, ()), drawn.get(path, ()), seen.get(path, ())) for path in paths}


def _add(values: list[Any], value: Any) -> None:
    if not any(type(known) is type(value) and known == value for known in values):
        values.append(value)


def _trial(space: Space, point: StudiedPoint, distributions: Mapping[str, BaseDistribution]) -> FrozenTrial:
    given = point.trial
    values = {**point.grid, **given.params}
    params = {path: shown_value(value, distributions[path]) for path, value in values.items()}
    return FrozenTrial(
        number=0,
        trial_id=0,
        state=given.state,
        value=None,
        values=given.values,
        datetime_start=given.datetime_start,
        datetime_complete=given.datetime_complete,
        params=params,
        distributions={path: distributions[path] for path in params},
        user_attrs=_attrs(space, point),
        system_attrs=given.system_attrs,
        intermediate_values=given.intermediate_values,
    )


def _attrs(space: Space, point: StudiedPoint) -> dict[str, Any]:
    """What is known of a point beside its parameters: figures are means over its replicates that have them."""
    ids = [record.id for record in point.records]
    attrs: dict[str, Any] = {"trial": ids[0]} if space.replicates is None else {"trials": ids, "replicates": len(ids)}
    attrs |= {"cell": point.cell, "sample": point.number}
    results = [record.state.result for record in point.records if record.state is not None]
    for column in dict.fromkeys((*(objective.column for objective in space.objectives), *_ATTRS)):
        known = [value for result in results if (value := finite_number(result.get(column))) is not None]
        if known:
            attrs[column] = mean_of(known)
        if len(ids) > 1 and known:
            attrs[f"{column} of replicates"] = [result.get(column) for result in results]
    warnings = {str(code) for result in results for code in result.get("warnings") or ()}
    errors = [record.state.error for record in point.records if record.state is not None and record.state.error]
    attrs |= {"warnings": sorted(warnings)} if warnings else {}
    attrs |= {"error": f"{errors[0].get('type')}: {errors[0].get('message')}"} if errors else {}
    return attrs


def summary_attrs(space: Space, records: Iterable[Record]) -> dict[str, Any]:
    """Return the summary's own attributes: of each cell, its confirmations with their objective."""
    found: dict[str, list[str]] = {}
    for record in records:
        for sample in record.samples:
            confirms = confirmation_of(sample)
            if confirms is not None:
                value = finite_number(record.state.result.get(space.objective)) if record.state else None
                shown = "not complete" if value is None else f"{space.objective} {fixed(value, 4)}"
                found.setdefault(sample.cell, []).append(f"{record.id} confirms {confirms.trial}: {shown}")
    return {f"confirmations of {cell or 'the cell'}": sorted(lines) for cell, lines in found.items()}
