"""Points of the search to try first in every cell (``enqueue:``)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sweeper.space.distributions import Distribution
from sweeper.space.grid.conditions import holds
from sweeper.space.values import mapping
from trials.errors import UserError, shown, unknown_name


def read_points(content: object) -> tuple[dict[str, Any], ...]:
    """Parse the points of ``enqueue``, mappings of searched paths to values.

    Raises:
        UserError: it is no list of mappings.
    """
    if content is None:
        return ()
    if not isinstance(content, (list, tuple)):
        raise UserError(f"enqueue is {shown(content)}, but must be a list of points such as {{prune.lr: 0.1}}")
    return tuple(dict(mapping(point, f"enqueue[{i}]")) for i, point in enumerate(content))


def check_point(search: Mapping[str, Distribution], point: Mapping[str, Any], where: str) -> None:
    if not point:
        raise UserError(f"{where} is {{}}, but must set a path: remove it")
    for path, value in point.items():
        if path not in search:
            raise UserError(unknown_name(f"{where}: path", path, search))
        if not search[path].contains(value):
            raise UserError(f"{where}.{path} is {shown(value)}, but is searched as {search[path]}: give one of these")
        decided = tuple((other, condition) for other, condition in search[path].when if other in point)
        if not holds(decided, point):
            raise UserError(f"{where} has {path}, but its condition does not hold there ({search[path]}): remove it")
