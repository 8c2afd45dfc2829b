"""Counts: how many whole units a density keeps, by this project's rule (``nearest_count``) or as released codes do."""

from __future__ import annotations

from fractions import Fraction
from functools import lru_cache

Density = float | Fraction

_MOST = 10**9
"""Largest denominator of a density as a fraction: far above float error, so 0.9 and 1 - 0.1 are both nine tenths."""


@lru_cache(maxsize=4096)
def exact_share(density: Density) -> Fraction:
    """Return the fraction that a density stands for, without float error; a fraction is returned as it is.

    >>> exact_share(0.9), exact_share(0.7**2)
    (Fraction(9, 10), Fraction(49, 100))
    """
    return density if isinstance(density, Fraction) else Fraction(density).limit_denominator(_MOST)


def nearest_count(density: Density, n: int) -> int:
    """Return density n, rounded to the nearest whole number, halves to even; float error of the density does not count.

    >>> nearest_count(0.9, 1000), nearest_count(0.9, 10), nearest_count(0.5, 5), nearest_count(0.1, 4)
    (900, 9, 2, 0)
    """
    return round(exact_share(density) * n)


def keep_count(density: float, n: int) -> int:
    """Return n - int((1 - density) n), in double arithmetic, as BiP's released code does (commit c51fc35).

    ``int`` truncates, so float error can only keep one more: 0.9 of 10 keeps 10 (https://github.com/OPTML-Group/BiP).

    >>> keep_count(0.2, 100), keep_count(0.9, 10), keep_count(1.0, 7)
    (20, 10, 7)
    """
    return n - int((1 - density) * n)


def keep_nearest(density: float, n: int) -> int:
    """Return density n, rounded half to even, as LAMP's code does (https://github.com/jaeho-lee/layer-adaptive-sparsity).

    >>> keep_nearest(0.5, 5), keep_nearest(0.3, 10)
    (2, 3)
    """
    return _nearest(density * n)


def drop_nearest(density: float, n: int) -> int:
    """Return n minus (1 - density) n, the latter rounded half to even, as torch.nn.utils.prune does.

    >>> drop_nearest(0.5, 5), drop_nearest(0.7, 15)
    (3, 11)
    """
    return n - _nearest((1 - density) * n)


def _nearest(x: float) -> int:
    """Round half to even; a value within float error of a half, such as 4.500000000000001, counts as a half."""
    return round(round(x, 6))
