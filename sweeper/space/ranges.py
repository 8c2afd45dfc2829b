"""Ranges of numbers: their bounds, and their steps (``step:``).

The values of a range in steps are low, low + step, ... high, each exactly as it would be written by hand. Optuna adds
them up in binary floating point, which gives 0.30000000000000004 as the third of 0.1, 0.2, 0.3. Here a value is the
float nearest to the decimal sum, so that equal values give equal configs and trial names.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from typing import Any

from sweeper.space.values import finite_number
from trials.errors import UserError, shown

Number = int | float

MOST_STEPS = 10_000_000
"""Limit on a bound's size in steps. Optuna finds a value in its steps with a tolerance of 1e-8 steps, which is coarser
than a float's rounding up to here."""


@dataclass(frozen=True)
class StepGrid:
    """The values ``low``, ``low + step``, ... ``high``: integers if low and step are, otherwise floats."""

    low: Number
    high: Number
    step: Number

    @cached_property
    def count(self) -> int:
        """Number of values."""
        return int((_written(self.high) - _written(self.low)) / _written(self.step)) + 1

    def value(self, index: int) -> Number:
        """Return the value after ``index`` steps from low; low or high if it would lie beyond."""
        return _after(self.low, self.step, min(max(index, 0), self.count - 1))

    def index(self, value: Number) -> int:
        """Return the index of the value that is nearest to ``value``."""
        inside = min(max(value, self.low), self.high)
        return round((Fraction(inside) - _written(self.low)) / _written(self.step))

    def nearest(self, value: Number) -> Number:
        """Return the value that is nearest to ``value``."""
        return self.value(self.index(value))

    def spread(self, most: int) -> tuple[Number, ...]:
        """Return at most ``most`` values, evenly spaced but for rounding to steps, low and high included."""
        last = self.count - 1
        if last < most:
            return tuple(map(self.value, range(self.count)))
        indices = (round(Fraction(i * last, most - 1)) for i in range(most))
        return tuple(map(self.value, dict.fromkeys(indices)))

    def around(self, numbers: Iterable[Number]) -> tuple[Number, ...]:
        """Return, from low to high, the values nearest to each of ``numbers``, and those one step from them."""
        indices = {self.index(number) + step for number in numbers for step in (-1, 0, 1)}
        return tuple(map(self.value, sorted(index for index in indices if 0 <= index < self.count)))

    def holds(self, value: object) -> bool:
        """Whether ``value`` is one of the values."""
        return isinstance(value, (int, float)) and self.nearest(value) == value


def _written(number: Number) -> Fraction:
    """Return the number that a person would write: 1/10 for 0.1, not the binary fraction next to it."""
    return Fraction(repr(number))


def require_steps(low: Number, high: Number, step: Number, where: str) -> None:
    """Check that ``high`` is a whole number of steps from ``low``, and that its values can be told apart.

    Args:
        where: the range's path, for messages; its step is at ``where.step``.

    Raises:
        UserError: it is not, or the step is too small.
    """
    grid, largest = StepGrid(low, high, step), max(abs(low), abs(high))
    if isinstance(low, float) and _written(largest) / _written(step) > MOST_STEPS:
        raise UserError(
            f"{where}.step is {step}, but must be at least {largest / MOST_STEPS:g} beside bounds up to {largest}, so "
            "that its values can be told apart: set it to more, or leave it out"
        )
    top = grid.value(grid.count - 1)
    if top != high:
        near = [*([top] if grid.count > 1 else []), _after(low, step, grid.count)]
        raise UserError(
            f"{where}.step is {step}, but steps of {step} from {low} do not reach {high}: set high to "
            f"{' or '.join(map(str, near))}"
        )


def _after(low: Number, step: Number, steps: int) -> Number:
    """Return ``low + steps * step``, rounded once."""
    found = _written(low) + steps * _written(step)
    return int(found) if isinstance(low, int) and isinstance(step, int) else float(found)


def no_more_keys(options: Mapping[str, Any], known: tuple[str, ...], where: str) -> None:
    """Raise a UserError if other keys than ``known`` stand beside a distribution."""
    for key in options:
        if key not in known:
            rest = f"only {', '.join(known)} may stand beside it" if known else "nothing may stand beside it"
            raise UserError(f"{where} has the key {key!r} beside its distribution, but {rest}: remove it")


def read_bounds(content: object, where: str, *, above_zero: bool = False) -> tuple[Number, Number]:
    """Parse ``[low, high]``, which must be numbers in this order.

    Raises:
        UserError: they are not.
    """
    if not isinstance(content, (list, tuple)) or len(content) != 2 or None in map(finite_number, content):
        raise UserError(f"{where} is {shown(content)}, but must be [low, high]: two numbers")
    low, high = content
    if not low < high:
        raise UserError(f"{where} is {shown(content)}, but low must be less than high: to fix a value, set it in trial")
    if above_zero and low <= 0:
        raise UserError(f"{where} is {shown(content)}, but low must be above 0: there is no logarithm of {low}")
    return low, high
