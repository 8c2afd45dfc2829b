"""How many files and folders a finished trial takes."""

from __future__ import annotations

from pathlib import Path

import pytest

from sweeper.folder.sweep_folder import SweepFolder
from sweeper.packing import automatic
from sweeper.packing.automatic import drop_and_pack
from sweeper.packing.packing import pack_finished
from tests.sweeper.packing.packed_sweeps import commit_finished, inodes
from tests.sweeper.sweeps import make_space
from trials.storage.config_file import write_config

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


def test_a_run_packs_by_itself_once_there_are_many(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = many(tmp_path / "sweep", 3)
    drop_and_pack(folder, over=True)
    assert len(list((tmp_path / "sweep" / "trials").iterdir())) == 3
    monkeypatch.setattr(automatic, "PACK_ABOVE", 2)
    drop_and_pack(folder, over=True)
    assert list((tmp_path / "sweep" / "trials").iterdir()) == []
    assert len(folder.records()) == 3
