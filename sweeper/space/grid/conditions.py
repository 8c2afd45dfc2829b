"""Conditions (``when:``): a hyperparameter, a grid path or a case applies only where other paths have given values."""

from __future__ import annotations

import numbers
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from sweeper.space.values import Scalar, finite_number, scalars
from trials.errors import UserError, shown, unknown_name


@dataclass(frozen=True)
class Equal:
    """A value or a list, as ``{pattern: [filter, channel]}``: the path has one of these values."""

    values: tuple[Scalar, ...]

    @property
    def numbers(self) -> tuple[float, ...]:
        """Numbers at which the condition begins or ceases to hold."""
        return _numbers_in(self.values)

    def holds(self, value: Any) -> bool:
        """Whether a path with this value meets the condition."""
        return value in self.values

    def document(self) -> Any:
        """Return the condition in the form of a space file."""
        return _one_or_list(self.values)

    def __str__(self) -> str:
        return " or ".join(map(str, self.values))


@dataclass(frozen=True)
class Within:
    """A mapping, as ``{density: {below: 0.1}}`` or ``{pattern: {not: filter}}``: the path has a number within
    bounds, or a value that is not excluded. A path that a cell or point lacks meets no condition.

    Attributes:
        at_least, above: lower bound, included or not; None if there is none.
        at_most, below: upper bound, included or not.
        excluded: values for which it does not hold (``not``).
    """

    at_least: float | None = None
    above: float | None = None
    at_most: float | None = None
    below: float | None = None
    excluded: tuple[Scalar, ...] = ()

    @property
    def bounds(self) -> tuple[float, ...]:
        """The bounds that it has."""
        given = (self.at_least, self.above, self.at_most, self.below)
        return tuple(bound for bound in given if bound is not None)

    @property
    def numbers(self) -> tuple[float, ...]:
        """Numbers at which the condition begins or ceases to hold."""
        return (*self.bounds, *_numbers_in(self.excluded))

    def holds(self, value: Any) -> bool:
        """Whether a path with this value meets the condition. What is no number lies within no bounds."""
        if value in self.excluded:
            return False
        if not self.bounds:
            return True
        if not isinstance(value, numbers.Real) or isinstance(value, bool):
            return False
        number = float(value)
        return (
            (self.at_least is None or number >= self.at_least)
            and (self.above is None or number > self.above)
            and (self.at_most is None or number <= self.at_most)
            and (self.below is None or number < self.below)
        )

    def document(self) -> dict[str, Any]:
        """Return the condition in the form of a space file."""
        found: dict[str, Any] = {key: bound for key in _BOUNDS if (bound := getattr(self, key)) is not None}
        if self.at_least is not None and self.at_most is not None:
            found = {"between": [self.at_least, self.at_most]}
        return {**found, **({"not": _one_or_list(self.excluded)} if self.excluded else {})}

    def __str__(self) -> str:
        said = [f"{key.replace('_', ' ')} {bound}" for key in _BOUNDS if (bound := getattr(self, key)) is not None]
        excluded = [f"not {' or '.join(map(str, self.excluded))}"] if self.excluded else []
        return " and ".join([*said, *excluded])


Condition = Equal | Within

When = tuple[tuple[str, Condition], ...]
"""Pairs of a dotted path and the condition on its value; all pairs must hold."""

_BOUNDS = ("at_least", "above", "at_most", "below")

CONDITION_KEYS = {
    "at_least": "a number, and all above it.",
    "at_most": "a number, and all below it.",
    "above": "all above a number.",
    "below": "all below a number.",
    "between": "[low, high]: both numbers, and all between them.",
    "not": "a value, or a list of values, for which it does not hold.",
}
"""Keys of a condition that is a mapping, and what they mean; all that are given must hold."""


def _one_or_list(values: tuple[Scalar, ...]) -> Any:
    return values[0] if len(values) == 1 else list(values)


def _numbers_in(values: Iterable[Scalar]) -> tuple[float, ...]:
    return tuple(value for value in values if isinstance(value, (int, float)) and not isinstance(value, bool))


