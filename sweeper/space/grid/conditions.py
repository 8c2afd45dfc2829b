"""Conditions (``when:``): a hyperparameter, a grid path or a case applies only where other paths have given values."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from sweeper.space.values import Scalar, scalars
from trials.errors import UserError, shown

When = tuple[tuple[str, tuple[Scalar, ...]], ...]
"""Pairs of a dotted path and its allowed values; all pairs must hold."""


def read_when(content: object, where: str) -> When:
    """Parse a condition such as ``{pattern: filter}`` or ``{pattern: [filter, channel], score: magnitude}``.

    Args:
        where: the field's path, for messages.

    Raises:
        UserError: it is no such mapping.
    """
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
    """Return the condition in the form of a space file."""
    return {path: values[0] if len(values) == 1 else list(values) for path, values in when}


def describe(when: When) -> str:
    """Return the condition as text for messages."""
    return " and ".join(f"{path} is {' or '.join(map(str, values))}" for path, values in when)


def holds(when: When, values: Mapping[str, Any]) -> bool:
    """Whether every path has one of its allowed values; false if a path is missing from ``values``."""
    return all(path in values and values[path] in allowed for path, allowed in when)


class Conditional(Protocol):
    """An entry that may have a condition."""

    @property
    def when(self) -> When: ...


def in_order(entries: Mapping[str, Conditional], where: str) -> list[str]:
    """Return the paths of a search or grid, each after those it depends on, otherwise in the given order.

    Raises:
        UserError: conditions form a cycle.
    """
    ordered: list[str] = []
    left = list(entries)
    while left:
        for path in left:
            if not any(other in left for other, _ in entries[path].when):
                break
        else:
            raise UserError(f"{where}.{left[0]}.when is circular: {', '.join(left)} depend on each other")
        ordered.append(path)
        left.remove(path)
    return ordered


def active(search: Mapping[str, Conditional], params: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """Return those of ``params`` whose conditions hold.

    Args:
        search: distributions in an order of :func:`in_order`.
        given: the cell's grid values.
    """
    found: dict[str, Any] = {}
    for path, distribution in search.items():
        if path in params and holds(distribution.when, {**given, **found}):
            found[path] = params[path]
    return found
