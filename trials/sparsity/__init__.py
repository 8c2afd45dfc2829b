"""Scores, distributions, patterns and masks: the four parts of pruning, one file each."""

from __future__ import annotations

from trials.sparsity.counts import drop_nearest, keep_count, keep_nearest, nearest_count
from trials.sparsity.distributions import DISTRIBUTIONS, Count, Layer, Pool
from trials.sparsity.masks import Masks, build_masks, density_of, masks_by_score, prunable
from trials.sparsity.patterns import PATTERNS, Pattern
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
    "build_masks",
    "density_of",
    "drop_nearest",
    "keep_count",
    "keep_nearest",
    "masks_by_score",
    "nearest_count",
    "prunable",
    "select",
]
