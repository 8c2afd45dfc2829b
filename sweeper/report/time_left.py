"""How long a running sweep may still take, from the trials that have ended last."""

from __future__ import annotations

import pandas as pd

from sweeper.report.gathered import Gathered
from trials.storage.rows import FINISHED

LAST = 50
"""Number of endings from which the rate is taken: the latest ones, since trials of a grid differ in length."""

_LEAST = 3


def time_left(gathered: Gathered) -> str:
    """One line: the time until the last trial ends if trials go on ending as the last ones did; empty if none is left.

    It is a rate of endings, so it counts what runs at the same time. Trials of other cells may take longer.
    """
    standing, trials = gathered.standing, gathered.sweep.trials
    open_trials = standing.left + standing.running
    if not open_trials:
        return ""
    if not standing.running:
        return "Nothing is running."
    over = trials[trials["status"].isin(FINISHED | {"failed"})]
    ended = pd.to_datetime(over["ended"], utc=True, errors="coerce").dropna().sort_values().tail(LAST)
    begun = pd.to_datetime(trials.loc[ended.index, "started"], utc=True, errors="coerce").min()
    if len(ended) < _LEAST or pd.isna(begun):
        return f"The time left is not known before {_LEAST} trials have ended."
    now = pd.Timestamp(gathered.at, unit="s", tz="UTC")
    begun_s = pd.to_datetime(trials["started"], utc=True, errors="coerce")
    spans = pd.DataFrame({"from": begun_s[ended.index], "until": ended})
    open_now = begun_s[trials["status"] == "running"].dropna()
    spans = pd.concat([spans, pd.DataFrame({"from": open_now, "until": now})])
    first = len(ended) == LAST  # then the time counts from the first of these endings, which is not one within it
    span_s = max(_covered_s(spans, since=ended.iloc[0] if first else begun), 1.0)
    per_hour = 3600 * (len(ended) - first) / span_s
    hours = open_trials / per_hour
    return f"About {_said(hours)} left, if trials go on ending as the last {len(ended)} did ({per_hour:.3g} an hour)."


def _covered_s(spans: pd.DataFrame, since: pd.Timestamp) -> float:
    """Seconds in which at least one trial ran: pauses between two runs of a sweep do not count."""
    covered, reached = 0.0, since
    for begun, until in spans.dropna().sort_values("from").itertuples(index=False):
        covered += max((until - max(begun, reached)).total_seconds(), 0.0)
        reached = max(reached, until)
    return covered


def _said(hours: float) -> str:
    if hours < 1.5:
        return f"{max(round(60 * hours), 1)} min"
    return f"{hours:.1f} h" if hours < 48 else f"{hours / 24:.1f} days"
