"""Lines on trials of one sweep that cannot be compared with each other: other data, another precision."""

from __future__ import annotations

import pandas as pd

from sweeper.columns import config_column
from trials.storage.data_used import OPTIONS


def mixed_data(trials: pd.DataFrame) -> list[str]:
    """A line per data set of which the trials used several contents, as only older versions allowed."""
    if "dataset" not in trials:
        return []
    names = ["dataset", *(option for option in OPTIONS if option in trials)]
    lines = []
    for name, group in trials.groupby(names, dropna=False):
        counts = group["data"].value_counts()
        if len(counts) > 1:
            each = ", ".join(f"{count} trials of {fingerprint}" for fingerprint, count in counts.items())
            lines.append(f"mixed data: {name[0]} has {len(counts)} contents ({each}), whose rows are not comparable")
    return lines


def mixed_precision(trials: pd.DataFrame) -> list[str]:
    """A line if ``precision: auto`` became one precision in some trials and another in others, or within a trial."""
    if config_column("precision") not in trials:
        return []
    counts = trials[trials[config_column("precision")] == "auto"]["precision"].value_counts().to_dict()
    if len({precision for found in counts for precision in found.split(", ")}) < 2:
        return []
    each = ", ".join(
        f"{count} trial{'s' * (count > 1)} in {found.replace(', ', ' and then ')}"
        for found, count in sorted(counts.items())
    )
    return [
        f"mixed precision: auto became different precisions on different devices ({each}): their rows are not "
        "comparable; set trial.precision (see the column precision of the table trials)"
    ]
