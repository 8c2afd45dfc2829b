"""A trial's folder holds every row once, after any kill and any late write."""

from __future__ import annotations

import io
import json
import pickle
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import torch

from tests.trials.counting import COMMITS, WRITES, assert_complete, committed, count, last_files, rows_up_to
from tests.trials.folders import state_of
from tests.trials.killing import PLACES, Killed, killed_at_write
from trials.errors import Superseded
from trials.storage import files
from trials.storage.rows import Row
from trials.storage.trial_folder import State, TrialFolder


def test_nothing_is_committed_of_an_empty_folder(tmp_path: Path) -> None:
    folder = TrialFolder(tmp_path / "none yet")
    assert folder.state() is None
    assert folder.verify(checkpoint=True) == []


def test_runs_through(tmp_path: Path) -> None:
    count(tmp_path)
    assert_complete(tmp_path)
    state = state_of(tmp_path)
    assert (state.attempt, state.failures, state.host, state.seconds) == (1, 0, "here", COMMITS)
    assert [commit.number for commit in state.commits] == [COMMITS]
    assert lying(tmp_path) == named(state)
    assert "allocations" not in state.commits[-1].rows
    assert json.loads((tmp_path / "state.json").read_text())["schema"] == 1


def named(state: State) -> set[str]:
    return {str(name) for commit in state.commits for name in (commit.checkpoint, *commit.rows.values())}


def lying(path: Path) -> set[str]:
    return {p.name for kind in ("checkpoint", "rows") for p in (path / kind).iterdir()}


def test_an_unfinished_trial_and_a_shared_one_keep_the_commit_before(tmp_path: Path) -> None:
    for status, spare, numbers in (
        ("running", False, [2, 3]),
        ("failed", False, [2, 3]),
        ("preempted", False, [2, 3]),
        ("complete", False, [3]),
        ("pruned", False, [3]),
        ("complete", True, [2, 3]),
    ):
        path = tmp_path / f"{status}-{spare}"
        attempt, _ = TrialFolder(path).begin()
        for i in (1, 2, 3):
            last = {"status": status} if i == 3 else {}
            attempt.commit(checkpoint={"i": torch.tensor(i)}, rows=rows_up_to(i), progress={"i": i}, seconds=0.0,
                           spare=spare, **last)  # fmt: skip
        state = state_of(path)
        assert [commit.number for commit in state.commits] == numbers, (status, spare)
        assert lying(path) == named(state)
        assert committed(path) == 3


def test_a_kill_before_the_commit_before_is_removed(tmp_path: Path) -> None:
    """The last commit counts alone from the moment that the state is written; the next look removes what is left."""
    with pytest.raises(Killed), killed_at_write(WRITES, "after"):
        count(tmp_path)
    state = state_of(tmp_path)
    assert named(state) < lying(tmp_path)
    assert_complete(tmp_path)
    folder = TrialFolder(tmp_path)
    assert folder.verify(checkpoint=True) == []
    assert lying(tmp_path) == named(state)
    assert_complete(tmp_path)


def test_two_commits_of_an_earlier_version_stay(tmp_path: Path) -> None:
    """Earlier versions kept two commits in finished trials; damage still goes back to the first of them."""
    attempt, _ = TrialFolder(tmp_path).begin()
    for i in range(1, COMMITS + 1):
        last = {"status": "complete", "result": {"i": i}} if i == COMMITS else {}
        attempt.commit(checkpoint={"i": torch.tensor(i)}, rows=rows_up_to(i), progress={"i": i}, seconds=0.0,
                       spare=True, **last)  # fmt: skip
    before = lying(tmp_path)
    assert TrialFolder(tmp_path).verify(checkpoint=True) == []
    assert lying(tmp_path) == before
    assert_complete(tmp_path)
    last_files(tmp_path)[0].write_bytes(b"rot")
    assert len(TrialFolder(tmp_path).verify(checkpoint=True)) == 1
    assert [commit.number for commit in state_of(tmp_path).commits] == [COMMITS - 1]
    count(tmp_path)
    assert_complete(tmp_path)
    assert [commit.number for commit in state_of(tmp_path).commits] == [COMMITS]


def test_a_commit_writes_checkpoint_then_rows_then_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    original, order = files.write, []

    def write(path: Path, content: bytes) -> None:
        order.append(path.parent.name if path.name != "state.json" else "state")
        original(path, content)

    monkeypatch.setattr(files, "write", write)
    count(tmp_path)
    assert order == ["state"] + COMMITS * ["checkpoint", "rows", "rows", "state"]


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("number", range(1, WRITES + 1))
def test_a_kill_at_any_write_loses_nothing_and_doubles_nothing(tmp_path: Path, number: int, place: str) -> None:
    with pytest.raises(Killed), killed_at_write(number, place):
        count(tmp_path)
    written = number if place == "after" else number - 1
    assert committed(tmp_path) == max(written - 1, 0) // 4
    count(tmp_path)
    assert_complete(tmp_path)
    state = state_of(tmp_path)
    assert state.attempt == (1 if written in (0, WRITES) else 2)
    assert len(state.commits) == 1
    assert lying(tmp_path) == named(state)


@pytest.mark.parametrize("place", PLACES)
def test_a_kill_in_every_attempt(tmp_path: Path, place: str) -> None:
    deaths, path = 0, tmp_path
    while deaths < 2 * COMMITS:
        try:
            with killed_at_write(6, place):  # begin, one commit, and a piece of the next
                count(path)
            break
        except Killed:
            deaths += 1
    assert deaths == COMMITS - 1
    assert_complete(path)
    state = state_of(path)
    assert state.attempt == deaths + 1


