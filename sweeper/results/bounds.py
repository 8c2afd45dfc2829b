"""Which trials keep their bounds, and by how much the others miss them."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from sweeper.columns import config_column
from sweeper.space.options.constraints import Constraint, FieldOf
from trials.dotted_paths import set_at


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


def missed_by_all(rows: Sequence[Mapping[str, Any]], constraints: Sequence[Constraint]) -> float | None:
    """Like :func:`missed_by` of several rows, the replicates of a point: each bound is missed by as much as by the
    worst of them."""
    missed = [[missed_by(row, [constraint]) for row in rows] for constraint in constraints]
    known = [[value for value in of_rows if value is not None] for of_rows in missed]
    if any(len(there) < len(rows) for there in known):
        return None
    return sum((max(there) for there in known), 0.0) if rows else 0.0


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
