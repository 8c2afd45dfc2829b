"""A trial's folder with what no trial has written: names that lead elsewhere, links, pipes, files of other trials."""

from __future__ import annotations

import io
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from tests.trials.counting import assert_complete, count, last_files, rows_up_to
from tests.trials.folders import state_of
from tests.trials.sealed_files import change_document, document, without_checksum, write_document
from trials.errors import DamagedFile
from trials.storage import committed_files, files
from trials.storage.trial_folder import TrialFolder

Place = Callable[[Path], object]


@pytest.fixture
def trial(tmp_path: Path) -> Path:
    """The folder of a trial in a sweep that has committed twice of three times."""
    folder = tmp_path / "sweep" / "trials" / "bip-0123456789ab"
    count(folder, last=2)
    return folder


def elsewhere(trial: Path) -> dict[str, bytes | None]:
    """All that lies around the trial's folder."""
    root = trial.parents[2]
    inside = [path for path in root.rglob("*") if trial not in path.parents]
    return {str(path): path.read_bytes() if path.is_file() else None for path in sorted(inside)}


def resume(trial: Path) -> list[str]:
    """Let the trial go on to its end, and return what was set aside; nothing else may have changed."""
    before = elsewhere(trial)
    attempt, _ = TrialFolder(trial).begin()
    count(trial)
    assert_complete(trial)
    assert elsewhere(trial) == before
    assert all("\n" not in line for line in attempt.warnings)
    return list(attempt.warnings)


def replace_checkpoint(trial: Path, content: bytes) -> None:
    """Give the last commit another checkpoint, with its hash in the name."""
    state = document(trial / "state.json")
    name = f"{state['commits'][-1]['number']:06d}-a1-{files.digest(content)}.pt"
    state["commits"][-1]["checkpoint"] = name
    (trial / "checkpoint" / name).write_bytes(content)
    write_document(trial / "state.json", state)


def saved(content: object) -> bytes:
    buffer = io.BytesIO()
    torch.save(content, buffer)
    return buffer.getvalue()


# --- names


@pytest.mark.fault("name-leads-outside")
@pytest.mark.parametrize("sealed", [True, False], ids=["with checksum", "older version"])
@pytest.mark.parametrize(
    "commit",
    [
        {"checkpoint": "../../../secret.pt"},
        {"checkpoint": "../../../../../000001-a1-0123456789ab.pt"},
        {"rows": {"epochs": "../../../secret.parquet"}},
        {"rows": {"../../x": "../../x-000001-a1-0123456789ab.parquet"}},
        {"rows": {"layers": "epochs-000001-a1-0123456789ab.parquet"}},
        {"number": -1},
        {"number": 10**400},
        {"more": 1},
    ],
    ids=lambda commit: str(commit)[:60],
)
def test_no_name_in_a_state_leads_elsewhere(trial: Path, commit: dict[str, Any], sealed: bool) -> None:
    (trial.parents[2] / "secret.pt").write_bytes(saved({"i": 9}))
    (trial.parents[2] / "secret.parquet").write_bytes(b"x")
    content = document(trial / "state.json")
    content["commits"][-1] |= commit
    write_document(trial / "state.json", content)
    if not sealed:
        without_checksum(trial / "state.json")
    with pytest.raises(DamagedFile, match="is not a committed state"):
        TrialFolder(trial).state()
    (line,) = resume(trial)
    assert "state.json.damaged" in line


@pytest.mark.fault("name-leads-outside")
@pytest.mark.parametrize("rows", [{"../../../x": [{"a": 1}]}, {"": [{"a": 1}]}, [1], {"epochs": [1]}, {"epochs": 1}])
def test_no_table_in_a_checkpoint_leads_elsewhere(trial: Path, rows: Any) -> None:
    replace_checkpoint(trial, saved({"i": torch.tensor(2), "rows": json.dumps(rows)}))
    assert any("no checkpoint" in line for line in resume(trial))


# --- values


@pytest.mark.parametrize(
    "fields",
    [
        {"status": "done"},
        {"attempt": "1"},
        {"attempt": -1},
        {"failures": True},
        {"commits": {}},
        {"progress": None},
        {"result": []},
        {"error": {"type": 1, "message": ""}},
        {"error": {}},
        {"seconds": float("nan")},
        {"seconds": 10**400},
        {"host": None},
        {"environments": None},
        {"environments": [1]},
        {"environments": [{"precision": 32}]},
        {"environments": [{"threads": 10**400}]},
        {"environments": [{"device": ["cpu"]}]},
        *({"environments": [{name: 1}]} for name in ("trial", "status", "samples", "density", "own:json", "")),
        *({"result": {name: "1"}} for name in ("trial", "status", "samples", "prunable", "own:json", "x:text", "")),
        {"result": {"kept": 10**400}},
        {"result": {"kept": float("inf")}},
        {"result": {"density": ""}},
        {"result": {"val_accuracy": [0.5]}},
        {"result": {"val_accuracy": True}},
        {"result": {"warnings": True}},
        {"result": {"warnings": [1]}},
        {"result": {"report": 1}},
    ],
    ids=lambda fields: str(fields)[:60],
)
def test_a_state_with_other_values_is_damaged(trial: Path, fields: dict[str, Any]) -> None:
    change_document(trial / "state.json", **fields)
    with pytest.raises(DamagedFile, match="is not a committed state"):
        TrialFolder(trial).state()
    assert resume(trial)


