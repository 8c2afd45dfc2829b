"""The Pareto front of each cell."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from sweeper.columns import config_column
from sweeper.results.bounds import columns_needed
from sweeper.results.frames import SweepTables
from sweeper.results.points import PointTrials, columns_of_replicates, points_in
from sweeper.results.rows_of_frames import rows_of
from sweeper.space.options.constraints import Constraint
from sweeper.space.options.objectives import Objective
from sweeper.space.options.replicates import Replicates


def pareto_front(
    sweep: SweepTables,
    objectives: Sequence[Objective],
    constraints: Sequence[Constraint] = (),
    search: Sequence[str] = (),
    replicates: Replicates | None = None,
) -> pd.DataFrame:
    """Return the complete, feasible points that no other such point of their cell dominates.

    Returns:
        A row per point: ``cell``; ``trial``, that of its first replicate; the objectives' columns, where replicates
        have the judge's value of theirs; then the searched hyperparameters' columns. Rows are in the order of cells in
        ``trials``, then by the first objective, best first.
    """
    columns = [objective.column for objective in objectives]
    shown = [c for c in dict.fromkeys(map(config_column, search)) if c in sweep.trials.columns and c not in columns]
    wanted = {"cell", "confirms", "method", *columns, *shown, *columns_needed(constraints)}
    cells: dict[str, list[dict[str, Any]]] = {}
    for row in rows_of(sweep.trials, wanted | columns_of_replicates(replicates)):
        if row.get("confirms") is None and row.get("cell") is not None:
            cells.setdefault(row["cell"], []).append(row)
    found = []
    for cell, trials in cells.items():
        complete = [point for point in points_in(trials, replicates) if point.is_complete(columns)]
        points = [point for point in complete if point.missed(constraints) == 0]
        values = [[point.value(objective) for objective in objectives] for point in points]
        signs = [objective.sign for objective in objectives]
        kept = undominated(-np.array(values, dtype=float).reshape(len(points), len(signs)) * signs)
        best = [both for both, keep in zip(zip(points, values, strict=True), kept, strict=True) if keep]
        found += [_row(cell, *both, columns, shown) for both in sorted(best, key=lambda both: -signs[0] * both[1][0])]
    front: pd.DataFrame = pd.DataFrame(found, columns=["cell", "trial", *columns, *shown])
    return front


def _row(cell: str, point: PointTrials, values: Sequence[float], columns: Sequence[str], shown: Sequence[str]) -> Any:
    known = {"cell": cell, "trial": point.first["trial"], **dict(zip(columns, values, strict=True))}
    return {**known, **{column: point.first.get(column) for column in shown}}


def undominated(losses: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Boolean mask [trials] of the rows of ``losses`` [trials, objectives] that no other dominates; less is better."""
    kept = np.ones(len(losses), dtype=bool)
    for i, row in enumerate(losses):
        kept[i] = not ((losses <= row).all(axis=1) & (losses < row).any(axis=1)).any()
    return kept
