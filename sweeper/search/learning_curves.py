"""Learning curves for a study: a column's value after each epoch in which a trial may be stopped, from its rows."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from sweeper.folder.sweep_folder import Record, SweepFolder
from sweeper.results.tables import read
from trials.errors import DamagedFile
from trials.methods.registry import METHODS

Curve = dict[int, float]


def curve_of(rows: Iterable[Mapping[str, Any]], method: str, column: str) -> Curve:
    """Values of ``column`` by step, from a trial's rows of ``epochs`` in their order.

    Steps count the epochs, from 1 and over all levels, of the stages in which ``method`` may be stopped: none if this
    version does not know it.
    """
    stoppable = METHODS[method].stoppable if method in METHODS else ()
    own = (row for row in rows if row["stage"] in stoppable and row["epoch"] > 0 and row["stage_id"] is None)
    return {step: float(row[column]) for step, row in enumerate(own, start=1) if row[column] is not None}


def curve_in(record: Record, column: str) -> Curve:
    """The curve of one trial's last commit; empty if it has no rows yet or they are damaged."""
    if record.state is None or not record.state.commits:
        return {}
    try:
        table = record.folder.table(record.state.commits[-1], "epochs")
    except (DamagedFile, OSError, ValueError):
        return {}
    return {} if table is None else curve_of(table.to_pylist(), str(record.content.get("method")), column)


def curves_in(folder: SweepFolder, methods: Mapping[str, str], column: str) -> dict[str, Curve]:
    """By trial, the curves of a sweep's trials, read at once. ``methods``: the method of each trial to include."""
    if not methods:
        return {}
    epochs = read(folder.path, rows=("epochs",)).epochs
    names = ["trial", "stage", "epoch", "stage_id", column]
    if column not in epochs.columns:
        return {}
    part = epochs[names].astype(object)
    rows: dict[str, list[dict[str, Any]]] = {}
    for values in part.where(part.notna(), None).itertuples(index=False, name=None):
        row = dict(zip(names, values, strict=True))
        rows.setdefault(row["trial"], []).append(row)
    return {trial: curve_of(found, methods[trial], column) for trial, found in rows.items() if trial in methods}