def test_files_of_no_commit_are_removed_except_those_set_aside(tmp_path: Path) -> None:
    with pytest.raises(Killed), killed_at_write(8, "after"):  # leaves a checkpoint and row files without their state
        count(tmp_path)
    aside = tmp_path / "checkpoint" / "000009-a1-0123456789ab.pt.damaged"
    aside.write_bytes(b"kept for a person to look at")
    count(tmp_path)
    assert lying(tmp_path) == named(state_of(tmp_path)) | {aside.name}


def test_leftovers_of_a_killed_writer_are_not_read(tmp_path: Path) -> None:
    count(tmp_path, last=1)
    checkpoint, (epochs, layers) = last_files(tmp_path)
    stray = {
        checkpoint.with_name(f".{checkpoint.name}.123.tmp"): b"half",
        tmp_path / "checkpoint" / "000009-a1-0123456789ab.pt": b"of a commit that never was",
        epochs.with_name("epochs-000009-a1-0123456789ab.parquet"): b"likewise",
        layers.with_name(f".{layers.name}.123.tmp"): b"half",
        tmp_path / ".state.json.123.tmp": b"{",
    }
    for path, content in stray.items():
        path.write_bytes(content)
    assert committed(tmp_path) == 1
    assert TrialFolder(tmp_path).verify(checkpoint=True) == []
    count(tmp_path)
    assert_complete(tmp_path)


def test_an_attempt_that_was_superseded_commits_nothing(tmp_path: Path) -> None:
    first, _ = TrialFolder(tmp_path).begin()
    first.commit(checkpoint={"i": torch.tensor(1)}, rows=rows_up_to(1), progress={"i": 1}, seconds=0.0)
    second, _ = TrialFolder(tmp_path).begin()
    for late in (
        lambda: first.commit(checkpoint={"i": torch.tensor(9)}, rows=rows_up_to(2), progress={"i": 9}, seconds=0.0),
        lambda: first.end("failed"),
        first.refuse_if_superseded,
    ):
        with pytest.raises(Superseded, match="attempt 1 may not commit"):
            late()
        assert committed(tmp_path) == 1
    second.commit(checkpoint={"i": torch.tensor(2)}, rows=rows_up_to(2), progress={"i": 2}, seconds=0.0)
    assert committed(tmp_path) == 2
    state = state_of(tmp_path)
    assert (state.status, state.attempt) == ("running", 2)


@pytest.mark.fault("late-writer")
def test_a_late_writer_that_is_past_the_check_spoils_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The successor begins between its check and its state: its files stay unused, its state is refused."""
    first, _ = TrialFolder(tmp_path).begin()
    original = TrialFolder.write_checkpoint

    def write_checkpoint(self: TrialFolder, *arguments: Any) -> str:
        monkeypatch.setattr(TrialFolder, "write_checkpoint", original)
        count(tmp_path, last=2)
        return original(self, *arguments)

    monkeypatch.setattr(TrialFolder, "write_checkpoint", write_checkpoint)
    with pytest.raises(Superseded):
        first.commit(checkpoint={"i": torch.tensor(9)}, rows=rows_up_to(1), progress={"i": 9}, seconds=0.0)
    assert committed(tmp_path) == 2
    count(tmp_path)
    assert_complete(tmp_path)


class Payload:
    """A pickle that makes a folder when it is loaded, which a checkpoint must never be able to do."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.mkdir, (self.marker,)


def test_checkpoints_are_loaded_as_tensors_only(tmp_path: Path) -> None:
    count(tmp_path, last=1)
    marker = tmp_path / "was here"
    buffer = io.BytesIO()
    torch.save({"i": Payload(marker)}, buffer)
    checkpoint, _ = last_files(tmp_path)
    name = f"000001-a1-{files.digest(buffer.getvalue())}.pt"
    checkpoint.with_name(name).write_bytes(buffer.getvalue())
    state_path = tmp_path / "state.json"
    state_path.write_text(state_path.read_text().replace(checkpoint.name, name))
    state = state_of(tmp_path)
    with pytest.raises(pickle.UnpicklingError):
        TrialFolder(tmp_path).checkpoint(state.commits[-1])
    assert not marker.exists()


def test_columns_are_those_of_all_rows(tmp_path: Path) -> None:
    folder = TrialFolder(tmp_path)
    rows: list[Row] = [{"a": 1, "b": None, "c": None}, {"a": 0.5, "b": "x", "c": None, "d": True}]
    name = folder.write_rows("epochs", rows, 1, 1)
    read = pq.read_table(tmp_path / "rows" / name).to_pylist()
    assert read == [{"a": 1.0, "b": None, "c": None, "d": None}, {"a": 0.5, "b": "x", "c": None, "d": True}]


def test_one_table_as_arrow(tmp_path: Path) -> None:
    count(tmp_path, last=2)
    folder = TrialFolder(tmp_path)
    state = folder.state()
    assert state is not None
    epochs = folder.table(state.commits[-1], "epochs")
    assert epochs is not None
    assert epochs.to_pylist() == rows_up_to(2)["epochs"]
    assert folder.table(state.commits[-1], "allocations") is None


def test_files_are_replaced_whole(tmp_path: Path) -> None:
    path = tmp_path / "file"
    files.write(path, b"old")
    files.write(path, b"new")
    assert path.read_bytes() == b"new"
    assert list(tmp_path.iterdir()) == [path]


def test_require_writable(tmp_path: Path) -> None:
    files.require_writable(tmp_path / "a" / "b")
    assert list((tmp_path / "a" / "b").iterdir()) == []
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(OSError, match="file"):
        files.require_writable(tmp_path / "file" / "below")
