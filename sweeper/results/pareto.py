"""Which trials keep their bounds, and the Pareto front of each cell."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from sweeper.columns import config_column
from sweeper.results.frames import SweepTables
from sweeper.space.options.constraints import Constraint, FieldOf
from sweeper.space.options.objectives import Objective
from trials.dotted_paths import set_at
from trials.errors import UserError, unknown_name


def sign_of(direction: str) -> int:
    """Return 1 if larger values are better, -1 if smaller ones are.

    Raises:
        UserError: ``direction`` is neither ``maximize`` nor ``minimize``.
    """
    signs = {"maximize": 1, "minimize": -1}
    if direction not in signs:
        raise UserError(unknown_name("direction", direction, signs))
    return signs[direction]


def feasible(row: Mapping[str, Any], constraints: Sequence[Constraint]) -> bool:
    """Whether a row of ``trials`` keeps every bound; a missing or non-finite figure misses its bound."""
    return missed_by(row, constraints) == 0


def missed_by(row: Mapping[str, Any], constraints: Sequence[Constraint]) -> float | None:
    """By how much a row of ``trials`` misses its bounds in all; None if a figure is missing or not finite."""
    missed = 0.0
    for constraint in constraints:
        value = row.get(constraint.column)
        if value is None or not math.isfinite(value):
            return None
        missed += max(constraint.violation(value, _config(row, constraint)), 0.0)
    return missed


def columns_needed(constraints: Sequence[Constraint]) -> set[str]:
    """The columns of ``trials`` that :func:`feasible` reads."""
    fields = {config_column(path) for constraint in constraints for path in fields_of(constraint)}
    return fields | {constraint.column for constraint in constraints}


def fields_of(constraint: Constraint) -> Iterator[str]:
    """Yield the path of the config's field from which the constraint takes its bound, if it takes it from one."""
    bound = getattr(constraint, constraint.kind)
    if isinstance(bound, FieldOf):
        yield bound.field


def _config(row: Mapping[str, Any], constraint: Constraint) -> dict[str, Any]:
    """The fields of the row's config that the constraint refers to, and its method."""
    config: dict[str, Any] = {"method": row.get("method")}
    for path in fields_of(constraint):
        if config_column(path) in row:
            set_at(config, path, row[config_column(path)])
    return config


def pareto_front(
    sweep: SweepTables,
    objectives: Sequence[Objective],
    constraints: Sequence[Constraint] = (),
    search: Sequence[str] = (),
) -> pd.DataFrame:
    """Return the complete, feasible trials that no other such trial of their cell dominates.

    Returns:
        A row per trial: ``cell``, ``trial``, the objectives' columns, then the searched hyperparameters' columns. Rows
        are in the order of cells in ``trials``, then by the first objective, best first.
    """
    columns = [objective.column for objective in objectives]
    trials = sweep.trials[sweep.trials["status"] == "complete"]
    trials = trials[trials["confirms"].isna()] if "confirms" in trials else trials
    trials = trials.reindex(columns=[*trials.columns, *(c for c in columns if c not in trials)])  # reported by no trial
    trials = trials.dropna(subset=columns)
    if constraints and len(trials):
        wanted = [c for c in trials.columns if c in columns_needed(constraints) or c == "method"]
        rows = trials[wanted].astype(object).to_dict("records")
        trials = trials[[feasible({str(k): v for k, v in row.items()}, constraints) for row in rows]]
    parts = []
    for _, cell in trials.groupby("cell", sort=False):
        signs = [sign_of(objective.direction) for objective in objectives]
        losses = -cell[columns].to_numpy(dtype=float) * signs
        parts.append(cell[undominated(losses)].sort_values(columns[0], ascending=signs[0] < 0, kind="stable"))
    found = pd.concat(parts) if parts else trials
    shown = list(dict.fromkeys([*columns, *(config_column(path) for path in search)]))
    front: pd.DataFrame = found[["cell", "trial", *(c for c in shown if c in found.columns)]].reset_index(drop=True)
    return front


def undominated(losses: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Boolean mask [trials] of the rows of ``losses`` [trials, objectives] that no other dominates; less is better."""
    kept = np.ones(len(losses), dtype=bool)
    for i, row in enumerate(losses):
        kept[i] = not ((losses <= row).all(axis=1) & (losses < row).any(axis=1)).any()
    return kept
