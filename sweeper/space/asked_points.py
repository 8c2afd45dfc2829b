"""Which points a cell's search has been asked for, and which are left: no point should use up two samples."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sweeper.space.finite import PointKey, finite_points, key_of
from sweeper.space.grid.cells import Cell
from sweeper.space.space import Space

REPEATS = 5
"""How often a finite search is asked again, unless the space says it, before one of the points left is drawn."""


class AskedPoints:
    """The points that a cell has asked for so far (``ask_again``).

    Attributes:
        tries: how often a suggestion that repeats one of them is replaced; 0 accepts it.
    """

    def __init__(self, space: Space, cell: Cell) -> None:
        self._points = finite_points(space, cell) if space.ask_again != 0 else None
        self._asked: set[PointKey] = set()
        self._used = 0  # number of different points asked for that count among _points
        self.tries = space.ask_again if space.ask_again is not None else REPEATS if self._points is not None else 0

    def add(self, params: Mapping[str, Any]) -> None:
        """Note that a point has been asked for; not needed where repeats are accepted."""
        key = key_of(params)
        if self.tries and key not in self._asked:
            self._asked.add(key)
            self._used += self._points is not None and params in self._points

    def __contains__(self, params: Mapping[str, Any]) -> bool:
        return key_of(params) in self._asked

    @property
    def left(self) -> int | None:
        """Number of points that have not been asked for; None if they are not counted."""
        return None if self._points is None else self._points.count - self._used

    def unasked(self, like: Mapping[str, Any] | None = None) -> list[dict[str, Any]]:
        """Return the points that are left; those that have the values of ``like`` if there are any, otherwise all."""
        points = [point for point in self._points or () if point not in self]
        same = [point for point in points if like and all(point.get(path) == value for path, value in like.items())]
        return same or points
