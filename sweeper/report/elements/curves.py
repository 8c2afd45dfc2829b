"""The rows of ``epochs`` as curves: epochs that count on from stage to stage, and fewer points where there are many."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
import pandas as pd

from sweeper.report.packed import packed

POINTS_OF_A_CURVE = 200
"""Points of a curve, but for first and last epochs of stages and the best epoch, which always stay."""

BYTES_OF_CURVES = 2_200_000
"""Bytes of all curves in a page; further points are left out until they fit."""

_SAMPLE = 3000

_Flags: TypeAlias = npt.NDArray[np.bool_]
_Places: TypeAlias = npt.NDArray[np.int64]
_Reals: TypeAlias = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Thinned:
    """Curves with at most so many points.

    Attributes:
        rows: what is left of the rows.
        said: a line on what was left out; empty for nothing.
    """

    rows: pd.DataFrame
    said: str = ""


def over_all_epochs(epochs: pd.DataFrame) -> pd.DataFrame:
    """Add to rows of ``epochs``, in their order, ``span`` and ``total_epoch``.

    ``span`` numbers the stages and levels of a trial from 0; ``total_epoch`` counts epochs over all of them. An epoch
    0, the network that a stage starts with, lies where the stage before it ended.
    """
    begins_trial, begins_span = _begins(epochs)
    trial, span = np.cumsum(begins_trial) - 1, np.cumsum(begins_span) - 1
    epoch = epochs["epoch"].to_numpy(dtype=np.int64)
    first = np.flatnonzero(begins_span)
    lasts = np.maximum.reduceat(epoch, first) if len(first) else np.zeros(0, dtype=np.int64)
    before = np.cumsum(lasts) - lasts  # over all trials: less what was before each of them
    starts = np.flatnonzero(begins_trial)
    rows: pd.DataFrame = epochs.assign(
        span=span - span[starts][trial], total_epoch=before[span] - before[span[starts]][trial] + epoch
    )
    return rows


def _begins(rows: pd.DataFrame) -> tuple[_Flags, _Flags]:
    """Where in the rows a trial begins, and where a stage or level of one does."""
    trial, stage, level = (pd.factorize(rows[name])[0] for name in ("trial", "stage", "level"))
    begins_trial = np.ones(len(rows), dtype=bool)
    begins_trial[1:] = trial[1:] != trial[:-1]
    begins_span = begins_trial.copy()
    begins_span[1:] |= (stage[1:] != stage[:-1]) | (level[1:] != level[:-1])
    return begins_trial, begins_span


def thinned(
    rows: pd.DataFrame, best: str, digits: int = 4, most_bytes: int = BYTES_OF_CURVES, sign: int = 1
) -> Thinned:
    """Leave out points of long curves.

    Args:
        rows: in order, with ``trial``, ``stage``, ``level`` and ``epoch``.
        best: the column of which the best value of each curve stays.
        digits: significant digits of real numbers in the page.
        most_bytes: of all rows, as the page holds them.
        sign: 1 if the largest value is the best one, -1 if the least.
    """
    if rows.empty:
        return Thinned(rows)
    begins_trial, begins_span = _begins(rows)
    starts = np.flatnonzero(begins_trial)
    trial = np.cumsum(begins_trial) - 1
    sizes = np.diff(np.append(starts, len(rows)))
    always = _always(sign * rows[best].to_numpy(dtype=float, na_value=np.nan), begins_span, starts, sizes, trial)
    points, bytes_of_row = POINTS_OF_A_CURVE, _bytes_of_row(rows, digits)
    left = _kept(always, starts, sizes, trial, points)
    while int(left.sum()) * bytes_of_row > most_bytes and points > 2:
        points = max(min(points - 1, int(points * most_bytes / (int(left.sum()) * bytes_of_row))), 2)
        left = _kept(always, starts, sizes, trial, points)
    after = np.add.reduceat(left.astype(np.int64), starts)
    shorter = after < sizes
    if not shorter.any():
        return Thinned(rows)
    why = "" if points == POINTS_OF_A_CURVE else ", so that the page stays small"
    said = (
        f"{int(shorter.sum()):,} of {len(sizes):,} curves thinned from up to {int(sizes[shorter].max()):,} to "
        f"{int(after[shorter].max()):,} points{why}; the ends of stages and the best epoch are among them, and the "
        "table epochs has all"
    )
    return Thinned(rows[left].reset_index(drop=True), said)


def _always(values: _Reals, begins_span: _Flags, starts: _Places, sizes: _Places, trial: _Places) -> _Flags:
    """Rows that always stay: first and last ones of stages and levels, and the best one of each trial."""
    always: _Flags = begins_span.copy()
    always[np.flatnonzero(begins_span)[1:] - 1] = True
    always[starts + sizes - 1] = True
    known = np.where(np.isnan(values), -np.inf, values)
    order = np.lexsort((-np.arange(len(known)), known, trial))  # by trial, then value; of equal ones the first is last
    best = order[starts + sizes - 1]
    always[best[np.isfinite(known[best])]] = True
    return always


def _kept(always: _Flags, starts: _Places, sizes: _Places, trial: _Places, points: int) -> _Flags:
    """Of each curve, the rows that always stay and evenly spaced others, ``points`` in all where that is possible."""
    free = np.clip(points - np.add.reduceat(always.astype(np.int64), starts), 0, None)[trial]
    place, size = np.arange(len(always)) - starts[trial], sizes[trial]
    spaced = (place + 1) * free // size > place * free // size
    kept: _Flags = always | spaced | (size <= points)
    return kept


def _bytes_of_row(rows: pd.DataFrame, digits: int) -> float:
    step = max(len(rows) // _SAMPLE, 1)
    sample = rows.iloc[::step]
    return len(json.dumps(packed(sample, digits), separators=(",", ":"))) / max(len(sample), 1)
