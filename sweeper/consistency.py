"""Do the sections of a space agree with each other, and with what its trials are?"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from sweeper.conditions import check_conditions, holds
from sweeper.distributions import Distribution, corners
from sweeper.objectives import EVERY_EPOCH, require_reported
from sweeper.pbt import refuse_beside_pbt
from sweeper.pruners import check_stoppable, stoppable_epochs
from sweeper.samplers import Question
from sweeper.values import mapping, shown
from trials.config import TrialConfig
from trials.errors import UserError, unknown_name

if TYPE_CHECKING:
    from sweeper.space import Cell, Space


def question_of(space: Space) -> Question:
    """What the space's sampler is asked."""
    return Question(space.search, space.samples, len(space.objectives), len(space.constraints), space.enqueue)


def check_sections(space: Space) -> None:
    """Refuse what contradicts itself before any trial is looked at.

    Raises:
        UserError: the two that do not agree, and the way out.
    """
    if space.pbt is not None:
        refuse_beside_pbt(space)
    if not space.search and space.samples != 1:
        raise UserError(f"samples is {space.samples}, but must be 1 where search is empty: every sample would be equal")
    _check_paths(space)
    check_conditions(space.search, space.grid, space.cases)
    for i, point in enumerate(space.enqueue):
        _check_point(space.search, point, f"enqueue[{i}]")
    if len(space.enqueue) > space.samples:
        raise UserError(f"enqueue has {len(space.enqueue)} points, but samples is {space.samples}: set it to more")
    if space.search:
        space.sampler.check(question_of(space))
    if space.pruner:
        _check_judged(space, space.pruner.name)
    if space.from_sweep and not space.search:
        raise UserError(f"from_sweep is {space.from_sweep.sweep!r}, but search is empty: it could teach nothing")


def _check_judged(space: Space, pruner: str) -> None:
    if not space.search:
        raise UserError(f"pruner is {pruner!r}, but search is empty: in a cell there is nothing to compare")
    if len(space.objectives) > 1:
        count = len(space.objectives)
        raise UserError(f"pruner is {pruner!r}, but there are {count} objectives: have one, or no pruner")
    if space.objective not in EVERY_EPOCH:
        columns = ", ".join(sorted(EVERY_EPOCH))
        raise UserError(
            f"pruner is {pruner!r}, but {space.objective} is not known after every epoch: use one of {columns}"
        )


def _check_paths(space: Space) -> None:
    for path in space.search:
        if path in space.grid:
            raise UserError(f"{path} is both in grid and in search, but must be in one of them: remove the other")
    paths = {*space.grid, *space.search}
    for path in sorted(paths):
        parts = path.split(".")
        for outer in (".".join(parts[:i]) for i in range(1, len(parts))):
            if outer in paths:
                raise UserError(f"{path} lies inside {outer}, but grid and search must set either: remove one")


def read_points(content: object) -> tuple[dict[str, Any], ...]:
    """The points of ``enqueue``; each a mapping of searched paths to values."""
    if content is None:
        return ()
    if not isinstance(content, (list, tuple)):
        raise UserError(f"enqueue is {shown(content)}, but must be a list of points such as {{prune.lr: 0.1}}")
    return tuple(dict(mapping(point, f"enqueue[{i}]")) for i, point in enumerate(content))


def _check_point(search: Mapping[str, Distribution], point: Mapping[str, Any], where: str) -> None:
    if not point:
        raise UserError(f"{where} is {{}}, but must say something: remove it")
    for path, value in point.items():
        if path not in search:
            raise UserError(unknown_name(f"{where}: path", path, search))
        if not search[path].contains(value):
            raise UserError(f"{where}.{path} is {shown(value)}, but is searched as {search[path]}: give one of these")
        decided = tuple((other, values) for other, values in search[path].when if other in point)
        if not holds(decided, point):
            raise UserError(f"{where} has {path}, but that is searched {search[path]}: remove it there")


def longest(space: Space, cell: Cell) -> int:
    """The most epochs in which a trial of the cell may be stopped."""
    return max(stoppable_epochs(space.config(cell, params)) for params in corners(space.search, cell.values))


def check_trial(space: Space, config: TrialConfig) -> None:
    """Refuse objectives and bounds that this trial cannot be measured by."""
    for i, objective in enumerate(space.objectives):
        where = "objective" if len(space.objectives) == 1 else f"objectives[{i}].column"
        require_reported(config, objective.column, where)
    content = config.model_dump(mode="json") if space.constraints else {}
    for i, constraint in enumerate(space.constraints):
        require_reported(config, constraint.column, f"constraints[{i}].column")
        constraint.limit(content, f"constraints[{i}].{constraint.kind}")
    if space.pruner:
        check_stoppable(space.pruner, config, space.samples)
