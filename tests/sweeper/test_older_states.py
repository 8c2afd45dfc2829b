"""A state, whole and of this trial, that is older than what was committed since, as from a copy that was put back."""

from __future__ import annotations

from pathlib import Path

import pytest

import sweeper
from sweeper.packing.automatic import drop_and_pack
from sweeper.packing.own_files import drop_checkpoint
from sweeper.packing.packing import pack_finished
from sweeper.packing.repairing import repaired
from tests.sweeper.packing.packed_sweeps import commit_finished, content_of, sweep_of
from tests.trials.sealed_files import document, without_checksum, write_document
from trials.storage.trial_folder import TrialFolder

OLD = {"status": "failed", "failures": 5, "commits": [], "result": {}, "progress": {}, "ended": ""}


def put_back(state: Path, whole: bytes, **changes: object) -> None:
    """An older state of the trial, whose latest one is ``whole``."""
    state.parent.mkdir(exist_ok=True)
    state.write_bytes(whole)
    write_document(state, {**document(state), **OLD, **changes})


@pytest.mark.fault("packed-damaged")
@pytest.mark.parametrize("status", ["failed", "running"])
@pytest.mark.parametrize("with_config", [True, False])
def test_an_older_state_of_a_packed_trial_is_set_aside(tmp_path: Path, status: str, with_config: bool) -> None:
    folder = sweep_of(tmp_path / "sweep", 2)
    first, _ = sorted(folder.trials.iterdir())
    state, config = (first / "state.json").read_bytes(), (first / "config.json").read_bytes()
    before = content_of(folder)
    pack_finished(folder)
    put_back(first / "state.json", state, status=status)
    if with_config:
        (first / "config.json").write_bytes(config)
    assert content_of(folder) == before
    with pytest.warns(UserWarning, match=r"state\.json is older than what is packed"):
        assert set(sweeper.load(folder.path).trials["status"]) == {"complete"}
    (line,) = repaired(folder)
    assert f"{first / 'state.json'} is older than what is packed of the trial; set aside" in line
    assert content_of(folder) == before
    assert repaired(folder) == []
    assert content_of(folder) == before


@pytest.mark.fault("packed-damaged")
def test_a_later_state_of_a_packed_trial_counts(tmp_path: Path) -> None:
    """It was unpacked and went on, and an older manifest was put back."""
    folder = sweep_of(tmp_path / "sweep", 1)
    (first,) = folder.trials.iterdir()
    state = (first / "state.json").read_bytes()
    pack_finished(folder)
    put_back(first / "state.json", state, attempt=2)
    assert [record.state.status for record in folder.records() if record.state] == ["failed"]
    assert repaired(folder) == []
    assert [record.state.status for record in folder.records() if record.state] == ["failed"]


@pytest.mark.fault("document-changed")
@pytest.mark.parametrize("status", ["failed", "running"])
def test_a_trial_goes_on_from_files_that_are_later_than_its_state(tmp_path: Path, status: str) -> None:
    folder = sweep_of(tmp_path / "sweep", 1)
    (first,) = folder.trials.iterdir()
    write_document(first / "state.json", {**document(first / "state.json"), **OLD})
    commit_finished(first, 0)  # as --retry-failed does
    after = content_of(folder)
    put_back(first / "state.json", (first / "state.json").read_bytes(), status=status, attempt=1)
    with pytest.warns(UserWarning, match=r"state\.json is older than the files beside it"):
        sweeper.load(folder.path)
    (line,) = repaired(folder)
    assert line.startswith(f"{first / 'state.json'} is older than the files beside it")
    (state,) = (record.state for record in folder.records())
    assert state is not None
    assert [commit.checkpoint for commit in state.commits] == [after[first.name][2]["commits"][0]["checkpoint"]]
    assert repaired(folder) == []
    _, checkpoint = TrialFolder(first).begin()
    assert checkpoint["position"] == {"stage": 1}


def test_what_is_no_trial_of_the_sweep_keeps_its_checkpoints(tmp_path: Path) -> None:
    folder = sweep_of(tmp_path / "sweep", 1)
    (first,) = folder.trials.iterdir()
    mine = first / "checkpoint" / "mine.pt"
    mine.write_bytes(b"my own")
    backup = first.with_name("backup")
    first.rename(backup)
    without_checksum(backup / "config.json")
    without_checksum(backup / "state.json")
    before = {path: path.read_bytes() for path in backup.rglob("*") if path.is_file()}
    drop_checkpoint(folder, "backup")
    assert {path: path.read_bytes() for path in backup.rglob("*") if path.is_file()} == before
    backup.rename(first)
    drop_and_pack(folder, over=True)
    drop_checkpoint(folder, first.name)
    assert [path.name for path in (first / "checkpoint").iterdir()] == ["mine.pt"]
