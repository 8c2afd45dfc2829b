"""Files of complete trials are attached to their runs once, whatever happens in between, and stop nothing."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from sweeper.execution.told_rows import ToldRows
from tests.sweeper.execution.noting import Noting, Run, committed, past
from trials.errors import UserError
from trials.networks import attached
from trials.storage.trial_folder import TrialFolder


class Attaching(Noting):
    """Notes which files it was given."""

    def attach(self, trial: Any, folder: Path, sizes: Mapping[str, int]) -> None:
        self.wrong("attach")
        assert {path.name: path.stat().st_size for path in folder.iterdir()} == sizes
        self.events.append(("attach", trial.trial_id, sum(sizes.values())))


@pytest.fixture(autouse=True)
def small_files(monkeypatch: pytest.MonkeyPatch) -> None:
    def write(trial: Path, folder: Path, wanted: Any) -> dict[str, int]:
        assert wanted == ("masks",)
        (folder / "masks.pt").write_bytes(b"12345")
        return {"masks.pt": 5}

    monkeypatch.setattr(attached, "write_attached", write)


def run_of(folder: Path, callback: Noting) -> Run:
    return Run(folder, callback, artifacts=("masks",))


def begun(folder: Path, callback: Noting, trial_id: str = "a") -> Run:
    run = run_of(folder, callback)
    run.start(trial_id)
    return run


def test_they_are_attached_before_the_end_is_told_and_their_size_is_said(tmp_path: Path) -> None:
    callback = Attaching()
    run = begun(tmp_path, callback)
    committed(tmp_path / "a", 1)
    run.guarded.trial_over("a", failed=False)
    run.guarded.end()
    assert callback.events[-2:] == [("attach", "a", 5), ("complete TERMINATED", "a", None)]
    assert run.said == ["the callback mine attached artifacts of 1 trial, 5e-06 MB in all"]


@pytest.mark.parametrize("status", ["failed", "pruned"])
def test_only_complete_trials_have_them(tmp_path: Path, status: str) -> None:
    callback = Attaching()
    run = begun(tmp_path, callback)
    attempt, _ = TrialFolder(tmp_path / "a").begin()
    attempt.end(status, failures=1)
    run.guarded.trial_over("a", failed=status == "failed")
    run.guarded.end()
    assert [event for event, *_ in callback.events if event == "attach"] == []
    assert len(callback.events) == 2
    assert run.said == []


def test_a_trial_that_goes_on_in_the_next_run_has_them_at_its_end(tmp_path: Path) -> None:
    callback = Attaching()
    begun(tmp_path, callback).guarded.end()
    run = begun(tmp_path, callback)
    committed(tmp_path / "a", 1)
    run.guarded.trial_over("a", failed=False)
    run.guarded.end()
    assert [event for event, *_ in callback.events if event == "attach"] == ["attach"]


def test_a_kill_after_they_were_attached_attaches_none_again(tmp_path: Path) -> None:
    callback = Attaching()
    run = begun(tmp_path, callback)
    committed(tmp_path / "a", 1)
    run.guarded.trial_over("a", failed=False)
    run.guarded.end()
    told = tmp_path / "logs" / "told.jsonl"
    lines = [line for line in told.read_text().splitlines() if json.loads(line).get("ended") is not True]
    told.write_text("\n".join(lines) + "\n")  # the end was not told
    assert ToldRows(told).unfinished() == ["a"]
    again = run_of(tmp_path, callback)
    again.guarded.catch_up(["a"], past())
    again.guarded.end()
    assert [event for event, *_ in callback.events] == [
        *("start", "result", "attach", "complete TERMINATED"),
        *("start", "complete TERMINATED"),
    ]


def test_a_tracker_that_refuses_them_is_named_and_gets_them_in_the_next_run(tmp_path: Path) -> None:
    def wrong(event: str) -> None:
        if event == "attach":
            raise ConnectionError("no room on the server")

    callback = Attaching(wrong)
    run = begun(tmp_path, callback)
    committed(tmp_path / "a", 1)
    run.guarded.trial_over("a", failed=False)
    run.guarded.end()
    (line,) = run.said
    assert "the callback mine failed in attaching its artifacts (ConnectionError: no room on the server): it is" in line
    callback.wrong = lambda event: None
    again = run_of(tmp_path, callback)
    again.guarded.catch_up(again.guarded.tracker.told.unfinished(), past())
    again.guarded.end()
    assert callback.events[-2:] == [("attach", "a", 5), ("complete TERMINATED", "a", None)]


def test_a_network_that_cannot_be_written_is_named_and_the_end_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def write(*_: Any) -> None:
        raise UserError("its code builds another network now")

    monkeypatch.setattr(attached, "write_attached", write)
    callback = Attaching()
    run = begun(tmp_path, callback)
    run.start("b")
    for trial_id in "ab":
        committed(tmp_path / trial_id, 1)
        run.guarded.trial_over(trial_id, failed=False)
    run.guarded.end()
    assert [event for event, *_ in callback.events].count("complete TERMINATED") == 2
    why = "its code builds another network now"
    assert run.said == [f"the callback mine has no artifacts of a, as 1 more: {why}"]
