"""What accuracy does pruning alone have at a sparsity? The curve that a learned budget must beat."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def interpolated(points: Sequence[tuple[float, float]], sparsity: float) -> float:
    """The accuracy at ``sparsity``: linear between the points (sparsity, accuracy), constant beyond the outermost.

    >>> interpolated([(0.9, 0.8), (0.5, 1.0)], 0.7)
    0.9
    """
    x, y = zip(*sorted(points), strict=True)
    return float(np.interp(sparsity, x, y))
