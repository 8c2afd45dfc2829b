"""The rows of ``epochs`` as curves: epochs that count on from stage to stage, and fewer points where there are many."""

from __future__ import annotations

import json
from dataclasses import dataclass

import pandas as pd

from sweeper.report.packed import packed

MOST_POINTS = 200
"""Points of a curve, but for first and last epochs of stages and the best epoch, which always stay."""

MOST_BYTES = 2_200_000
"""Bytes of all curves in a page; further points are left out until they fit."""

_SAMPLE = 3000


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
    if epochs.empty:
        empty: pd.DataFrame = epochs.assign(span=pd.Series(dtype=int), total_epoch=pd.Series(dtype=int))
        return empty
    keys = epochs[["trial", "stage", "level"]]
    begins = keys.ne(keys.shift()).any(axis=1)
    number = begins.groupby(epochs["trial"]).cumsum().astype(int) - 1
    rows: pd.DataFrame = epochs.assign(span=number)
    last = rows.groupby(["trial", "span"], sort=False)["epoch"].max().astype(int)
    before = last.groupby("trial", sort=False).cumsum() - last
    offset = pd.MultiIndex.from_frame(rows[["trial", "span"]])
    rows["total_epoch"] = before.reindex(offset).to_numpy() + rows["epoch"].astype(int).to_numpy()
    return rows


def thinned(rows: pd.DataFrame, best: str, digits: int = 4, most_bytes: int = MOST_BYTES) -> Thinned:
    """Leave out points of long curves.

    Args:
        rows: in order, with ``trial``, ``stage``, ``level`` and ``epoch``.
        best: the column of which the best (largest) value of each curve stays.
        digits: significant digits of real numbers in the page.
        most_bytes: of all rows, as the page holds them.
    """
    sizes = rows.groupby("trial", sort=False)["epoch"].transform("size")
    place = rows.groupby("trial", sort=False).cumcount()
    kept = _always(rows, best, place, sizes)
    points, bytes_of_row = MOST_POINTS, _bytes_of_row(rows, digits)
    left = _kept(kept, place, sizes, points, rows["trial"])
    while int(left.sum()) * bytes_of_row > most_bytes and points > 2:
        points = max(min(points - 1, int(points * most_bytes / (int(left.sum()) * bytes_of_row))), 2)
        left = _kept(kept, place, sizes, points, rows["trial"])
    counts = pd.DataFrame({"trial": rows["trial"], "left": left}).groupby("trial", sort=False)["left"]
    before, after = counts.size(), counts.sum()
    shorter = after < before
    if not shorter.any():
        return Thinned(rows)
    why = "" if points == MOST_POINTS else ", so that the page stays small"
    said = (
        f"{int(shorter.sum()):,} of {len(before):,} curves thinned from up to {int(before[shorter].max()):,} to "
        f"{int(after[shorter].max()):,} points{why}: ends of stages and the best epoch are kept; python: "
        "sweeper.load(...).epochs has them all"
    )
    return Thinned(rows[left].reset_index(drop=True), said)


def _always(rows: pd.DataFrame, best: str, place: pd.Series[int], sizes: pd.Series[int]) -> pd.Series[bool]:
    """Rows that always stay: first and last ones of stages and levels, and the best one of each trial."""
    keys = rows[["trial", "stage", "level"]]
    edge = keys.ne(keys.shift()).any(axis=1) | keys.ne(keys.shift(-1)).any(axis=1)
    kept: pd.Series[bool] = edge | (place == 0) | (place == sizes - 1)
    known = rows[best].astype(float)
    if known.notna().any():
        kept.loc[known.dropna().groupby(rows["trial"], sort=False).idxmax()] = True
    return kept


def _kept(
    always: pd.Series[bool], place: pd.Series[int], sizes: pd.Series[int], points: int, trial: pd.Series[str]
) -> pd.Series[bool]:
    """Of each curve, the rows that always stay and evenly spaced others, ``points`` in all where that is possible."""
    free = (points - always.groupby(trial, sort=False).transform("sum")).clip(lower=0)
    number = (place + 1) * free // sizes
    spaced = number > place * free // sizes
    return always | spaced | (sizes <= points)


def _bytes_of_row(rows: pd.DataFrame, digits: int) -> float:
    step = max(len(rows) // _SAMPLE, 1)
    sample = rows.iloc[::step]
    return len(json.dumps(packed(sample, digits), separators=(",", ":"))) / max(len(sample), 1)
