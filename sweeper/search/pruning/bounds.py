"""Whether it is certain, before a trial has ended, that it will miss its bounds (``constraints:``).

Two things are known early: what a method plans to keep at the end, and what masks keep in a last stage that does not
change them. Accuracies, times and whatever else may still change are never certain.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sweeper.space.options.constraints import Constraint
from sweeper.space.options.objectives import OF_THE_MASKS
from sweeper.space.values import finite_number
from trials.config.trial_config import TrialConfig
from trials.methods import Stage
from trials.methods.base import TrainStage
from trials.methods.registry import METHODS
from trials.storage.rows import COMPACT

OF_ROWS = tuple(column for column in OF_THE_MASKS if column not in COMPACT)
"""Columns of every row that follow from the masks."""

OF_NUMBERS = ("density", "sparsity", "kept")
"""Those of them that the number of kept weights decides, wherever they lie."""

_CHANGE_MASKS = ("attach", "begin_epoch", "prepare", "step", "end_epoch", "assess")
"""Methods in which a stage could change its masks after it has begun."""


def will_miss(
    constraints: Sequence[Constraint], config: TrialConfig, content: Mapping[str, Any], row: Mapping[str, Any]
) -> bool:
    """Whether a trial that has come to this row is certain to miss one of its bounds.

    Args:
        config: the trial's config, and ``content`` the same as JSON.
        row: of the table ``epochs``; columns that it lacks decide nothing.
    """
    bounds = [constraint for constraint in constraints if constraint.column in OF_ROWS]
    if not bounds:
        return False
    method = METHODS[config.method](config)
    last = list(method.stages())[-1]
    planned = method.planned_density(last)
    final: dict[str, list[float]] = {}
    if (last.name, last.level) == (row.get("stage"), row.get("level")):
        columns = OF_ROWS if _keeps_masks(last) else OF_NUMBERS if planned is not None else ()
        final = {column: [value] for column in columns if (value := finite_number(row.get(column))) is not None}
    elif planned is not None and planned.density is not None:
        final = _around(planned.density, finite_number(row.get("prunable")))
    return any(
        all(constraint.violation(value, content) > 0 for value in final[constraint.column])
        for constraint in bounds
        if constraint.column in final
    )


def _keeps_masks(stage: Stage) -> bool:
    return all(getattr(type(stage), name) is getattr(TrainStage, name, None) for name in _CHANGE_MASKS)


def _around(density: float, weights: float | None) -> dict[str, list[float]]:
    """Values that rounding to whole weights may give the columns of a network of this density."""
    slack = 2 / weights if weights else 1e-3
    near = [density - slack, density, density + slack]
    kept = {"kept": [share * weights for share in near]} if weights else {}
    return {"density": near, "sparsity": [1 - share for share in near], **kept}
