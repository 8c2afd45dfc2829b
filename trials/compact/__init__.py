"""Compact networks: make a pruned model physically smaller, for every model, using a graph of channel dependencies."""

from __future__ import annotations

from trials.compact.cut import Kept, cut_tensors, kept_rows, obstacles, require_rows, shrink, slices, spread
from trials.compact.files import Architecture, load, load_masks, save
from trials.compact.graph import Channels, dependencies
from trials.compact.groups import Units, spared, unit_rows, units_of, unread
from trials.compact.silent import silent, simplify
from trials.compact.tracing import NoInput, takes

__all__ = [
    "Architecture",
    "Channels",
    "Kept",
    "NoInput",
    "Units",
    "cut_tensors",
    "dependencies",
    "kept_rows",
    "load",
    "load_masks",
    "obstacles",
    "require_rows",
    "save",
    "shrink",
    "silent",
    "simplify",
    "slices",
    "spared",
    "spread",
    "takes",
    "unit_rows",
    "units_of",
    "unread",
]
