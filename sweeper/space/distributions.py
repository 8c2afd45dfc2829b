"""Distributions of searched hyperparameters: parsed from a space, checked, and converted to Optuna's."""

from __future__ import annotations

import itertools
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution

from sweeper.space.grid import conditions
from sweeper.space.grid.conditions import Condition, When
from sweeper.space.ranges import StepGrid, no_more_keys, read_bounds, require_steps
from sweeper.space.values import Scalar, finite_number, scalars
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
    def _around(self, numbers: Collection[float]) -> tuple[Scalar, ...]:
        """Return values, in their order, that lie at, between and beside these numbers; or every choice."""

    def branches(self, asked: Collection[Condition]) -> tuple[Scalar, ...]:
        """Return :meth:`edges`, and of each set of conditions that hold for the same values, the first and the last.

        Args:
            asked: all conditions on this hyperparameter. Whichever of them some value meets together, one here does.
        """
        alike: dict[tuple[bool, ...], list[Scalar]] = {}
        for value in self._around([number for condition in asked for number in condition.numbers]):
            alike.setdefault(tuple(condition.holds(value) for condition in asked), []).append(value)
        found = [value for values in alike.values() for value in (values[0], values[-1])] if asked else []
        return tuple(dict.fromkeys([*self.edges(), *found]))

    @abstractmethod
    def points(self, most: int) -> tuple[Scalar, ...]:
        """Return at most ``most`` evenly spaced values of a range, bounds included, or every choice."""

    def contains(self, value: object) -> bool:
        """Whether ``value`` is one of the values and of their type; integers count as numbers, booleans do not."""
        if finite_number(value) is None:
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
    """``{uniform: [low, high]}``, or ``{loguniform: [low, high]}``, which is uniform in the logarithm.
    ``{uniform: [0.1, 0.9], step: 0.1}`` has the values 0.1, 0.2, ... 0.9; high must be one of them.
    """

    low: float
    high: float
    log: bool = False
    step: float | None = None

    @property
    def grid(self) -> StepGrid | None:
        """The values of a range in steps."""
        return None if self.step is None else StepGrid(self.low, self.high, self.step)

    def suggest(self, trial: optuna.Trial, name: str) -> float:
        value = trial.suggest_float(name, self.low, self.high, log=self.log, step=self.step)
        return value if self.grid is None else self.grid.nearest(value)

    def optuna_distribution(self) -> FloatDistribution:
        return FloatDistribution(self.low, self.high, log=self.log, step=self.step)

    def edges(self) -> tuple[float, ...]:
        return (self.low, self.high)

    def _around(self, numbers: Collection[float]) -> tuple[float, ...]:
        if self.grid is not None:
            return self.grid.around([self.low, *numbers, self.high])
        ends = sorted({self.low, *(float(number) for number in numbers if self.contains(number)), self.high})
        return tuple(sorted({*ends, *((low + high) / 2 for low, high in itertools.pairwise(ends))}))

    def points(self, most: int) -> tuple[float, ...]:
        if self.grid is not None:
            return self.grid.spread(most)
        if self.log:
            ratio = self.high / self.low
            inner = [self.low * ratio ** (i / (most - 1)) for i in range(1, most - 1)]
        else:
            inner = [self.low + (self.high - self.low) * i / (most - 1) for i in range(1, most - 1)]
        return (self.low, *inner, self.high)

    def contains(self, value: object) -> bool:
        return super().contains(value) and (self.grid is None or self.grid.holds(value))

    def _own_document(self) -> dict[str, Any]:
        kind = "loguniform" if self.log else "uniform"
        return {kind: [self.low, self.high], **({} if self.step is None else {"step": self.step})}

    def _describe(self) -> str:
        steps = "" if self.step is None else f" in steps of {self.step}"
        return f"{'loguniform' if self.log else 'uniform'} from {self.low} to {self.high}{steps}"