def read_when(content: object, where: str) -> When:
    """Parse conditions such as ``{pattern: filter}`` or ``{pattern: [filter, channel], density: {below: 0.1}}``.

    Args:
        where: the field's path, for messages.

    Raises:
        UserError: it is no such mapping.
    """
    if not isinstance(content, Mapping) or not content:
        raise UserError(
            f"{where} is {shown(content)}, but must be a mapping of paths to values, as {{pattern: filter}}"
        )
    return tuple((str(path), _read_condition(said, f"{where}.{path}")) for path, said in content.items())


def _read_condition(content: object, where: str) -> Condition:
    if not isinstance(content, Mapping):
        return Equal(_several(content, where))
    if not content:
        raise UserError(f"{where} is {{}}, but must be a value, a list, or a mapping such as {{at_least: 5}}")
    for key in content:
        if key not in CONDITION_KEYS:
            raise UserError(unknown_name(f"{where}: key", key, CONDITION_KEYS))
    bounds = {key: _bound(content[key], f"{where}.{key}") for key in _BOUNDS if key in content}
    if "between" in content:
        if bounds:
            raise UserError(
                f"{where} has between and {next(iter(bounds))}, but must have one of them: remove the other"
            )
        bounds = _between(content["between"], f"{where}.between")
    lower, upper = ([key for key in keys if key in bounds] for keys in (_BOUNDS[:2], _BOUNDS[2:]))
    for several in (lower, upper):
        if len(several) > 1:
            raise UserError(f"{where} has {' and '.join(several)}, but must have one of them: remove the other")
    if lower and upper and not bounds[lower[0]] < bounds[upper[0]]:
        raise UserError(
            f"{where} is {shown(dict(content))}, but {lower[0]} must be less than {upper[0]}; for a single "
            "value, give just the value"
        )
    excluded = _several(content["not"], f"{where}.not") if "not" in content else ()
    return Within(**bounds, excluded=excluded)


def _several(content: object, where: str) -> tuple[Scalar, ...]:
    return scalars(content if isinstance(content, (list, tuple)) else [content], where)


def _bound(content: Any, where: str) -> float:
    if finite_number(content) is None:
        raise UserError(
            f"{where} is {shown(content)}, but must be a number; of text, say {{not: TEXT}}, or list values"
        )
    return content  # type: ignore[no-any-return]  # as it is written, an integer or not


def _between(content: object, where: str) -> dict[str, float]:
    if not isinstance(content, (list, tuple)) or len(content) != 2:
        raise UserError(f"{where} is {shown(content)}, but must be [low, high]: two numbers, both included")
    low, high = (_bound(bound, f"{where}[{i}]") for i, bound in enumerate(content))
    if not low < high:
        raise UserError(f"{where} is {shown(content)}, but low must be less than high")
    return {"at_least": low, "at_most": high}


def document(when: When) -> dict[str, Any]:
    """Return the conditions in the form of a space file."""
    return {path: condition.document() for path, condition in when}


def describe(when: When) -> str:
    """Return the conditions as text for messages."""
    return " and ".join(f"{path} is {condition}" for path, condition in when)


def holds(when: When, values: Mapping[str, Any]) -> bool:
    """Whether every path has a value that meets its condition; false if a path is missing from ``values``."""
    return all(path in values and condition.holds(values[path]) for path, condition in when)


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


def asked_of(entries: Mapping[str, Conditional]) -> dict[str, list[Condition]]:
    """Return, by path, the conditions that entries put on its value."""
    found: dict[str, list[Condition]] = {}
    for entry in entries.values():
        for other, condition in entry.when:
            found.setdefault(other, []).append(condition)
    return found


def required(entries: Mapping[str, Conditional], path: str) -> dict[str, list[Condition]]:
    """Return, by path, what must hold for ``path`` to apply: its conditions, and those of the paths that these name."""
    found: dict[str, list[Condition]] = {}
    left = [path]
    for name in left:
        for other, condition in entries[name].when if name in entries else ():
            found.setdefault(other, []).append(condition)
            if other not in left:
                left.append(other)
    return found


def values_for(
    entries: Mapping[str, Conditional], path: str, options: Mapping[str, Sequence[Scalar]]
) -> dict[str, Scalar]:
    """Return values of other paths, each the first of its ``options`` that meets all that ``path`` requires of it."""
    found: dict[str, Scalar] = {}
    for other, needed in required(entries, path).items():
        meeting = [value for value in options.get(other, ()) if all(one.holds(value) for one in needed)]
        if meeting:
            found[other] = meeting[0]
    return found
