"""Trackers that have missed trials of earlier runs: they are caught up beside what happens now, each row told once."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Any

import pytest

from sweeper.execution.told_rows import ToldRows
from tests.sweeper.execution.noting import Event, Noting, Run, committed, past


def cut_off(folder: Path, count: int, rows: int) -> list[str]:
    """Trials of an earlier run that are complete, of which the tracker knows nothing but that they have begun."""
    told = ToldRows(folder / "logs" / "told.jsonl")
    told.open()
    names = [f"old-{i}" for i in range(count)]
    for name in names:
        told.begin(name)
        committed(folder / name, rows)
    told.close()
    return names


def test_what_earlier_runs_have_missed_counts_not_as_behind_and_waits_for_this_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sweeper.execution.on_ray.trackers.guarded.MOST_BEHIND", 5)
    missed = cut_off(tmp_path, 12, rows=2)
    told_first, go_on = threading.Event(), threading.Event()

    def wrong(event: str) -> None:
        if event == "start" and not told_first.is_set():
            told_first.set()
            go_on.wait(60)

    callback = Noting(wrong)
    run = Run(tmp_path, callback)
    run.guarded.catch_up(missed, past())
    assert told_first.wait(20)
    run.start("new")
    run.rows("new", 1)
    committed(tmp_path / "new", 1)
    run.guarded.trial_over("new", failed=False)
    go_on.set()
    run.guarded.end()
    assert run.said == []
    assert callback.events[:4] == [
        ("start", "old-0", None),
        ("start", "new", None),
        ("result", "new", 1),
        ("complete TERMINATED", "new", None),
    ]
    for name in missed:
        own = [event for event in callback.events if event[1] == name]
        assert own == [
            ("start", name, None),
            ("result", name, 1),
            ("result", name, 2),
            ("complete TERMINATED", name, None),
        ]
    assert ToldRows(tmp_path / "logs" / "told.jsonl").unfinished() == []


def test_each_run_gets_further_and_says_once_how_much_is_left(tmp_path: Path) -> None:
    left = cut_off(tmp_path, 30, rows=1)
    events, said = list[Event](), []
    for _ in range(30):
        callback = Noting(lambda event: time.sleep(0.0 if event == "end" else 0.02))
        run = Run(tmp_path, callback, timeout_s=0.5)
        run.guarded.catch_up(left, past())
        run.guarded.end()
        events += callback.events
        before, left = left, ToldRows(tmp_path / "logs" / "told.jsonl").unfinished()
        assert len(left) < len(before)
        said.append(run.said)
        if not left:
            break
        assert run.said == [
            f"the callback mine has not caught up with earlier runs: {len(left)} of their trials are left, which the "
            "next run tells it"
        ]
        assert callback.events[-1][0] in ("complete TERMINATED", "complete PAUSED")
    assert said[-1] == []
    assert len(said) > 1
    assert sorted(event[1] for event in events if event[0] == "result") == sorted(f"old-{i}" for i in range(30))


def test_a_run_that_stops_does_not_wait_for_what_was_missed(tmp_path: Path) -> None:
    missed = cut_off(tmp_path, 12, rows=1)
    run = Run(tmp_path, Noting(lambda event: time.sleep(0.0 if event == "end" else 0.1)))
    run.guarded.catch_up(missed, past(), lambda: True)
    run.guarded.end()
    (line,) = run.said
    assert "has not caught up with" in line
    assert len(ToldRows(tmp_path / "logs" / "told.jsonl").unfinished()) >= 6


def test_a_trial_that_goes_on_while_it_is_caught_up_is_told_each_row_once(tmp_path: Path) -> None:
    missed = cut_off(tmp_path, 1, rows=3)
    told_one, go_on = threading.Event(), threading.Event()

    def wrong(event: str) -> None:
        if event == "result" and not told_one.is_set():
            told_one.set()
            go_on.wait(60)

    callback = Noting(wrong)
    run = Run(tmp_path, callback)
    run.guarded.catch_up(missed, past())
    assert told_one.wait(20)
    run.start("old-0")
    run.guarded.trial_over("old-0", failed=False)
    go_on.set()
    run.guarded.end()
    assert [number for event, _, number in callback.events if event == "result"] == [1, 2, 3]
    assert [event for event, _, _ in callback.events if event.startswith("complete")] == [
        "complete PAUSED",
        "complete TERMINATED",
    ]


def test_what_cannot_be_read_stays_for_the_next_run(tmp_path: Path) -> None:
    def unread(trial_id: str) -> Any:
        if trial_id == "old-0":
            raise OSError("the storage is away")
        return past()(trial_id)

    missed = cut_off(tmp_path, 2, rows=1)
    callback = Noting()
    run = Run(tmp_path, callback)
    run.guarded.catch_up(missed, unread)
    run.guarded.end()
    assert {event[1] for event in callback.events} == {"old-1"}
    assert run.said == [
        "the callback mine has not caught up with earlier runs: 1 of their trials are left, which the next run tells it"
    ]
