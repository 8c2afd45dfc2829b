"""What a search chooses from: one distribution per hyperparameter, checked as it is read, in Optuna's terms."""

from __future__ import annotations

import itertools
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution

from sweeper.values import Scalar, scalars, shown
from trials.errors import UserError, unknown_name

MOST_CORNERS = 64
"""Up to here every combination of bounds and choices is tried on a cell; beyond, one hyperparameter at a time."""


class Distribution(ABC):
    """The values that one hyperparameter may take."""

    @abstractmethod
    def suggest(self, trial: optuna.Trial, name: str) -> Scalar:
        """A value for ``name``, by the study that ``trial`` belongs to."""

    @abstractmethod
    def optuna_distribution(self) -> BaseDistribution:
        """As Optuna has it, to put a known trial into a study."""

    @abstractmethod
    def edges(self) -> tuple[Scalar, ...]:
        """The values that a config must accept for all others to be accepted: the bounds, or every choice."""

    @abstractmethod
    def document(self) -> dict[str, Any]:
        """As a space file says it."""

    @abstractmethod
    def __str__(self) -> str:
        """As a person reads it."""


@dataclass(frozen=True)
class Uniform(Distribution):
    """``{uniform: [low, high]}``, or ``{loguniform: [low, high]}``: uniform in the logarithm."""

    low: float
    high: float
    log: bool = False

    def suggest(self, trial: optuna.Trial, name: str) -> float:
        return trial.suggest_float(name, self.low, self.high, log=self.log)

    def optuna_distribution(self) -> FloatDistribution:
        return FloatDistribution(self.low, self.high, log=self.log)

    def edges(self) -> tuple[float, ...]:
        return (self.low, self.high)

    def document(self) -> dict[str, Any]:
        return {"loguniform" if self.log else "uniform": [self.low, self.high]}

    def __str__(self) -> str:
        return f"{'loguniform' if self.log else 'uniform'} from {self.low} to {self.high}"


@dataclass(frozen=True)
class Int(Distribution):
    """``{int: [low, high]}``, both included; ``{int: [low, high], log: true}`` is uniform in the logarithm."""

    low: int
    high: int
    log: bool = False

    def suggest(self, trial: optuna.Trial, name: str) -> int:
        return trial.suggest_int(name, self.low, self.high, log=self.log)

    def optuna_distribution(self) -> IntDistribution:
        return IntDistribution(self.low, self.high, log=self.log)

    def edges(self) -> tuple[int, ...]:
        return (self.low, self.high)

    def document(self) -> dict[str, Any]:
        return {"int": [self.low, self.high], **({"log": True} if self.log else {})}

    def __str__(self) -> str:
        return f"{'loguniform' if self.log else 'uniform'} integers from {self.low} to {self.high}"


@dataclass(frozen=True)
class Choice(Distribution):
    """``{choice: [a, b, ...]}``: one of these, in no order."""

    choices: tuple[Scalar, ...]

    def suggest(self, trial: optuna.Trial, name: str) -> Scalar:
        return trial.suggest_categorical(name, self.choices)

    def optuna_distribution(self) -> CategoricalDistribution:
        return CategoricalDistribution(self.choices)

    def edges(self) -> tuple[Scalar, ...]:
        return self.choices

    def document(self) -> dict[str, Any]:
        return {"choice": list(self.choices)}

    def __str__(self) -> str:
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
        raise UserError(f"{where}.int is {shown(content)}, but its bounds must be integers: or search it as uniform")
    return Int(low, high, log)


def _choice(content: object, options: dict[str, Any], where: str) -> Choice:
    _no_more(options, (), where)
    return Choice(scalars(content, f"{where}.choice"))


KINDS: dict[str, Callable[[object, dict[str, Any], str], Distribution]] = {
    "uniform": _uniform,
    "loguniform": _loguniform,
    "int": _int,
    "choice": _choice,
}


def read_distribution(content: object, where: str) -> Distribution:
    """The distribution that a mapping such as ``{loguniform: [1e-6, 1e-2]}`` says.

    Raises:
        UserError: it says none, or one that has no values.
    """
    if not isinstance(content, Mapping) or not content:
        raise UserError(f"{where} is {shown(content)}, but must be a mapping such as {{uniform: [0.1, 0.2]}}; "
                        f"there are {', '.join(KINDS)}")  # fmt: skip
    kinds = [key for key in content if key in KINDS]
    if not kinds:
        raise UserError(unknown_name(f"{where}: distribution", next(iter(content)), KINDS))
    if len(kinds) > 1:
        raise UserError(f"{where} is both {' and '.join(kinds)}, but must be one of them: remove the others")
    options = {key: value for key, value in content.items() if key != kinds[0]}
    return KINDS[kinds[0]](content[kinds[0]], options, where)


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


def corners(search: Mapping[str, Distribution]) -> list[dict[str, Scalar]]:
    """Values by path on which a cell is checked: every bound and every choice, combined where that stays few."""
    options = {path: distribution.edges() for path, distribution in search.items()}
    if math.prod(map(len, options.values())) <= MOST_CORNERS:
        return [dict(zip(options, values, strict=True)) for values in itertools.product(*options.values())]
    first = {path: values[0] for path, values in options.items()}
    return [{**first, path: value} for path, values in options.items() for value in values]
