"""How many files and folders a finished trial takes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from sweeper.folder.sweep_folder import SweepFolder
from sweeper.packing import automatic
from sweeper.packing.automatic import drop_and_pack
from sweeper.packing.packing import pack_finished
from tests.sweeper.packing.packed_sweeps import commit_finished, inodes
from tests.sweeper.sweeps import make_space
from tests.trials.small_trials import config_of, folder_of, run_in
from trials.storage.config_file import write_config
from trials.storage.row_schema import rows_as_table, table_as_rows
from trials.storage.trial_folder import TrialFolder

TRIALS = 150


def many(path: Path, trials: int) -> SweepFolder:
    """A sweep of as many finished trials; nobody parses their configs."""
    folder = SweepFolder(path)
    folder.append({"space": make_space(grid={"density": [0.5]}).document()})
    for number in range(trials):
        trial = folder.trial_folder(f"one_shot-{number:012x}")
        sample = {"cell": f"seed={number}", "number": 0, "grid": {"seed": number}, "params": {}, "attrs": {}}
        write_config(trial, trial.name, {"method": "one_shot", "seed": number}, [{**sample, "stopped": None}])
        commit_finished(trial, number)
    return folder


def test_a_finished_trial_takes_few_files_and_packed_ones_next_to_none(tmp_path: Path) -> None:
    folder = many(tmp_path / "sweep", TRIALS)
    files = [path for path in (tmp_path / "sweep" / "trials").rglob("*") if path.is_file()]
    assert len(files) <= 5 * TRIALS
    assert pack_finished(folder).trials == TRIALS
    assert inodes(tmp_path / "sweep") <= 0.05 * TRIALS
    assert len(folder.records()) == TRIALS


def test_a_trial_with_rows_of_every_table_takes_five_files_at_most(tmp_path: Path) -> None:
    config = config_of("regrow", dataset="digits")
    state = run_in(tmp_path, config)
    folder = TrialFolder(folder_of(config, tmp_path))
    write_config(folder.path, config.id, config.model_dump(mode="json"))
    assert sum(path.is_file() for path in folder_of(config, tmp_path).rglob("*")) <= 5
    (commit,) = state.commits
    written = folder.rows(commit)
    assert written.keys() == {"epochs", "layers", "allocations"}
    own = json.loads(folder.checkpoint(commit)["rows"])
    assert written == {table: table_as_rows(rows_as_table(rows)) for table, rows in own.items()}
    next((folder_of(config, tmp_path) / "rows").glob("layers-*")).write_bytes(b"rot")
    (line,) = folder.verify()
    assert "layers-" in line
    repaired = folder.state()
    assert repaired is not None
    assert folder.rows(repaired.commits[-1]) == written


def test_a_run_packs_by_itself_once_there_are_many(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = many(tmp_path / "sweep", 3)
    drop_and_pack(folder, over=True)
    assert len(list((tmp_path / "sweep" / "trials").iterdir())) == 3
    monkeypatch.setattr(automatic, "PACK_ABOVE", 2)
    drop_and_pack(folder, over=True)
    assert list((tmp_path / "sweep" / "trials").iterdir()) == []
    assert len(folder.records()) == 3
