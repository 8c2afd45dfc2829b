"""Distributions of searched hyperparameters: parsed from a space, checked, and converted to Optuna's."""

from __future__ import annotations

import itertools
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution

from sweeper.space.grid import conditions
from sweeper.space.grid.conditions import When
from sweeper.space.values import Scalar, scalars
from trials.errors import UserError, shown, unknown_name

MOST_CORNERS = 64
"""Up to this many combinations of bounds and choices all are checked; beyond, one hyperparameter varies at a time."""


@dataclass(frozen=True)
class Distribution(ABC):
    """The values of one hyperparameter, and the condition under which it is searched."""

    when: When = field(default=(), kw_only=True)

    @abstractmethod
    def suggest(self, trial: optuna.Trial, name: str) -> Scalar:
        """Return a value for ``name``, suggested by the study of ``trial``."""

    @abstractmethod
    def optuna_distribution(self) -> BaseDistribution:
        """Return the same distribution as an Optuna object, for adding known trials to a study."""

    @property
    def conditional(self) -> bool:
        """Whether cells or points may lack the hyperparameter."""
        return bool(self.when)

    @abstractmethod
    def edges(self) -> tuple[Scalar, ...]:
        """Return the values on which configs are checked: both bounds, or every choice."""

    @abstractmethod
    def points(self, most: int) -> tuple[Scalar, ...]:
        """Return at most ``most`` evenly spaced values of a range, bounds included, or every choice."""

    def contains(self, value: object) -> bool:
        """Whether ``value`` is one of the values and of their type; integers count as numbers, booleans do not."""
        if not _is_number(value):
            return False
        low, high = self.edges()
        return bool(low <= value <= high)  # type: ignore[operator]  # numbers

    @abstractmethod
    def _own_document(self) -> dict[str, Any]:
        """:meth:`document` without the condition."""

    def document(self) -> Any:
        """Return the distribution in the form of a space file."""
        return {**self._own_document(), **({"when": conditions.document(self.when)} if self.when else {})}

    @abstractmethod
    def _describe(self) -> str:
        """:meth:`__str__` without the condition."""

    def __str__(self) -> str:
        """Return a description for messages."""
        return self._describe() + (f", when {conditions.describe(self.when)}" if self.when else "")


@dataclass(frozen=True)
class Uniform(Distribution):
    """``{uniform: [low, high]}``, or ``{loguniform: [low, high]}``, which is uniform in the logarithm."""

    low: float
    high: float
    log: bool = False

    def suggest(self, trial: optuna.Trial, name: str) -> float:
        return trial.suggest_float(name, self.low, self.high, log=self.log)

    def optuna_distribution(self) -> FloatDistribution:
        return FloatDistribution(self.low, self.high, log=self.log)

    def edges(self) -> tuple[float, ...]:
        return (self.low, self.high)

    def points(self, most: int) -> tuple[float, ...]:
        if self.log:
            ratio = self.high / self.low
            inner = [self.low * ratio ** (i / (most - 1)) for i in range(1, most - 1)]
        else:
            inner = [self.low + (self.high - self.low) * i / (most - 1) for i in range(1, most - 1)]
        return (self.low, *inner, self.high)

    def _own_document(self) -> dict[str, Any]:
        return {"loguniform" if self.log else "uniform": [self.low, self.high]}

    def _describe(self) -> str:
        return f"{'loguniform' if self.log else 'uniform'} from {self.low} to {self.high}"


@dataclass(frozen=True)
class Int(Distribution):
    """``{int: [low, high]}``, bounds included; ``{int: [low, high], log: true}`` is uniform in the logarithm."""

    low: int
    high: int
    log: bool = False

    def suggest(self, trial: optuna.Trial, name: str) -> int:
        return trial.suggest_int(name, self.low, self.high, log=self.log)

    def optuna_distribution(self) -> IntDistribution:
        return IntDistribution(self.low, self.high, log=self.log)

    def edges(self) -> tuple[int, ...]:
        return (self.low, self.high)

    def points(self, most: int) -> tuple[int, ...]:
        if self.high - self.low < most:
            return tuple(range(self.low, self.high + 1))
        spread = Uniform(float(self.low), float(self.high), self.log).points(most)
        return tuple(dict.fromkeys(map(round, spread)))

    def contains(self, value: object) -> bool:
        return isinstance(value, int) and super().contains(value)

    def _own_document(self) -> dict[str, Any]:
        return {"int": [self.low, self.high], **({"log": True} if self.log else {})}

    def _describe(self) -> str:
        return f"{'loguniform' if self.log else 'uniform'} integers from {self.low} to {self.high}"


@dataclass(frozen=True)
class Choice(Distribution):
    """``{choice: [a, b, ...]}``: one of these values, without an order."""

    choices: tuple[Scalar, ...]

    def suggest(self, trial: optuna.Trial, name: str) -> Scalar:
        return trial.suggest_categorical(name, self.choices)

    def optuna_distribution(self) -> CategoricalDistribution:
        return CategoricalDistribution(self.choices)

    def edges(self) -> tuple[Scalar, ...]:
        return self.choices

    def points(self, most: int) -> tuple[Scalar, ...]:
        return self.choices

    def contains(self, value: object) -> bool:
        return any(value == choice and isinstance(value, bool) == isinstance(choice, bool) for choice in self.choices)

    def _own_document(self) -> dict[str, Any]:
        return {"choice": list(self.choices)}

    def _describe(self) -> str:
        return f"one of {', '.join(map(str, self.choices))}"


