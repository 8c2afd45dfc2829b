"""A trial's folder: whatever dies or rots in it, every row is there once and work goes on from what is whole."""

from __future__ import annotations

import io
import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import torch

from tests.trials.killing import PLACES, Killed, killed_at_write
from trials import files
from trials.errors import DamagedFile, Superseded
from trials.ledger import Row, Rows, TrialFolder

COMMITS = 3
WRITES = 1 + COMMITS * 4  # begin; then checkpoint, two row files and state each


def row(i: int) -> Row:
    return {"epoch": i, "loss": 1 / i, "note": None if i == 1 else f"row {i}", "stage": "train"}


def rows_up_to(i: int) -> Rows:
    return {
        "epochs": [row(k) for k in range(1, i + 1)],
        "layers": [{"layer": "conv", "kept": 100 // k} for k in range(1, i + 1)],
        "allocations": [],
    }


def count(path: Path, last: int = COMMITS) -> None:
    """A trial in small: each commit adds a row; it goes on from its checkpoint, and is not run again once finished."""
    folder = TrialFolder(path)
    folder.verify(checkpoint=True)
    state = folder.state()
    if state is not None and state.finished:
        return
    attempt, checkpoint = folder.begin(host="here")
    done = int(checkpoint["i"]) if checkpoint else 0
    rows: Rows = json.loads(checkpoint["rows"]) if checkpoint else {"epochs": [], "layers": [], "allocations": []}
    assert rows == rows_up_to(done)
    for i in range(done + 1, last + 1):
        rows["epochs"].append(row(i))
        rows["layers"].append({"layer": "conv", "kept": 100 // i})
        status = {"status": "complete", "result": {"i": i}} if i == COMMITS else {}
        attempt.commit(checkpoint={"i": torch.tensor(i)}, rows=rows, progress={"i": i}, seconds=float(i), **status)
    if last < COMMITS:
        attempt.end("preempted")


def committed(path: Path) -> int:
    """How far the folder says it is; checkpoint and rows must agree."""
    folder = TrialFolder(path)
    state = folder.state()
    if state is None or not state.commits:
        return 0
    i = int(folder.checkpoint(state.commits[-1])["i"])
    expected = {table: content for table, content in rows_up_to(i).items() if content}
    assert folder.rows(state.commits[-1]) == expected
    assert state.progress == {"i": i}
    return i


def assert_complete(path: Path) -> None:
    assert committed(path) == COMMITS
    state = TrialFolder(path).state()
    assert state is not None
    assert (state.status, state.finished, state.result) == ("complete", True, {"i": COMMITS})


def last_files(path: Path) -> tuple[Path, list[Path]]:
    state = TrialFolder(path).state()
    assert state is not None
    commit = state.commits[-1]
    assert commit.checkpoint is not None
    return path / "checkpoint" / commit.checkpoint, [path / "rows" / name for name in commit.rows.values()]


def test_nothing_is_committed_of_an_empty_folder(tmp_path: Path) -> None:
    folder = TrialFolder(tmp_path / "none yet")
    assert folder.state() is None
    assert folder.verify(checkpoint=True) == []


def test_runs_through(tmp_path: Path) -> None:
    count(tmp_path)
    assert_complete(tmp_path)
    state = TrialFolder(tmp_path).state()
    assert state is not None
    assert (state.attempt, state.failures, state.host, state.seconds) == (1, 0, "here", COMMITS)
    assert [commit.number for commit in state.commits] == [COMMITS - 1, COMMITS]
    assert "allocations" not in state.commits[-1].rows
    assert json.loads((tmp_path / "state.json").read_text())["schema"] == 1


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
    state = TrialFolder(tmp_path).state()
    assert state is not None
    assert state.attempt == (1 if written in (0, WRITES) else 2)


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
    state = TrialFolder(path).state()
    assert state is not None
    assert state.attempt == deaths + 1


def test_what_no_commit_names_is_removed_and_what_was_set_aside_is_not(tmp_path: Path) -> None:
    with pytest.raises(Killed), killed_at_write(8, "after"):  # a checkpoint and row files whose state was never written
        count(tmp_path)
    aside = tmp_path / "checkpoint" / "000009-a1-0123456789ab.pt.damaged"
    aside.write_bytes(b"kept for a person to look at")
    count(tmp_path)
    state = TrialFolder(tmp_path).state()
    assert state is not None
    named = {name for commit in state.commits for name in (commit.checkpoint, *commit.rows.values())}
    lying = {p.name for kind in ("checkpoint", "rows") for p in (tmp_path / kind).iterdir()}
    assert lying == named | {aside.name}


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


def flip(position: float) -> Callable[[bytes], bytes]:
    def damage(content: bytes) -> bytes:
        i = round(position * (len(content) - 1))
        return content[:i] + bytes([content[i] ^ 0x10]) + content[i + 1 :]

    return damage


DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "first byte": flip(0),
    "a bit in the middle": flip(0.5),
    "last byte": flip(1),
    "truncated": lambda content: content[: len(content) // 2],
    "empty": lambda _: b"",
    "zeros": lambda content: bytes(len(content)),
    "longer": lambda content: content + b"\0",
}
DAMAGE = pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES.keys())


def rot(path: Path, damage: Callable[[bytes], bytes]) -> bytes:
    content = damage(path.read_bytes())
    path.write_bytes(content)
    return content


@DAMAGE
def test_damaged_checkpoint_goes_back_to_the_one_before(tmp_path: Path, damage: Callable[[bytes], bytes]) -> None:
    count(tmp_path, last=2)
    checkpoint, _ = last_files(tmp_path)
    rotten = rot(checkpoint, damage)
    with pytest.raises(DamagedFile, match=checkpoint.name):
        committed(tmp_path)
    lines = TrialFolder(tmp_path).verify(checkpoint=True)
    aside = checkpoint.with_name(checkpoint.name + ".damaged")
    assert len(lines) == 1
    assert checkpoint.name in lines[0]
    assert aside.name in lines[0]
    assert aside.read_bytes() == rotten
    assert not checkpoint.exists()
    state = TrialFolder(tmp_path).state()
    assert state is not None
    assert [commit.number for commit in state.commits] == [1]
    count(tmp_path)
    assert_complete(tmp_path)
    assert aside.read_bytes() == rotten


def test_a_finished_trial_with_a_damaged_checkpoint_is_not_finished(tmp_path: Path) -> None:
    count(tmp_path)
    checkpoint, _ = last_files(tmp_path)
    rot(checkpoint, flip(0.5))
    assert TrialFolder(tmp_path).verify() == []  # whoever only wants its rows needs no checkpoint
    assert TrialFolder(tmp_path).verify(checkpoint=True)
    state = TrialFolder(tmp_path).state()
    assert state is not None
    assert (state.status, state.result) == ("running", {})
    count(tmp_path)
    assert_complete(tmp_path)


def test_a_missing_checkpoint_is_damage_too(tmp_path: Path) -> None:
    count(tmp_path, last=2)
    checkpoint, _ = last_files(tmp_path)
    checkpoint.unlink()
    (line,) = TrialFolder(tmp_path).verify(checkpoint=True)
    assert f"{checkpoint.name} is missing" in line
    count(tmp_path)
    assert_complete(tmp_path)


@DAMAGE
@pytest.mark.parametrize("table", ["epochs", "layers"])
def test_damaged_rows_are_written_again_not_computed_again(
    tmp_path: Path, table: str, damage: Callable[[bytes], bytes]
) -> None:
    count(tmp_path)
    _, row_files = last_files(tmp_path)
    (victim,) = [path for path in row_files if path.name.startswith(table)]
    rotten = rot(victim, damage)
    folder = TrialFolder(tmp_path)
    with pytest.raises(DamagedFile, match=victim.name):
        committed(tmp_path)
    lines = folder.verify()
    assert any(victim.name in line for line in lines)
    assert victim.with_name(victim.name + ".damaged").read_bytes() == rotten
    assert_complete(tmp_path)
    state = folder.state()
    assert state is not None
    assert state.attempt == 1
    assert folder.verify(checkpoint=True) == []


def test_missing_rows_are_written_again(tmp_path: Path) -> None:
    count(tmp_path)
    for path in last_files(tmp_path)[1]:
        path.unlink()
    assert TrialFolder(tmp_path).verify()
    assert_complete(tmp_path)


def test_damage_twice_is_set_aside_under_two_names(tmp_path: Path) -> None:
    count(tmp_path)
    for n in range(3):
        victim = last_files(tmp_path)[1][0]
        victim.write_bytes(b"rot %d" % n)
        TrialFolder(tmp_path).verify()
        assert_complete(tmp_path)
    aside = sorted(path.read_bytes() for path in (tmp_path / "rows").glob("*.damaged*"))
    assert aside == [b"rot 0", b"rot 1", b"rot 2"]


@DAMAGE
def test_damaged_state_is_found_again_from_the_checkpoints(tmp_path: Path, damage: Callable[[bytes], bytes]) -> None:
    count(tmp_path, last=2)
    state_path = tmp_path / "state.json"
    if damage is DAMAGES["a bit in the middle"]:
        state_path.write_bytes(state_path.read_bytes().replace(b'"commits"', b'"commitr"'))
    else:
        rot(state_path, damage)
    rotten = state_path.read_bytes()
    folder = TrialFolder(tmp_path)
    with pytest.raises(DamagedFile, match="is not a committed state"):
        folder.state()
    attempt, checkpoint = folder.begin()
    assert int(checkpoint["i"]) == 2
    assert attempt.state.attempt == 2
    assert any("state.json" in line and "set aside" in line for line in attempt.warnings)
    assert (tmp_path / "state.json.damaged").read_bytes() == rotten
    state = folder.state()
    assert state is not None
    assert folder.rows(state.commits[-1])["epochs"] == rows_up_to(2)["epochs"]
    count(tmp_path)
    assert_complete(tmp_path)


@pytest.mark.parametrize("content", ["5", "null", "[]", '"state"', "{}", '{"schema": 1, "commits": [3]}'])
def test_json_that_is_no_state_is_damage(tmp_path: Path, content: str) -> None:
    count(tmp_path, last=2)
    (tmp_path / "state.json").write_text(content)
    assert TrialFolder(tmp_path).verify(checkpoint=True)
    assert committed_number(tmp_path) == 2
    count(tmp_path)
    assert_complete(tmp_path)


def committed_number(path: Path) -> int:
    folder = TrialFolder(path)
    state = folder.state()
    assert state is not None
    assert folder.rows(state.commits[-1])["epochs"] == rows_up_to(2)["epochs"]
    return int(folder.checkpoint(state.commits[-1])["i"])


def test_damaged_state_and_newest_checkpoint(tmp_path: Path) -> None:
    count(tmp_path, last=2)
    checkpoint, _ = last_files(tmp_path)
    rot(checkpoint, flip(0.3))
    (tmp_path / "state.json").write_bytes(b"{")
    _, found = TrialFolder(tmp_path).begin()
    assert int(found["i"]) == 1
    count(tmp_path)
    assert_complete(tmp_path)


def test_everything_damaged_starts_anew(tmp_path: Path) -> None:
    count(tmp_path, last=2)
    checkpoints = list((tmp_path / "checkpoint").glob("*.pt"))
    assert len(checkpoints) == 2
    for path in checkpoints:
        rot(path, flip(0.5))
    attempt, checkpoint = TrialFolder(tmp_path).begin()
    assert checkpoint == {}
    assert attempt.state.commits == ()
    assert attempt.state.attempt == 2
    assert len(attempt.warnings) == 2
    count(tmp_path)
    assert_complete(tmp_path)
    assert len(list((tmp_path / "checkpoint").glob("*.damaged"))) == 2


def test_an_attempt_that_was_superseded_commits_nothing(tmp_path: Path) -> None:
    first, _ = TrialFolder(tmp_path).begin()
    first.commit(checkpoint={"i": torch.tensor(1)}, rows=rows_up_to(1), progress={"i": 1}, seconds=0.0)
    second, _ = TrialFolder(tmp_path).begin()
    for late in (
        lambda: first.commit(checkpoint={"i": torch.tensor(9)}, rows=rows_up_to(2), progress={"i": 9}, seconds=0.0),
        lambda: first.end("failed"),
        first.refuse_if_superseded,
    ):
        with pytest.raises(Superseded, match="attempt 1 commits"):
            late()
        assert committed(tmp_path) == 1
    second.commit(checkpoint={"i": torch.tensor(2)}, rows=rows_up_to(2), progress={"i": 2}, seconds=0.0)
    assert committed(tmp_path) == 2
    state = TrialFolder(tmp_path).state()
    assert state is not None
    assert (state.status, state.attempt) == ("running", 2)


def test_a_late_writer_that_is_past_the_check_spoils_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The successor begins between its check and its state: its files lie beside, its state is refused."""
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
    """What a checkpoint must never be able to do when it is loaded."""

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
    state = TrialFolder(tmp_path).state()
    assert state is not None
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
