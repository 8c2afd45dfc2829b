"""Whether a point can still matter: what some of its replicates say of the value that all of them would give.

As in racing methods (Maron & Moore 1997, https://doi.org/10.1023/A:1006556606079; SMAC's intensification, Hutter et al.
2011), a point that is unlikely to beat the best one gets no further replicate. With probability :data:`CONFIDENCE`, the
mean of all R replicates of a point lies below m + t s sqrt((R - n) / (R n)): m is the mean of the n that it has, s the
standard deviation between replicates of one point, pooled over the complete points of the cell, and t Student's
quantile for its degrees of freedom. A point is dropped if that bound is worse than the best complete point's value. The
lower bound that a judge may take is never better than the mean, and a median is near it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from sweeper.means import mean_of, squares_of

CONFIDENCE = 0.95
"""Probability with which the mean of all replicates of a point that is dropped is no better than the best point."""

LEAST_FREEDOM = 3
"""Degrees of freedom that the pooled standard deviation must have before any point is dropped."""


def pooled_spread(complete: Iterable[Sequence[float]]) -> tuple[float, int]:
    """Return the standard deviation of replicates within their points, pooled, and its degrees of freedom.

    Args:
        complete: by point, the values of its replicates.
    """
    squares, freedom = 0.0, 0
    for values in complete:
        if len(values) > 1:
            squares += squares_of(values)
            freedom += len(values) - 1
    return (math.sqrt(squares / freedom) if freedom else math.inf), freedom


def can_matter(values: Sequence[float], of: int, best: float, sign: int, spread: float, freedom: int) -> bool:
    """Whether a point may still be better than the best one.

    Args:
        values: of the replicates that it has, at least one; ``of``: number of those that it would have in the end.
        best: the value of the best complete point.
        sign: 1 if higher values are better, -1 if lower ones are.
        spread, freedom: as :func:`pooled_spread` returns them.
    """
    if freedom < LEAST_FREEDOM or len(values) >= of:
        return True
    from scipy.special import stdtrit  # a tenth of a second to import, which few sweeps need

    left = of - len(values)
    margin = float(stdtrit(freedom, CONFIDENCE)) * spread * math.sqrt(left / (of * len(values)))
    return sign * mean_of(values) + margin >= sign * best
