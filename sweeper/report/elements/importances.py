"""Importances of hyperparameters for an objective, by Optuna, cell by cell; those of equal points are computed once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Literal

from sweeper.report.elements.searched import Searched, are_numbers
from sweeper.space.distributions import read_distribution

if TYPE_CHECKING:
    import optuna
    from optuna.distributions import BaseDistribution

ImportanceEvaluator = Literal["fanova", "ped_anova"]

FEWEST_POINTS = 8
"""Fewest complete points of a cell for which importances are computed; with fewer they are noise."""

_MOST_POINTS, _MOST_WORK = 100, 6000
"""Most points of a cell, and points of all cells times hyperparameters, for fANOVA: about 10 s on one core."""

_Points = tuple[tuple[tuple[tuple[str, Any], ...], float], ...]
_Ranges = tuple[tuple[str, "BaseDistribution"], ...]


@dataclass(frozen=True)
class CellImportances:
    """Importances in one cell, for one objective.

    Attributes:
        cell: the cell's key.
        objective: column.
        points: number of complete points.
        shares: by hyperparameter, its share of the importance, 0 to 1; they add up to 1. Empty with a ``reason``.
        reason: why there are none, or empty.
    """

    cell: str
    objective: str
    points: int
    shares: Mapping[str, float]
    reason: str = ""


def affordable(counts: Sequence[int], hyperparameters: int) -> ImportanceEvaluator:
    """Return fANOVA if cells with so many complete points each take it a few seconds, otherwise PED-ANOVA."""
    cheap = max(counts, default=0) <= _MOST_POINTS and sum(counts) * hyperparameters <= _MOST_WORK
    return "fanova" if cheap else "ped_anova"


def importances_in(found: Searched, cell: str, objective: str, evaluator: ImportanceEvaluator) -> CellImportances:
    """Return the importances of one cell. Hyperparameters that only some of its points have are left out."""
    points = [point for point in found.points if point.cell == cell and objective in point.values]
    shared = [path for path in found.search if all(path in point.params for point in points)]
    values = {path: [point.params[path] for point in points] for path in shared}
    varied = [path for path in shared if len({repr(value) for value in values[path]}) > 1]
    if len(points) < FEWEST_POINTS:
        return CellImportances(
            cell, objective, len(points), {}, f"{len(points)} complete points, {FEWEST_POINTS} needed"
        )
    if not varied:
        return CellImportances(cell, objective, len(points), {}, "no hyperparameter has two values in all points")
    if len({point.values[objective] for point in points}) < 2:
        return CellImportances(cell, objective, len(points), {}, f"{objective} is the same in all points")
    ranges = tuple((path, _distribution(found, path, values[path])) for path in varied)
    given = {path: _plain(values[path], distribution) for path, distribution in ranges}
    rows = tuple(
        (tuple((path, given[path][place]) for path in given), point.values[objective])
        for place, point in enumerate(points)
    )
    shares = dict(_importances(rows, ranges, found.objectives[objective], evaluator))
    return CellImportances(cell, objective, len(points), shares)


@lru_cache(maxsize=4096)
def _importances(
    points: _Points, ranges: _Ranges, sign: int, evaluator: ImportanceEvaluator
) -> tuple[tuple[str, float], ...]:
    """Importances of points, each with hyperparameters and value; a report that is drawn again asks for the same."""
    from optuna.importance import FanovaImportanceEvaluator, PedAnovaImportanceEvaluator, get_param_importances

    judge = FanovaImportanceEvaluator(seed=0) if evaluator == "fanova" else PedAnovaImportanceEvaluator()
    study, paths = _study(points, ranges, sign), [path for path, _ in ranges]
    return tuple(
        (path, float(share)) for path, share in get_param_importances(study, evaluator=judge, params=paths).items()
    )


def _study(points: _Points, ranges: _Ranges, sign: int) -> optuna.Study:
    """The points as a study, made without a line on the terminal."""
    import optuna

    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        study = optuna.create_study(direction="maximize" if sign > 0 else "minimize")
    finally:
        optuna.logging.set_verbosity(before)
    for params, value in points:
        study.add_trial(optuna.create_trial(params=dict(params), distributions=dict(ranges), value=value))
    return study


def _distribution(found: Searched, path: str, values: Sequence[Any]) -> BaseDistribution:
    """As the space has it, on which importances depend, so that they are those of :meth:`Sweep.study`.

    What the points span if the space has several ranges, or has been changed since some of them were asked for.
    """
    from optuna.distributions import CategoricalDistribution, FloatDistribution

    entry = found.entries.get(path)
    own = read_distribution(entry, path) if isinstance(entry, Mapping) else None
    if own is not None and all(own.contains(value) for value in values):
        return own.optuna_distribution()
    if not are_numbers(values):
        return CategoricalDistribution(sorted(set(map(str, values))))
    return FloatDistribution(min(values), max(values), log=found.is_logarithmic(path))


def _plain(values: Sequence[Any], distribution: BaseDistribution) -> Sequence[Any]:
    """The values as the distribution has them: texts where its choices are texts for lack of better ones."""
    choices = getattr(distribution, "choices", None)
    return values if choices is None or all(value in choices for value in values) else list(map(str, values))
