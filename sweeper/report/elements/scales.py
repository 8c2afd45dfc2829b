"""Axes of parallel coordinates: where a value lies on one, from 0 to 1, and at which values it has ticks."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sweeper.report.elements.searched import are_numbers

_MOST_TICKS = 6

MOST_CATEGORIES = 18
"""Number of categories that are named on an axis; of more, some."""


@dataclass(frozen=True)
class UnitAxis:
    """An axis of length 1.

    Attributes:
        title: beside it.
        low: the value at 0; of a categorical axis, 0.
        high: the value at 1; of a categorical axis, the number of the last category.
        log: whether it is logarithmic.
        categories: texts of a categorical axis, in order; None for numbers.
    """

    title: str
    low: float
    high: float
    log: bool = False
    categories: tuple[str, ...] | None = None

    def place(self, value: Any) -> float:
        """Where a value lies, 0 to 1; in the middle if the axis has a single value."""
        number = float(self.categories.index(str(value)) if self.categories is not None else value)
        if self.high == self.low:
            return 0.5
        if self.log:
            return math.log(number / self.low) / math.log(self.high / self.low)
        return (number - self.low) / (self.high - self.low)

    def ticks(self) -> list[tuple[float, str]]:
        """Places and labels of at most six numbers, or of at most :data:`MOST_CATEGORIES` categories."""
        if self.categories is not None:
            step = math.ceil(len(self.categories) / MOST_CATEGORIES)
            return [(self.place(text), text) for text in self.categories[::step]]
        return [(self.place(value), _label(value)) for value in round_values(self.low, self.high, self.log)]


def axis_of(title: str, values: Sequence[Any], log: bool) -> UnitAxis:
    """Return an axis for these values: of numbers, or categorical if one is a text or a boolean."""
    if not are_numbers(values):
        categories = tuple(sorted(set(map(str, values))))
        return UnitAxis(title, 0.0, len(categories) - 1.0, categories=categories)
    return UnitAxis(title, float(min(values)), float(max(values)), log)


def round_values(low: float, high: float, log: bool) -> list[float]:
    """At most seven round values from ``low`` to ``high``, or both of these if there are fewer than two round ones."""
    if low == high:
        return [low]
    found = []
    if log:
        first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
        apart = max(1, math.ceil((last - first) / _MOST_TICKS))
        found = [10.0**power for power in range(first, last + 1, apart) if low <= 10.0**power <= high]
        if len(found) < 3:
            digits = [m * 10.0**power for power in range(first, last + 1) for m in (1, 2, 5)]
            found = [value for value in digits if low <= value <= high]
            found = [float(f"{value:.3g}") for value in found]
    else:
        raw = (high - low) / (_MOST_TICKS - 1)
        power = 10.0 ** math.floor(math.log10(raw))
        step = next(m * power for m in (1, 2, 5, 10) if m * power >= raw * 0.999)
        found = [n * step for n in range(math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9) + 1)]
    return [min(max(value, low), high) for value in found] if len(found) > 1 else [low, high]


def _label(value: float) -> str:
    if value and abs(value) < 1e-3:
        mantissa, exponent = f"{value:.2e}".split("e")
        return f"{float(mantissa):g}e{int(exponent)}"
    return f"{value:.4g}"
