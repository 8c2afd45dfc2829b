"""Points as rows of a DataFrame: a search's points with their judged values, and the best point of each cell."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import pandas as pd

from sweeper.columns import config_column
from sweeper.results.bounds import columns_needed
from sweeper.results.frames import SweepTables
from sweeper.results.points import PointTrials, columns_judged, columns_of_replicates, is_number, points_in
from sweeper.results.rows_of_frames import rows_of
from sweeper.results.stored_space import StoredSpace
from sweeper.results.summary import ACCURACIES, mean, order_of, std
from sweeper.space.options.objectives import Objective
from trials.storage.rows import Row


def points_table(sweep: SweepTables, space: StoredSpace) -> pd.DataFrame:
    """Return a row per point that the searches have asked for; :meth:`sweeper.sweep.Sweep.points` documents it.

    A point whose trials also serve an earlier point of the cell has no row of its own.
    """
    objectives = [objective.column for objective in space.objectives]
    given = [config_column(path) for path in dict.fromkeys([*space.paths, *space.search])]
    figures = list(dict.fromkeys([*objectives, *ACCURACIES, "density"]))
    wanted = {"cell", "confirms", "method", *given, *figures, *columns_needed(space.constraints)}
    needed = columns_judged(space.objectives, space.constraints)
    cells: dict[str, list[Row]] = {}
    for row in rows_of(sweep.trials, wanted | columns_of_replicates(space.replicates)):
        if row.get("confirms") is None and row.get("cell") is not None:
            cells.setdefault(row["cell"], []).append(row)
    columns = [config_column(path) for path in space.paths]
    ordered = sorted(cells, key=lambda cell: order_of(space.paths, [cells[cell][0].get(name) for name in columns]))
    found = [
        _row(cell, point, space, given, figures)
        for cell, trials in ((cell, cells[cell]) for cell in ordered)
        for point in sorted(points_in(trials, space.replicates, needed), key=lambda point: point.first["number"])
    ]
    deviations = [f"{column}_std" for column in figures]
    names = [*given, "status", "replicates", *objectives, "missed", *figures, *deviations, "trials"]
    table: pd.DataFrame = pd.DataFrame(found, columns=list(dict.fromkeys(["cell", "point", *names])))
    return table


def _row(cell: str, point: PointTrials, space: StoredSpace, given: Sequence[str], figures: Sequence[str]) -> Row:
    first = point.first
    row = {"cell": cell, "point": first["number"], "status": point.status, **{name: first.get(name) for name in given}}
    row["replicates"] = sum(trial["status"] == "complete" for trial in point.rows)
    row["missed"] = point.missed(space.constraints) if point.status == "complete" else None
    for column in figures:
        values = [value for trial in point.rows if is_number(value := trial.get(column))]
        row[column], row[f"{column}_std"] = mean(values), std(values)
    for objective in space.objectives:
        known = point.is_complete([objective.column])
        row[objective.column] = point.value(objective) if known else None
    row["trials"] = [trial["trial"] for trial in point.rows]
    return row


def best_table(sweep: SweepTables, points: Iterable[PointTrials], objective: Objective) -> pd.DataFrame:
    """Return a row of ``trials`` for each of these points; of several replicates, one row that stands for all of them.

    There, the objective is the judge's value, other real figures are means, and what differs otherwise is missing,
    except for ``trial``, which is the first replicate's.
    """
    by_id = sweep.trials.set_index("trial", drop=False)
    rows = [_merged(by_id.loc[[row["trial"] for row in point.rows]], point, objective) for point in points]
    if rows:
        return pd.concat(rows, ignore_index=True)
    empty: pd.DataFrame = sweep.trials.iloc[:0].copy()
    return empty


def _merged(trials: pd.DataFrame, point: PointTrials, objective: Objective) -> pd.DataFrame:
    first: pd.DataFrame = trials.iloc[:1].copy()
    if point.of == 1 and len(trials) == 1:
        return first
    for column in trials.columns:
        values = trials[column]
        if column == "trial" or _are_equal(values):
            continue
        if pd.api.types.is_float_dtype(values):
            first[column] = mean([value for value in values.tolist() if not pd.isna(value)])
        else:
            first[column] = pd.Series([None], index=first.index, dtype=values.dtype)
    deviation = std([float(row[objective.column]) for row in point.rows])
    first[objective.column] = point.value(objective)
    first["replicates"], first[f"{objective.column}_std"] = len(point.rows), deviation
    return first


def _are_equal(values: pd.Series[Any]) -> bool:
    return len({repr(value) for value in values.tolist()}) == 1
