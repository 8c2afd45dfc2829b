"""A sweep's tables as pandas DataFrames."""

from __future__ import annotations

from dataclasses import dataclass, field

import pandas as pd

from trials.storage.place import Place


@dataclass(frozen=True, eq=False)
class SweepTables:
    """A sweep as tables; docs/tables.md documents their columns.

    Attributes:
        path: the sweep's folder.
        trials: one row per trial, sorted by id.
        epochs: one row per (trial, stage, level, epoch).
        layers: one row per (trial, stage, level, layer).
        allocations: one row per (trial, step, episode, layer).
        lineage: one row per (cell, generation, member) of population based training.
        damaged: a line per file that could not be read; the tables lack its content.
    """

    path: Place
    trials: pd.DataFrame
    epochs: pd.DataFrame
    layers: pd.DataFrame
    allocations: pd.DataFrame
    lineage: pd.DataFrame = field(default_factory=pd.DataFrame)
    damaged: tuple[str, ...] = ()