@dataclass(frozen=True)
class Int(Distribution):
    """``{int: [low, high]}``, bounds included; ``{int: [low, high], log: true}`` is uniform in the logarithm.
    ``{int: [10, 100], step: 10}`` has the values 10, 20, ... 100; high must be one of them.
    """

    low: int
    high: int
    log: bool = False
    step: int = 1

    @property
    def grid(self) -> StepGrid:
        """The values."""
        return StepGrid(self.low, self.high, self.step)

    def suggest(self, trial: optuna.Trial, name: str) -> int:
        return trial.suggest_int(name, self.low, self.high, log=self.log, step=self.step)

    def optuna_distribution(self) -> IntDistribution:
        return IntDistribution(self.low, self.high, log=self.log, step=self.step)

    def edges(self) -> tuple[int, ...]:
        return (self.low, self.high)

    def _around(self, numbers: Collection[float]) -> tuple[Scalar, ...]:
        return self.grid.around([self.low, *numbers, self.high])

    def points(self, most: int) -> tuple[Scalar, ...]:
        if self.step > 1 or self.high - self.low < most:
            return self.grid.spread(most)
        spread = Uniform(float(self.low), float(self.high), self.log).points(most)
        return tuple(dict.fromkeys(map(round, spread)))

    def contains(self, value: object) -> bool:
        return isinstance(value, int) and super().contains(value) and self.grid.holds(value)

    def _own_document(self) -> dict[str, Any]:
        options = {"log": True} if self.log else {"step": self.step} if self.step > 1 else {}
        return {"int": [self.low, self.high], **options}

    def _describe(self) -> str:
        steps = f" in steps of {self.step}" if self.step > 1 else ""
        return f"{'loguniform' if self.log else 'uniform'} integers from {self.low} to {self.high}{steps}"


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

    def _around(self, numbers: Collection[float]) -> tuple[Scalar, ...]:
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
    no_more_keys(options, ("step",), where)
    low, high = map(float, read_bounds(content, f"{where}.uniform"))
    if "step" not in options:
        return Uniform(low, high)
    step = finite_number(options["step"])
    if step is None or step <= 0:
        raise UserError(f"{where}.step is {shown(options['step'])}, but must be a number above 0")
    require_steps(low, high, step, where)
    return Uniform(low, high, step=step)


def _loguniform(content: object, options: dict[str, Any], where: str) -> Uniform:
    if "step" in options:
        raise UserError(f"{where} has a step, but a loguniform has none: leave it out, use uniform, or list a choice")
    no_more_keys(options, (), where)
    low, high = read_bounds(content, f"{where}.loguniform", above_zero=True)
    return Uniform(float(low), float(high), log=True)


def _int(content: object, options: dict[str, Any], where: str) -> Int:
    no_more_keys(options, ("log", "step"), where)
    log, step = options.get("log", False), options.get("step", 1)
    if not isinstance(log, bool):
        raise UserError(f"{where}.log is {shown(log)}, but must be true or false")
    low, high = read_bounds(content, f"{where}.int", above_zero=log)
    if not isinstance(low, int) or not isinstance(high, int):
        raise UserError(f"{where}.int is {shown(content)}, but its bounds must be integers: use uniform otherwise")
    if not isinstance(step, int) or isinstance(step, bool) or step < 1:
        raise UserError(f"{where}.step is {shown(step)}, but must be a whole number of at least 1")
    if log and step > 1:
        raise UserError(f"{where} has log: true and step: {step}, but steps are not logarithmic: leave one of them out")
    require_steps(low, high, step, where)
    return Int(low, high, log, step)


def _choice(content: object, options: dict[str, Any], where: str) -> Choice:
    no_more_keys(options, (), where)
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


def corners(search: Mapping[str, Distribution], given: Mapping[str, Scalar] | None = None) -> list[dict[str, Scalar]]:
    """Return the points on which a cell is checked: every bound and choice, in combination if there are few.

    A point holds a conditional hyperparameter only if its condition holds.

    Args:
        given: the cell's grid values.
    """
    asked = conditions.asked_of(search)
    options = {path: distribution.branches(asked.get(path, ())) for path, distribution in search.items()}
    if math.prod(map(len, options.values())) <= MOST_CORNERS:
        points = [dict(zip(options, values, strict=True)) for values in itertools.product(*options.values())]
    else:
        first = {path: values[0] for path, values in options.items()}
        points = [
            {**first, **conditions.values_for(search, path, options), path: value}
            for path, values in options.items()
            for value in values
        ]
    if not any(distribution.when for distribution in search.values()):
        return points
    kept: list[dict[str, Scalar]] = []
    for point in points:
        inside = conditions.active(search, point, given or {})
        if inside not in kept:
            kept.append(inside)
    return kept


def lowest(search: Mapping[str, Distribution]) -> dict[str, Scalar]:
    """Return one point of the search, to build a config where any point gives the same stages."""
    return {path: distribution.edges()[0] for path, distribution in search.items()}
