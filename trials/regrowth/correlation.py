"""Do two figures of the layers go together?"""

from __future__ import annotations

from collections.abc import Sequence

FEWEST = 3
"""A correlation of fewer pairs says nothing."""


def correlations(x: Sequence[float], y: Sequence[float]) -> dict[str, float]:
    """Pearson's r and Spearman's rho with their p-values, not corrected for the number of tests, and n.

    Empty for fewer than three pairs, or where x or y is constant.
    """
    if len(x) < FEWEST or len(set(x)) == 1 or len(set(y)) == 1:
        return {}
    from scipy import stats  # takes most of a second, and every worker imports the methods

    pearson, spearman = stats.pearsonr(x, y), stats.spearmanr(x, y)
    return {
        "pearson": float(pearson.statistic),
        "pearson_p": float(pearson.pvalue),
        "spearman": float(spearman.statistic),
        "spearman_p": float(spearman.pvalue),
        "pairs": float(len(x)),
    }
