"""Conditions (``when:``): a hyperparameter is searched, a path of the grid is there, or a case holds, only where others
have certain values."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Protocol

from sweeper.values import Scalar, scalars, shown
from trials.errors import UserError

if TYPE_CHECKING:
    from sweeper.cases import Case
    from sweeper.cells import Axis
    from sweeper.distributions import Distribution

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


def told(when: When) -> str:
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


def check_conditions(
    search: Mapping[str, Distribution], grid: Mapping[str, Axis], cases: Mapping[str, Case] | None = None
) -> None:
    """Refuse conditions that speak of nothing, or can never hold. A method that the grid lacks is no mistake: a space
    may be run with fewer methods than it knows.

    Raises:
        UserError: the path and the value.
    """
    for path, distribution in search.items():
        for other, values in distribution.when:
            where = f"search.{path}.when.{other}"
            if other not in search and other not in grid:
                raise UserError(f"{where} is neither searched nor in the grid, but a condition is about one that is")
            known = search[other].contains if other in search else grid[other].contains
            for value in values:
                if not known(value) and not _is_method(other, value):
                    raise UserError(f"{where} is {shown(value)}, but {other} never has that value: remove it")
    for section, entries in (("grid", grid), ("cases", cases or {})):
        for name, entry in entries.items():
            _check_of_cell(entry.when, grid, f"{section}.{name}.when")


def _check_of_cell(when: When, grid: Mapping[str, Axis], where: str) -> None:
    for other, values in when:
        if other not in grid:
            raise UserError(f"{where}.{other} is not in the grid, but a cell has nothing else to tell it by")
        for value in values:
            if not grid[other].contains(value) and not _is_method(other, value):
                raise UserError(f"{where}.{other} is {shown(value)}, but {other} never has that value: remove it")


def _is_method(path: str, value: Scalar) -> bool:
    if path != "method":
        return False
    from trials.methods import METHODS  # and torch with them: not for a report of what says nothing of methods

    return value in METHODS


def active(search: Mapping[str, Distribution], params: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """Those of ``params`` whose conditions hold; ``given`` are the cell's values.

    ``search`` is in an order of :func:`in_order`.
    """
    found: dict[str, Any] = {}
    for path, distribution in search.items():
        if path in params and holds(distribution.when, {**given, **found}):
            found[path] = params[path]
    return found