def test_a_result_may_hold_figures_of_a_methods_own(trial: Path) -> None:
    own = {"a": 10**400, "b": [1, [2.5]], "c": {"d": None}, "e f": "text", "g": True, "h": float("nan")}
    result = {**own, "kept": 3, "val_accuracy": float("nan"), "density": None, "warnings": ["one_class"]}
    change_document(trial / "state.json", result=result, environments=[{}, {"tf32": True, "cuda": None, "new": 1}])
    assert str(state_of(trial).result) == str(result)


# --- files of other trials


@pytest.mark.fault("files-swapped")
@pytest.mark.parametrize("name", ["state.json", "checkpoint"])
def test_another_trials_files_are_not_taken_over(trial: Path, name: str) -> None:
    other = trial.parent / "bip-ba9876543210"
    count(other)
    target = trial / name
    shutil.rmtree(target) if target.is_dir() else target.unlink()
    (shutil.copytree if (other / name).is_dir() else shutil.copyfile)(other / name, target)
    if name == "checkpoint":
        (trial / "state.json").unlink()  # so that checkpoints are looked for
    assert any("belongs to 'bip-ba9876543210'" in line for line in resume(trial))


def test_a_copy_elsewhere_may_have_any_name(trial: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(trial, tmp_path / "my best one")
    assert int(TrialFolder(copy).checkpoint(state_of(copy).commits[-1])["i"]) == 2


# --- what is no file


def _link(path: Path) -> None:
    target = path.parents[4] / f"target-{path.name}"
    path.rename(target)
    path.symlink_to(target)


def _instead(make: Place) -> Place:
    def put(path: Path) -> None:
        shutil.rmtree(path) if path.is_dir() else path.unlink()
        make(path)

    return put


OTHERS: dict[str, Place] = {
    "link": _link,
    "pipe": _instead(os.mkfifo),
    "folder": _instead(Path.mkdir),
    "link to /dev/zero": _instead(lambda path: path.symlink_to("/dev/zero")),
    "file": _instead(lambda path: path.write_bytes(b"x")),
}


@pytest.mark.fault("no-file", "link-leads-outside")
@pytest.mark.parametrize("kind", OTHERS)
@pytest.mark.parametrize("place", ["state", "rows", "checkpoint", "rows folder", "checkpoint folder"])
def test_what_lies_in_a_files_place_is_set_aside(trial: Path, place: str, kind: str) -> None:
    checkpoint, (rows, *_) = last_files(trial)
    path = {
        "state": trial / "state.json",
        "rows": rows,
        "checkpoint": checkpoint,
        "rows folder": rows.parent,
        "checkpoint folder": checkpoint.parent,
    }[place]
    if place.endswith("folder") and kind == "folder":
        pytest.skip("a folder is what belongs there")
    OTHERS[kind](path)
    assert any(f"{path.name}.damaged" in line for line in resume(trial))


@pytest.mark.fault("link-leads-outside")
def test_a_trials_folder_that_is_a_link_is_set_aside(trial: Path, tmp_path: Path) -> None:
    target = tmp_path / "elsewhere"
    trial.rename(target)
    trial.symlink_to(target)
    before = {path: path.read_bytes() for path in target.rglob("*") if path.is_file()}
    with pytest.raises(DamagedFile, match="is a link"):
        TrialFolder(trial).state()
    attempt, checkpoint = TrialFolder(trial).begin()
    assert checkpoint == {}
    assert "is a link, which is not followed" in attempt.warnings[0]
    assert {path: path.read_bytes() for path in target.rglob("*") if path.is_file()} == before


# --- checkpoints and rows that cannot be read


class Odd:
    """A class that no checkpoint holds."""


@pytest.mark.fault("checkpoint-of-another-version")
@pytest.mark.parametrize(
    "content",
    [
        saved({"i": Odd()}),
        saved([1, 2]),
        saved({1: 2}),
        saved({"rows": "{"}),
        saved({"rows": 3}),
        saved({"rows": "[" * 100_000}),
        b"",
        b"PK\x03\x04",
        b"\x80\x02}q\x00.",
        saved({"i": torch.tensor(2)})[:-40],
    ],
    ids=["class", "list", "numbers", "no JSON", "no text", "nested", "empty", "zip", "pickle", "cut"],
)
def test_a_whole_checkpoint_that_cannot_be_loaded_is_damaged(trial: Path, content: bytes) -> None:
    replace_checkpoint(trial, content)
    attempt, checkpoint = TrialFolder(trial).begin()
    assert int(checkpoint["i"]) == 1  # of the commit before
    (line,) = (line for line in attempt.warnings if ".pt" in line)
    assert ".pt.damaged" in line
    assert "weights_only=False" not in line
    count(trial)
    assert_complete(trial)


NET = {"model": {}, "masks": {}}


@pytest.mark.fault("checkpoint-damaged")
@pytest.mark.parametrize(
    "content",
    [
        {"architecture": {}, "position": {"stage": 1}, "data": "f"},
        {"net": 3, "architecture": {}, "position": {"stage": 1}, "data": "f"},
        {"net": NET, "architecture": {}, "data": "f"},
        {"net": NET, "architecture": {}, "position": {"stage": 1}},
        {"net": {"model": {}}, "architecture": {}, "position": {"stage": 1}, "data": "f"},
        {"net": NET, "architecture": {}, "position": {"stage": "1"}, "data": "f"},
        {"net": NET, "architecture": {}, "position": {}, "data": "f"},
        {"net": NET, "architecture": {}, "position": {"stage": 1}, "data": 3},
    ],
    ids=str,
)
def test_a_checkpoint_that_lacks_what_commits_hold_is_damaged(trial: Path, content: dict[str, Any]) -> None:
    replace_checkpoint(trial, saved(content))
    attempt, checkpoint = TrialFolder(trial).begin()
    assert int(checkpoint["i"]) == 1  # of the commit before
    (line,) = (line for line in attempt.warnings if ".pt" in line)
    assert "is no checkpoint: it" in line
    assert ".pt.damaged" in line


def test_lack_of_memory_is_no_damage(trial: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for error in (MemoryError(), RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 8")):

        def load(*_: Any, error: BaseException = error, **__: Any) -> None:
            raise error

        monkeypatch.setattr(torch, "load", load)
        with pytest.raises(MemoryError):
            TrialFolder(trial).begin()
    monkeypatch.undo()
    assert resume(trial) == []


@pytest.mark.fault("rows-odd")
@pytest.mark.parametrize(
    "table",
    [
        pa.table({"epoch": [1, 2], "of": [{"a": 1}, {"a": 2}]}),
        pa.table([pa.array([1]), pa.array([2])], names=["epoch", "epoch"]),
        pa.table({"epoch": ["one"]}),
        pa.table({"epoch": [1], "note": [b"bytes"]}),
        pa.table({"epoch": [1], "note": [[1, 2]]}),
        pa.table({"epoch": pa.array([True])}),
        pa.table({"epoch": [1, None]}),
        pa.table({"epoch": [1], "level": [float("nan")]}),
        pa.table({"epoch": [1], "level": pa.nulls(1)}),
        pa.table({"epoch": [1], "stage": [None], "stage:json": ["3"]}),
        pa.table({"epoch": [1], "stage": [1]}),
        pa.table({"epoch": [1], "own": [None], "own:json": ["{"]}),
        pa.table({"epoch": [1], "own": [None], "own:text": [3]}),
        pa.table({"epoch": [1], "warnings": [True]}),
        None,
    ],
    ids=[
        *(
            "struct",
            "duplicate",
            "text for numbers",
            "bytes",
            "lists",
            "true for numbers",
            "no epoch",
            "NaN",
            "no level",
        ),
        *("stage in JSON", "stage is a number", "no JSON", "no text", "warnings are true", "no Parquet"),
    ],
)
def test_rows_that_no_trial_writes_are_written_again(trial: Path, table: pa.Table | None) -> None:
    buffer = io.BytesIO(b"PAR1")
    if table is not None:
        pq.write_table(table, buffer)
    name = f"epochs-000002-a1-{files.digest(buffer.getvalue())}.parquet"
    (trial / "rows" / name).write_bytes(buffer.getvalue())
    content = document(trial / "state.json")
    content["commits"][-1]["rows"]["epochs"] = name
    write_document(trial / "state.json", content)
    with pytest.raises(DamagedFile, match=name):
        TrialFolder(trial).rows(state_of(trial).commits[-1])
    lines = TrialFolder(trial).verify()
    assert f"{name}.damaged" in lines[0]
    assert TrialFolder(trial).rows(state_of(trial).commits[-1])["epochs"] == rows_up_to(2)["epochs"]


@pytest.mark.fault("rows-odd")
def test_a_small_file_of_very_many_rows_is_not_read(trial: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(committed_files, "MOST_ROW_VALUES", 3)
    with pytest.raises(DamagedFile, match="2 rows of 4 columns"):
        TrialFolder(trial).table(state_of(trial).commits[-1], "epochs")
