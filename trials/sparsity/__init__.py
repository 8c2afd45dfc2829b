"""Scores, distributions, patterns and masks: the four parts of pruning, one file each.

``prune``, ``density``, ``compact``, ``make_permanent``, ``sparsify_adaptive`` and ``adaptive_loss`` work on any module
(docs/pieces.md).
"""

from __future__ import annotations

from trials.sparsity.adaptive import adaptive_loss, sparsify_adaptive
from trials.sparsity.counts import drop_nearest, keep_count, keep_nearest, nearest_count
from trials.sparsity.distributions import DISTRIBUTIONS, Count, Layer, Pool
from trials.sparsity.masks import Masks, build_masks, density_of, masks_by_score, prunable, prunable_by
from trials.sparsity.on_modules import compact, density, make_permanent, prune
from trials.sparsity.patterns import PATTERNS, Pattern, n_of_m
from trials.sparsity.scores import SCORES, Score
from trials.sparsity.select import select

__all__ = [
    "DISTRIBUTIONS",
    "PATTERNS",
    "SCORES",
    "Count",
    "Layer",
    "Masks",
    "Pattern",
    "Pool",
    "Score",
    "adaptive_loss",
    "build_masks",
    "compact",
    "density",
    "density_of",
    "drop_nearest",
    "keep_count",
    "keep_nearest",
    "make_permanent",
    "masks_by_score",
    "n_of_m",
    "nearest_count",
    "prunable",
    "prunable_by",
    "prune",
    "select",
    "sparsify_adaptive",
]
