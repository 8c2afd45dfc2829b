"""Paired tests of two sets of figures, and Holm's correction for several of them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from sweeper.means import deviation_of, mean_of

LEVEL = 0.95
"""Of the confidence interval."""

FEWEST_FOR_RANKS = 6
"""Pairs that a Wilcoxon test needs: of five, no outcome has a two-sided p below 0.05."""

_DIGITS = 12
"""Decimal digits, relative to the largest figure, beyond which differences come from rounding."""


@dataclass(frozen=True)
class PairedTest:
    """Differences of pairs, second minus first, and whether their mean is 0. NaN: not defined, ``note`` says why.

    Attributes:
        n: number of pairs.
        difference: mean of the differences.
        std: of the differences (ddof 1).
        low: end of the 95 % confidence interval of the mean, by Student's t with n - 1 degrees of freedom.
        high: its other end.
        p: two-sided, of the paired t test.
        p_wilcoxon: two-sided, of Wilcoxon's signed-rank test; from :data:`FEWEST_FOR_RANKS` pairs on.
        note: why there is no test, or empty.
    """

    n: int
    difference: float = math.nan
    std: float = math.nan
    low: float = math.nan
    high: float = math.nan
    p: float = math.nan
    p_wilcoxon: float = math.nan
    note: str = ""


def paired_test(first: Sequence[float], second: Sequence[float]) -> PairedTest:
    """Test whether pairs of finite figures differ: a paired t test, and Wilcoxon's beside it.

    Differences that are all equal but for rounding have no spread, so that t is not defined: there is no p and no
    interval, and ``note`` says so.
    """
    from scipy import stats  # takes long to import

    n = len(first)
    if not n:
        return PairedTest(0)
    scale = max(1e-300, *map(abs, first), *map(abs, second))
    differences = [b - a for a, b in zip(first, second, strict=True)]
    ranked = [round(d / scale, _DIGITS) for d in differences]  # so that rounding makes no differences unequal
    mean = mean_of(differences)
    if n == 1:
        return PairedTest(1, mean, note="one seed in common: no test")
    std = deviation_of(differences)
    ranks = n >= FEWEST_FOR_RANKS and any(ranked)
    p_wilcoxon = float(stats.wilcoxon(ranked).pvalue) if ranks else math.nan
    error = std / math.sqrt(n)
    if max(ranked) - min(ranked) <= 2 * 10**-_DIGITS or not error:
        same = "the same" if any(ranked) else "0"
        note = f"every difference is {same}: without spread there is no t test"
        return PairedTest(n, mean if any(ranked) else 0.0, 0.0, p_wilcoxon=p_wilcoxon, note=note)
    reach = float(stats.t.ppf((1 + LEVEL) / 2, n - 1)) * error
    p = 2 * float(stats.t.sf(abs(mean / error), n - 1))
    return PairedTest(n, mean, std, mean - reach, mean + reach, p, p_wilcoxon)


def holm(p_values: Sequence[float]) -> list[float]:
    """Return p-values corrected for their number, so that all of them may be read at one level.

    Holm 1979, *A simple sequentially rejective multiple test procedure*. NaN stands for no test; it does not count.

    >>> holm([0.01, 0.04, float("nan"), 0.03])
    [0.03, 0.06, nan, 0.06]
    """
    order = sorted((i for i, p in enumerate(p_values) if not math.isnan(p)), key=lambda i: p_values[i])
    corrected, least = [math.nan] * len(p_values), 0.0
    for rank, i in enumerate(order):
        least = max(least, min(1.0, (len(order) - rank) * p_values[i]))
        corrected[i] = least
    return corrected
