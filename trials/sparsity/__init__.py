"""Scores, distributions, patterns and masks: the four parts of pruning, one file each."""

from __future__ import annotations

from trials.sparsity.distributions import DISTRIBUTIONS, Count, Layer, Pool, drop_nearest, keep_nearest
from trials.sparsity.masks import Masks, build_masks, density_of, prunable
from trials.sparsity.patterns import PATTERNS, Pattern
from trials.sparsity.scores import SCORES
from trials.sparsity.select import keep_count, select

__all__ = [
    "DISTRIBUTIONS",
    "PATTERNS",
    "SCORES",
    "Count",
    "Layer",
    "Masks",
    "Pattern",
    "Pool",
    "build_masks",
    "density_of",
    "drop_nearest",
    "keep_count",
    "keep_nearest",
    "prunable",
    "select",
]
