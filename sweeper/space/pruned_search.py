"""Checks that a pruner can compare the trials of a cell: at common shares of their stages, and at one density.

Accuracies at different densities are not comparable: a denser network scores higher, so a pruner would stop the sparse
trials, whatever their hyperparameters. Where a search moves the density at which a stage trains, its pruner is refused,
unless a constraint bounds the density: then it compares values at equal densities only.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from typing import Any

from sweeper.space.grid.cells import Cell
from sweeper.space.options.objectives import OF_THE_MASKS
from sweeper.space.options.pruners import Pruner
from sweeper.space.pruner_steps import PrunerSteps, Spans, StageLevel, epoch_spans, pruner_steps
from sweeper.space.space import Space
from trials.config.recipes import OpenRecipe
from trials.config.trial_config import TrialConfig
from trials.errors import UserError, listed
from trials.methods.planned import PlannedDensity
from trials.methods.registry import METHODS

NAMES = ("density", "sparsity", "prune_fraction")
"""Fields that move the density in any method, also where a plug-in does not say what it plans."""


def planned_densities(config: TrialConfig) -> dict[StageLevel, PlannedDensity | None]:
    """What decides the density in each stage and level in which a trial may be stopped; None where it is not known."""
    method = METHODS[config.method](config)
    stages = [stage for stage in method.stages() if stage.name in method.stoppable]
    return {(stage.name, stage.level): method.planned_density(stage) for stage in stages}


def compares_at_any_density(space: Space) -> bool:
    """Whether the pruner compares figures of the masks themselves, such as ``flops``, and no accuracies."""
    return space.objective in OF_THE_MASKS


def check_pruned(space: Space, cell: Cell) -> None:
    """Check that the pruner, if there is one, can compare the trials of this cell.

    Raises:
        UserError: they have too few common shares of their stages, or the search moves their density.
    """
    if space.pruner is None or not space.search_in(cell.values):
        return
    at = f" (the cell {cell.key})" if cell.key else ""
    steps = pruner_steps(space, cell)
    for config in space.corner_configs(cell):
        own = epoch_spans(config)
        if steps.varies:
            _check_steps(space.pruner, steps, own, space.samples, at)
        if len(own) > 1:
            space.pruner.check_stage(max(steps.counts[place] for place in own))
    bounded = any(constraint.column in OF_THE_MASKS for constraint in space.constraints)
    if not bounded and not compares_at_any_density(space):
        _refuse_moved_density(space, space.pruner, cell, at)


def _check_steps(pruner: Pruner, steps: PrunerSteps, own: Spans, samples: int, at: str) -> None:
    names = listed(list(steps.fields))
    try:
        pruner.check(steps.of(own), samples, "steps")
    except UserError as error:
        counted = ", ".join(
            f"{steps.counts[place]} in stage {place[0]}" + (f" of level {place[1]}" if place[1] else "")
            for place in own
        )
        raise UserError(
            f"{error}; {names} changes the epochs, so a step is a share of a stage that every trial reaches after a "
            f"whole epoch ({counted}): search multiples, such as {{choice: [10, 20, 40]}}, or int with a step, put "
            f"{names} into grid, or remove pruner{at}"
        ) from None


def _refuse_moved_density(space: Space, pruner: Pruner, cell: Cell, at: str) -> None:
    points = _in_question(space, cell)
    if len(points) < 2 and not any(path.rpartition(".")[2] in NAMES for path in space.search_in(cell.values)):
        return
    planned = [planned_densities(space.corner_config(cell, point)) for point in points]
    moved = _moved(points, planned)
    if moved is None and any(None in known.values() for known in planned):
        named = [path for path in space.search_in(cell.values) if path.rpartition(".")[2] in NAMES]
        moved = (next(iter(planned[0])), named) if named else None
    if moved is None:
        return
    (stage, level), fields = moved
    names = listed(fields)
    raise UserError(
        f"pruner is {pruner.name!r}, but the search of {names} moves the density of stage {stage}"
        f"{f' at level {level}' if level else ''}, and accuracies at different densities are not comparable: put "
        f"{names} into grid, bound the density by a constraint ({{column: density, at_most: ...}}; then values are "
        f"compared at equal densities only), or remove pruner and make density an objective{at}"
    )


def _in_question(space: Space, cell: Cell) -> list[dict[str, Any]]:
    """Corners of the search that differ in more than the recipes of stages, which decide how they train.

    The dense training is no such stage: what it leaves may decide which groups are pruned.
    """
    found: dict[str, dict[str, Any]] = {}
    for point in space.corners(cell):
        config = space.corner_config(cell, point)
        heads = {path: path.partition(".")[0] for path in point}
        rest = {
            path: value
            for path, value in point.items()
            if heads[path] == "pretrain" or not isinstance(getattr(config, heads[path], None), OpenRecipe)
        }
        found.setdefault(repr(rest), point)
    return list(found.values())


def _moved(
    points: list[dict[str, Any]], planned: list[dict[StageLevel, PlannedDensity | None]]
) -> tuple[StageLevel, list[str]] | None:
    """A stage and level whose density differs between two points, and in which hyperparameters these two differ."""
    best: tuple[StageLevel, list[str]] | None = None
    for (one, ours), (other, theirs) in itertools.combinations(zip(points, planned, strict=True), 2):
        for place in _differing(ours, theirs):
            fields = [path for path in {**one, **other} if one.get(path) != other.get(path)]
            if best is None or len(fields) < len(best[1]):
                best = place, fields
            break
    return best


def _differing(
    ours: Mapping[StageLevel, PlannedDensity | None], theirs: Mapping[StageLevel, PlannedDensity | None]
) -> Iterator[StageLevel]:
    for place, mine in ours.items():
        other = theirs.get(place)
        if mine is not None and other is not None and mine.key != other.key:
            yield place
