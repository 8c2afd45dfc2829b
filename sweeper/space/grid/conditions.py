"""Conditions (``when:``): a hyperparameter is searched, a path of the grid is there, or a case holds, only where others
have certain values."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from sweeper.space.values import Scalar, scalars
from trials.errors import UserError, shown

When = tuple[tuple[str, tuple[Scalar, ...]], ...]
"""Dotted paths and the values of which each must have one."""


def read_when(content: object, where: str) -> When:
    """``{pattern: filter}``, or ``{pattern: [filter, channel], score: magnitude}``."""
    if not isinstance(content, Mapping) or not content:
        raise UserError(
            f"{where} is {shown(content)}, but must be a mapping of paths to values, as {{pattern: filter}}"
        )
    found = []
    for path, values in content.items():
        several = values if isinstance(values, (list, tuple)) else [values]
        found.append((str(path), scalars(several, f"{where}.{path}")))
    return tuple(found)


def document(when: When) -> dict[str, Any]:
    """As a space file says it."""
    return {path: values[0] if len(values) == 1 else list(values) for path, values in when}


def describe(when: When) -> str:
    """As a person reads it."""
    return " and ".join(f"{path} is {' or '.join(map(str, values))}" for path, values in when)


def holds(when: When, values: Mapping[str, Any]) -> bool:
    """Whether every path has one of its values; a path without a value, a parameter that is not searched, has none."""
    return all(path in values and values[path] in allowed for path, allowed in when)


class Conditional(Protocol):
    """What may have a condition."""

    @property
    def when(self) -> When: ...


def in_order(entries: Mapping[str, Conditional], where: str) -> list[str]:
    """The paths of a search or a grid, each after those that it depends on, otherwise in the order given."""
    ordered: list[str] = []
    left = list(entries)
    while left:
        for path in left:
            if not any(other in left for other, _ in entries[path].when):
                break
        else:
            raise UserError(f"{where}.{left[0]}.when goes in a circle: {', '.join(left)} depend on each other")
        ordered.append(path)
        left.remove(path)
    return ordered


def active(search: Mapping[str, Conditional], params: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """Those of ``params`` whose conditions hold; ``given`` are the cell's values.

    ``search`` is in an order of :func:`in_order`.
    """
    found: dict[str, Any] = {}
    for path, distribution in search.items():
        if path in params and holds(distribution.when, {**given, **found}):
            found[path] = params[path]
    return found
