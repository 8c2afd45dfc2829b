"""A trial's folder: after any damage, work continues from what is intact."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.trials.counting import WRITES, assert_complete, committed, count, last_files, rows_up_to
from tests.trials.folders import state_of
from tests.trials.killing import Killed, killed_at_write
from trials.errors import DamagedFile
from trials.storage.trial_folder import TrialFolder


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


@pytest.mark.fault("checkpoint-damaged")
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
    state = state_of(tmp_path)
    assert [commit.number for commit in state.commits] == [1]
    count(tmp_path)
    assert_complete(tmp_path)
    assert aside.read_bytes() == rotten


def test_a_finished_trial_with_a_damaged_checkpoint_is_not_finished(tmp_path: Path) -> None:
    count(tmp_path)
    checkpoint, _ = last_files(tmp_path)
    rot(checkpoint, flip(0.5))
    assert TrialFolder(tmp_path).verify() == []  # checkpoints are verified only on request
    assert TrialFolder(tmp_path).verify(checkpoint=True)
    state = state_of(tmp_path)
    assert (state.status, state.result, state.commits) == ("running", {}, ())
    count(tmp_path)  # from the start: a finished trial has no commit before its last one
    assert_complete(tmp_path)


def test_damage_after_a_kill_does_not_go_back_to_what_should_have_been_removed(tmp_path: Path) -> None:
    with pytest.raises(Killed), killed_at_write(WRITES, "after"):  # the commit before is not removed
        count(tmp_path)
    rot(last_files(tmp_path)[0], flip(0.5))
    assert len(TrialFolder(tmp_path).verify(checkpoint=True)) == 1
    assert state_of(tmp_path).commits == ()
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


@pytest.mark.fault("rows-damaged")
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


@pytest.mark.fault("rows-damaged")
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
def test_json_without_a_state_is_damage(tmp_path: Path, content: str) -> None:
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
