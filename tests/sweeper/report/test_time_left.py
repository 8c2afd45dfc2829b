"""The time that is left of a sweep, from the trials that have ended last."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

from sweeper.report.gathered import Gathered
from sweeper.report.time_left import LAST, time_left
from tests.sweeper.report.made_sweeps import made

HOUR_S = 3600


def running(path: Path, spans: list[tuple[float, float | None]], now_h: float, left: int = 0) -> Gathered:
    """A sweep whose trials ran from one hour to another (None: still running), as of ``now_h``."""
    kinds = ["running" if until is None else "complete" for _, until in spans]
    gathered = made(path, densities=[0.5], samples=len(spans), seeds=1, methods=["imp"], status=lambda n: kinds[n])

    def stamp(hour: float | None) -> str | None:
        return None if hour is None else pd.Timestamp(hour * HOUR_S, unit="s").strftime("%Y-%m-%dT%H:%M:%SZ")

    trials = gathered.sweep.trials.assign(
        started=[stamp(begun) for begun, _ in spans], ended=[stamp(until) for _, until in spans]
    )
    standing = replace(gathered.standing, running=kinds.count("running"), left=left)
    sweep = replace(gathered.sweep, trials=trials)
    return replace(gathered, sweep=sweep, standing=standing, at=now_h * HOUR_S)


def test_trials_go_on_ending_as_they_did(tmp_path: Path) -> None:
    """Two at a time, an hour each: 4 have ended after 2 hours, so 2 an hour."""
    spans: list[tuple[float, float | None]] = [(0, 1), (0, 1), (1, 2), (1, 2), (2, None), (2, None)]
    said = time_left(running(tmp_path / "s", spans, 2, left=4))
    assert said == "About 3.0 h left, if trials go on ending as the last 4 did (2 an hour)."


def test_a_pause_between_two_runs_does_not_count(tmp_path: Path) -> None:
    spans: list[tuple[float, float | None]] = [(0, 1), (1, 2), (100, 101), (101, None)]
    assert "(1 an hour)" in time_left(running(tmp_path / "s", spans, 101, left=1))
    assert time_left(running(tmp_path / "s2", spans, 101, left=1)).startswith("About 2.0 h left")


def test_only_the_latest_trials_count(tmp_path: Path) -> None:
    """Trials of an hour first, then of half an hour."""
    spans: list[tuple[float, float | None]] = [(n, n + 1) for n in range(10)]
    spans += [(10 + n / 2, 10.5 + n / 2) for n in range(LAST)]
    spans += [(10 + LAST / 2, None)]
    assert f"the last {LAST} did (2 an hour)" in time_left(running(tmp_path / "s", spans, 10 + LAST / 2))


@pytest.mark.parametrize(
    ("spans", "left", "said"),
    [
        ([(0, 1)], 0, ""),
        ([(0, 1)], 3, "Nothing is running."),
        ([(0, 1), (0, 1), (1, None)], 3, "The time left is not known before 3 trials have ended."),
    ],
)
def test_what_is_not_known_is_not_guessed(
    tmp_path: Path, spans: list[tuple[float, float | None]], left: int, said: str
) -> None:
    assert time_left(running(tmp_path / "s", spans, 1, left)) == said
