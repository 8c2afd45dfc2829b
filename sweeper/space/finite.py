"""The points of a search that has few enough of them to be counted: choices, integers, and the grid of its sampler."""

from __future__ import annotations

import itertools
import math
from collections.abc import Hashable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from sweeper.space.distributions import Choice, Distribution, Int
from sweeper.space.grid import conditions
from sweeper.space.grid.cells import Cell
from sweeper.space.options.samplers import Grid
from sweeper.space.space import Space
from sweeper.space.values import Scalar

MOST_POINTS = 10_000
"""A search of more points than this counts as one that is never used up."""

PointKey = frozenset[tuple[str, bool, Hashable]]


def key_of(params: Mapping[str, Any]) -> PointKey:
    """Return what equal points share: 1 and 1.0 are equal, 1 and true are not."""
    return frozenset((path, isinstance(value, bool), value) for path, value in params.items())


@dataclass(frozen=True)
class FinitePoints:
    """The points of a cell's search.

    Attributes:
        search: distributions by path, each after those that its condition depends on.
        values: by path, those that each may have.
        given: the cell's grid values.
    """

    search: Mapping[str, Distribution]
    values: Mapping[str, tuple[Scalar, ...]]
    given: Mapping[str, Scalar]

    def __iter__(self) -> Iterator[dict[str, Any]]:
        """Yield every point once."""
        found: dict[PointKey, dict[str, Any]] = {}
        for combination in itertools.product(*self.values.values()):
            point = conditions.active(self.search, dict(zip(self.values, combination, strict=True)), self.given)
            found.setdefault(key_of(point), point)
        return iter(found.values())

    @cached_property
    def count(self) -> int:
        """Number of different points."""
        if any(distribution.conditional for distribution in self.search.values()):
            return sum(1 for _ in self)
        return math.prod(map(len, self.values.values()))

    def __contains__(self, params: Mapping[str, Any]) -> bool:
        """Whether a point of the search is one of these; it is not if it lies beside the grid of a range."""
        return all(path in self.values and value in self.values[path] for path, value in params.items())


def finite_points(space: Space, cell: Cell) -> FinitePoints | None:
    """Return the points of a cell's search; None if it has ranges of numbers, or more than ``MOST_POINTS``.

    A cell in which no condition of the search holds has one point.
    """
    search = _possible(space.search_in(cell.values), cell.values)
    values = {path: _values(distribution, space) for path, distribution in search.items()}
    if not space.search or math.prod(map(len, values.values())) not in range(1, MOST_POINTS + 1):
        return None
    return FinitePoints(search, values, cell.values)


def _possible(search: Mapping[str, Distribution], given: Mapping[str, Scalar]) -> dict[str, Distribution]:
    """The part of a cell's search whose conditions can hold; each path comes after those that it depends on."""
    found: dict[str, Distribution] = {}
    for path, distribution in search.items():
        if all(_may_hold(condition, found.get(other), given, other) for other, condition in distribution.when):
            found[path] = distribution
    return found


def _may_hold(
    condition: conditions.Condition, searched: Distribution | None, given: Mapping[str, Scalar], path: str
) -> bool:
    if path in given:
        return condition.holds(given[path])
    return searched is not None and any(map(condition.holds, searched.branches([condition])))


def _values(distribution: Distribution, space: Space) -> tuple[Scalar, ...]:
    """The values of one hyperparameter; none if it is a range of numbers."""
    if isinstance(space.sampler, Grid):
        return distribution.points(space.sampler.points)
    return distribution.points(MOST_POINTS + 1) if isinstance(distribution, (Choice, Int)) else ()
