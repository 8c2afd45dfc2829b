"""The steps at which a pruner compares the trials of a cell: equal shares of each stage and level.

Optuna's pruners count whole steps, and two values of one step must be comparable. Where a search changes the number of
epochs of a stage, its trials reach a given share of it after different numbers of epochs. So a stage of a level has m
steps, m the greatest common divisor of all numbers of epochs that it may have: every trial reaches each multiple of 1/m
after a whole epoch, and nothing is reported in between. Where the search leaves the epochs alone, a step is an epoch.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from optuna.distributions import CategoricalDistribution, IntDistribution

from sweeper.space.distributions import Distribution
from sweeper.space.grid import conditions
from sweeper.space.grid.cells import Cell
from sweeper.space.space import Space
from trials.config.trial_config import TrialConfig
from trials.errors import UserError
from trials.methods.registry import METHODS

MOST_EPOCH_COUNTS = 256
"""Up to this many values, or combinations of values, that change a stage's epochs are looked at; beyond, m is 1."""

StageLevel = tuple[str, int]
"""A stage's name, and its level: a round of an iterative method, otherwise 0."""

Spans = Mapping[StageLevel, "EpochSpan"]
"""The stoppable stages of a trial in their order, each with its epochs."""


@dataclass(frozen=True)
class EpochSpan:
    """The epochs of a trial's stage: ``count`` of them after epoch ``first``, which is above 0 where it rewinds."""

    first: int
    count: int


def epoch_spans(config: TrialConfig) -> dict[StageLevel, EpochSpan]:
    """The stages in which a trial of this config may be stopped, in order. One that decides itself when to end has no
    shares, and is left out."""
    method = METHODS[config.method](config)
    stages = [stage for stage in method.stages() if stage.name in method.stoppable]
    return {(s.name, s.level): EpochSpan(s.first_epoch, s.planned_epochs) for s in stages if s.planned_epochs > 0}


@dataclass(frozen=True)
class PrunerSteps:
    """The steps of a cell's trials, counted from 1 over all stages and levels.

    Attributes:
        counts: number of steps of each stage and level, in the order in which trials pass through them.
        usual: of the stages and levels whose epochs no hyperparameter changes, these epochs.
        fields: the hyperparameters that change the epochs of a stage.
    """

    counts: Mapping[StageLevel, int]
    usual: Spans
    fields: tuple[str, ...] = ()
    _before: dict[StageLevel, int] = field(default_factory=dict, repr=False, compare=False)

    def __post_init__(self) -> None:
        for place, total in zip(self.counts, itertools.accumulate(self.counts.values(), initial=0), strict=False):
            self._before[place] = total

    @property
    def total(self) -> int:
        """Number of steps of a trial that has every stage and level."""
        return sum(self.counts.values())

    @property
    def varies(self) -> bool:
        """Whether trials have different numbers of epochs in some stage and level."""
        return self.usual.keys() != self.counts.keys()

    def step(self, place: StageLevel, epoch: int, span: EpochSpan | None = None) -> int | None:
        """The step that a trial reaches with this epoch of a stage and level; None if it is between two steps.

        Args:
            span: the trial's own epochs there; needed only where trials differ in them.
        """
        span, count = span or self.usual.get(place), self.counts.get(place)
        if span is None or count is None or not 0 < epoch - span.first <= span.count:
            return None
        reached, rest = divmod((epoch - span.first) * count, span.count)
        return None if rest else self._before[place] + reached

    def place(self, step: int) -> StageLevel | None:
        """The stage and level of a step."""
        found = [place for place, before in self._before.items() if before < step <= before + self.counts[place]]
        return found[0] if found else None

    def last(self, own: Iterable[StageLevel]) -> int:
        """The last step of a trial that passes through these stages and levels."""
        return max((self._before[place] + self.counts[place] for place in own if place in self.counts), default=0)

    def of(self, own: Iterable[StageLevel]) -> int:
        """Number of steps of a trial that passes through these stages and levels."""
        return sum(self.counts.get(place, 0) for place in own)