def _uniform(content: object, options: dict[str, Any], where: str) -> Uniform:
    _no_more(options, (), where)
    low, high = _bounds(content, f"{where}.uniform")
    return Uniform(float(low), float(high))


def _loguniform(content: object, options: dict[str, Any], where: str) -> Uniform:
    _no_more(options, (), where)
    low, high = _bounds(content, f"{where}.loguniform", above_zero=True)
    return Uniform(float(low), float(high), log=True)


def _int(content: object, options: dict[str, Any], where: str) -> Int:
    _no_more(options, ("log",), where)
    log = options.get("log", False)
    if not isinstance(log, bool):
        raise UserError(f"{where}.log is {shown(log)}, but must be true or false")
    low, high = _bounds(content, f"{where}.int", above_zero=log)
    if not isinstance(low, int) or not isinstance(high, int):
        raise UserError(f"{where}.int is {shown(content)}, but its bounds must be integers: use uniform otherwise")
    return Int(low, high, log)


def _choice(content: object, options: dict[str, Any], where: str) -> Choice:
    _no_more(options, (), where)
    return Choice(scalars(content, f"{where}.choice"))


DISTRIBUTION_KINDS: dict[str, Callable[[object, dict[str, Any], str], Distribution]] = {
    "uniform": _uniform,
    "loguniform": _loguniform,
    "int": _int,
    "choice": _choice,
}


def read_distribution(content: object, where: str) -> Distribution:
    """Parse a distribution from a mapping such as ``{loguniform: [1e-6, 1e-2]}``.

    Args:
        where: the field's path, for messages.

    Raises:
        UserError: it is no valid distribution.
    """
    if not isinstance(content, Mapping) or not content:
        raise UserError(f"{where} is {shown(content)}, but must be a mapping such as {{uniform: [0.1, 0.2]}}; "
                        f"there are {', '.join(DISTRIBUTION_KINDS)}")  # fmt: skip
    kinds = [key for key in content if key in DISTRIBUTION_KINDS]
    if not kinds:
        raise UserError(unknown_name(f"{where}: distribution", next(iter(content)), DISTRIBUTION_KINDS))
    if len(kinds) > 1:
        raise UserError(f"{where} is both {' and '.join(kinds)}, but must be one of them: remove the others")
    options = {key: value for key, value in content.items() if key not in (kinds[0], "when")}
    found = DISTRIBUTION_KINDS[kinds[0]](content[kinds[0]], options, where)
    return replace(found, when=conditions.read_when(content["when"], f"{where}.when")) if "when" in content else found


def _no_more(options: Mapping[str, Any], known: tuple[str, ...], where: str) -> None:
    for key in options:
        if key not in known:
            rest = f"only {', '.join(known)} may stand beside it" if known else "nothing may stand beside it"
            raise UserError(f"{where} has the key {key!r} beside its distribution, but {rest}: remove it")


def _bounds(content: object, where: str, *, above_zero: bool = False) -> tuple[float, float]:
    if not isinstance(content, (list, tuple)) or len(content) != 2 or not all(map(_is_number, content)):
        raise UserError(f"{where} is {shown(content)}, but must be [low, high]: two numbers")
    low, high = content
    if not low < high:
        raise UserError(f"{where} is {shown(content)}, but low must be less than high: to fix a value, set it in trial")
    if above_zero and low <= 0:
        raise UserError(f"{where} is {shown(content)}, but low must be above 0: there is no logarithm of {low}")
    return low, high


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def corners(search: Mapping[str, Distribution], given: Mapping[str, Scalar] | None = None) -> list[dict[str, Scalar]]:
    """Return the points on which a cell is checked: every bound and choice, in combination if there are few.

    A point holds a conditional hyperparameter only if its condition holds.

    Args:
        given: the cell's grid values.
    """
    options = {path: distribution.edges() for path, distribution in search.items()}
    if math.prod(map(len, options.values())) <= MOST_CORNERS:
        points = [dict(zip(options, values, strict=True)) for values in itertools.product(*options.values())]
    else:
        first = {path: values[0] for path, values in options.items()}
        points = [
            {**first, **_needed(search, path), path: value} for path, values in options.items() for value in values
        ]
    if not any(distribution.when for distribution in search.values()):
        return points
    kept: list[dict[str, Scalar]] = []
    for point in points:
        inside = conditions.active(search, point, given or {})
        if inside not in kept:
            kept.append(inside)
    return kept


def _needed(search: Mapping[str, Distribution], path: str) -> dict[str, Scalar]:
    """Return values of other hyperparameters that make the condition of ``path`` hold."""
    found: dict[str, Scalar] = {}
    for other, values in search[path].when:
        if other in search:
            found |= {**_needed(search, other), other: values[0]}
    return found


def lowest(search: Mapping[str, Distribution]) -> dict[str, Scalar]:
    """Return one point of the search, to build a config where any point gives the same stages."""
    return {path: distribution.edges()[0] for path, distribution in search.items()}
