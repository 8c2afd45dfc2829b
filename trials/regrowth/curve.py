"""The accuracy that pruning alone reaches at a sparsity: the baseline for a learned budget."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def interpolated(points: Sequence[tuple[float, float]], sparsity: float) -> float:
    """Interpolate the accuracy at ``sparsity`` linearly between points (sparsity, accuracy); constant beyond them.

    >>> interpolated([(0.9, 0.8), (0.5, 1.0)], 0.7)
    0.9
    """
    x, y = zip(*sorted(points), strict=True)
    return float(np.interp(sparsity, x, y))