def pruner_steps(space: Space, cell: Cell) -> PrunerSteps:
    """The steps of a cell's trials.

    Raises:
        UserError: the search reverses the order of two stages, so that steps have none.
    """
    points = space.corners(cell)
    found = [epoch_spans(space.corner_config(cell, point)) for point in points]
    order = _merged(found)
    several = {place: {own[place] for own in found if place in own} for place in order}
    usual = {place: next(iter(values)) for place, values in several.items() if len(values) == 1}
    fields: tuple[str, ...] = ()
    counts = {place: math.gcd(*(one.count for one in values)) for place, values in several.items()}
    if len(usual) < len(order):
        search = space.search_in(cell.values)
        fields = _that_change_epochs(space, cell, search, points)
        every = _all_lengths(space, cell, search, fields, points)
        for place in order:
            if place not in usual:
                counts[place] = 1 if every is None else math.gcd(counts[place], *(own.get(place, 0) for own in every))
    return PrunerSteps(counts, usual, fields)


def _merged(found: Iterable[Mapping[StageLevel, EpochSpan]]) -> list[StageLevel]:
    """All stages and levels, each after those that some trial has before it."""
    chains = list(dict.fromkeys(sorted(map(tuple, found), key=len, reverse=True)))
    after: dict[StageLevel, set[StageLevel]] = {}
    for chain in chains:
        for i, place in enumerate(chain):
            after.setdefault(place, set()).update(chain[max(i - 1, 0) : i])
    order: list[StageLevel] = []
    while len(order) < len(after):
        free = [place for place, earlier in after.items() if place not in order and earlier <= set(order)]
        if not free:
            names = ", ".join(sorted({name for name, _ in after if (name, _) not in order}))
            raise UserError(
                f"the search changes the order of the stages {names}, so a pruner has no steps at which its trials are "
                "comparable: put what changes it into grid, or remove pruner"
            )
        order.append(free[0])
    return order


def _that_change_epochs(
    space: Space, cell: Cell, search: Mapping[str, Distribution], points: Iterable[dict[str, Any]]
) -> tuple[str, ...]:
    """The hyperparameters that change the epochs of some stage, at the corners of the search."""
    found: dict[str, None] = {}
    for point in points:
        here = epoch_spans(space.corner_config(cell, point))
        for path in (path for path in point if path not in found):
            for value in search[path].edges():
                other = conditions.active(search, {**_filled(search), **point, path: value}, cell.values)
                if value != point[path] and _lengths(space, cell, other) not in (None, here):
                    found[path] = None
                    break
    return tuple(path for path in search if path in found)


def _filled(search: Mapping[str, Distribution]) -> dict[str, Any]:
    return {path: distribution.edges()[0] for path, distribution in search.items()}


def _lengths(space: Space, cell: Cell, point: Mapping[str, Any]) -> dict[StageLevel, EpochSpan] | None:
    try:
        return epoch_spans(space.corner_config(cell, point))
    except UserError:  # a combination that no corner has
        return None


def _all_lengths(
    space: Space, cell: Cell, search: Mapping[str, Distribution], fields: Iterable[str], points: list[dict[str, Any]]
) -> list[dict[StageLevel, int]] | None:
    """Numbers of epochs by stage and level for all values of some hyperparameters; None if these are too many."""
    values = {path: every_value(search[path]) for path in fields}
    if any(v is None for v in values.values()) or math.prod(len(v) for v in values.values() if v) > MOST_EPOCH_COUNTS:
        return None
    found = []
    for base in _bases(points, values):
        for chosen in itertools.product(*(v for v in values.values() if v)):
            point = {**base, **dict(zip(values, chosen, strict=True))}
            own = _lengths(space, cell, conditions.active(search, point, cell.values))
            found += [] if own is None else [{place: span.count for place, span in own.items()}]
    return found


def _bases(points: list[dict[str, Any]], values: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Points that differ in which hyperparameters they have at all; what else they hold changes no epochs."""
    seen = set()
    for point in points:
        rest = frozenset(point.keys() - values.keys())
        if rest not in seen:
            seen.add(rest)
            yield point


def every_value(distribution: Distribution) -> tuple[Any, ...] | None:
    """All values of a distribution; None if it has more than ``MOST_EPOCH_COUNTS``, or all between two numbers."""
    found = distribution.points(MOST_EPOCH_COUNTS + 1)
    if len(found) > MOST_EPOCH_COUNTS:
        return None
    if not isinstance(distribution.optuna_distribution(), (IntDistribution, CategoricalDistribution)):
        return None
    whole = [value for value in found if isinstance(value, int) and not isinstance(value, bool)]
    if len(whole) == len(found) and isinstance(distribution.optuna_distribution(), IntDistribution):
        low, high = min(whole), max(whole)
        if high - low > 100 * MOST_EPOCH_COUNTS or sum(map(distribution.contains, range(low, high + 1))) > len(found):
            return None
    return found
