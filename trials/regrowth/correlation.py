"""Correlation between two per-layer quantities."""

from __future__ import annotations

from collections.abc import Sequence

FEWEST = 3
"""Least number of pairs for which a correlation is computed."""


def correlations(x: Sequence[float], y: Sequence[float]) -> dict[str, float]:
    """Return Pearson's r and Spearman's rho, their p-values (not corrected for multiple tests) and the number of pairs.

    Empty for fewer than three pairs, or if x or y is constant.
    """
    if len(x) < FEWEST or len(set(x)) == 1 or len(set(y)) == 1:
        return {}
    from scipy import stats  # takes most of a second to import, and every worker imports this module

    pearson, spearman = stats.pearsonr(x, y), stats.spearmanr(x, y)
    return {
        "pearson": float(pearson.statistic),
        "pearson_p": float(pearson.pvalue),
        "spearman": float(spearman.statistic),
        "spearman_p": float(spearman.pvalue),
        "pairs": float(len(x)),
    }
