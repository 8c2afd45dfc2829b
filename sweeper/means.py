"""Means and standard deviations of any figures: a method may report 1e300, or infinity."""

from __future__ import annotations

import math
from collections.abc import Sequence

_SMALL = 1e-280
"""Sums of squares below it have lost digits."""


def mean_of(numbers: Sequence[float]) -> float:
    """Arithmetic mean; NaN of no numbers, of a NaN and of infinities of both signs."""
    if not numbers:
        return math.nan
    if not all(map(math.isfinite, numbers)):
        return sum(number for number in numbers if not math.isfinite(number))
    try:
        return math.fsum(numbers) / len(numbers)
    except OverflowError:
        scale = max(map(abs, numbers))
        return scale * (math.fsum(number / scale for number in numbers) / len(numbers))


def squares_of(numbers: Sequence[float]) -> float:
    """Sum of the squared differences from the mean; infinite if float64 cannot hold it."""
    centre = mean_of(numbers)
    try:
        return math.fsum((number - centre) ** 2 for number in numbers)
    except OverflowError:
        return math.inf


def deviation_of(numbers: Sequence[float]) -> float:
    """Standard deviation (ddof 1); NaN of fewer than two numbers, and where one is not finite."""
    if len(numbers) < 2 or not all(map(math.isfinite, numbers)):
        return math.nan
    squares = squares_of(numbers)
    if math.isinf(squares) or (squares < _SMALL and max(numbers) > min(numbers)):
        scale = max(map(abs, numbers))
        return scale * deviation_of([number / scale for number in numbers])
    return math.sqrt(squares / (len(numbers) - 1))
