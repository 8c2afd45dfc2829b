"""Damage of packed files: noticed, said in a line that names the file, and repaired as far as it can be."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

import sweeper
from sweeper.folder.sweep_folder import SweepFolder
from sweeper.packing import packing
from sweeper.packing.packing import pack_finished, unpack
from sweeper.packing.repairing import repaired
from tests.sweeper.packing.packed_sweeps import content_of, finish_all, sweep_of
from tests.sweeper.sweeps import begun, make_space
from trials.storage.packed.reading import forget_packs, packs_of

Damage = Callable[[Path], object]


def flip(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


def cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def pipe(file: Path) -> None:
    file.unlink()
    os.mkfifo(file)


DAMAGES: dict[str, Damage] = {"flipped": flip, "cut": cut, "deleted": Path.unlink, "a pipe": pipe}


def packed_sweep(path: Path) -> SweepFolder:
    """A packed sweep of two parts: the first one of two trials, the second one of one."""
    folder = sweep_of(path, 3)
    first, *_ = sorted(folder.trials.iterdir())
    shutil.move(first, path / "later")
    pack_finished(folder)
    shutil.move(path / "later", first)
    return folder


def run_again(folder: SweepFolder) -> None:
    """Run what is left of the sweep."""
    finish_all(begun(make_space(grid={"density": [0.5], "seed": [0, 1, 2]}), folder.path))


@pytest.mark.fault("packed-damaged")
@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("kind", ["manifest", "trials", "copy"])
def test_a_damaged_index_or_manifest_is_written_anew(tmp_path: Path, kind: str, damage: str) -> None:
    folder = packed_sweep(tmp_path / "sweep")
    before = content_of(folder)
    (file,) = (tmp_path / "sweep" / "packed").glob(f"{kind}*")
    DAMAGES[damage](file)
    forget_packs(folder.path)
    assert content_of(folder) == before
    forget_packs(folder.path)
    lines = repaired(folder)
    assert len(lines) == 1
    assert str(file) in lines[0]
    assert content_of(folder) == before
    assert repaired(folder) == []


@pytest.mark.fault("packed-damaged")
@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_rows_are_written_anew_from_checkpoints(tmp_path: Path, damage: str) -> None:
    folder = packed_sweep(tmp_path / "sweep")
    before = content_of(folder)
    (file,) = (tmp_path / "sweep" / "packed").glob("rows-epochs*")
    DAMAGES[damage](file)
    forget_packs(folder.path)
    with pytest.warns(UserWarning, match=file.name):
        assert len(sweeper.load(folder.path).epochs) == 2
    forget_packs(folder.path)
    lines = repaired(folder)
    assert sum(str(file) in line for line in lines) == 1
    assert content_of(folder) == before
    pack_finished(folder)
    assert content_of(folder) == before


@pytest.mark.fault("packed-damaged")
@pytest.mark.parametrize("damage", DAMAGES)
def test_trials_whose_index_and_copy_are_damaged_run_again_and_no_others(tmp_path: Path, damage: str) -> None:
    folder = packed_sweep(tmp_path / "sweep")
    before = content_of(folder)
    for file in [*(tmp_path / "sweep" / "packed").glob("trials*"), *(tmp_path / "sweep" / "packed").glob("copy*")]:
        DAMAGES[damage](file)
    forget_packs(folder.path)
    with pytest.warns(UserWarning, match=r"trials-000001-.*: 2 packed trials are left out"):
        assert len(sweeper.load(folder.path).trials) == 1
    forget_packs(folder.path)
    assert len(repaired(folder)) == 2
    left = content_of(folder)
    assert len(left) == 1
    assert left.items() <= before.items()
    run_again(folder)
    assert content_of(folder).keys() == before.keys()
    pack_finished(folder)
    assert repaired(folder) == []
    assert content_of(folder).keys() == before.keys()


@pytest.mark.fault("packed-damaged")
@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_archive_is_noticed_by_verify_and_only_its_damaged_trials_run_again(
    tmp_path: Path, damage: str
) -> None:
    folder = packed_sweep(tmp_path / "sweep")
    before = content_of(folder)
    (file,) = (tmp_path / "sweep" / "packed").glob("*.zip")
    if damage == "flipped":  # within the first checkpoint
        content = bytearray(file.read_bytes())
        content[200] ^= 1
        file.write_bytes(content)
    else:
        DAMAGES[damage](file)
    assert repaired(folder) == []
    forget_packs(folder.path)
    lines = repaired(folder, checkpoints=True)
    assert any(str(file) in line for line in lines)
    hurt = [record.id for record in folder.records() if not record.finished]
    assert 1 <= len(hurt) <= (1 if damage == "flipped" else 2)
    found = content_of(folder)
    assert {name: found[name] for name in found if name not in hurt} == {
        name: before[name] for name in before if name not in hurt
    }
    run_again(folder)
    assert content_of(folder).keys() == before.keys()
    assert all(record.finished for record in folder.records())


@pytest.mark.fault("packed-damaged")
def test_a_trial_that_was_unpacked_before_a_part_was_lost_can_be_packed_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(packing, "PART_TRIALS", 1)
    folder = sweep_of(tmp_path / "sweep", 2)
    pack_finished(folder)
    known = packs_of(folder.path)
    assert known is not None
    first, last = sorted(known.each(), key=lambda trial: trial.part.number)
    unpack(folder, [first.id])
    for file in (last.part.index, last.part.copy):
        (tmp_path / "sweep" / "packed" / file.name).write_bytes(b"rot")
    forget_packs(folder.path)
    assert len(repaired(folder)) == 2
    before = content_of(folder)
    assert before.keys() == {first.id}
    pack_finished(folder)
    assert content_of(folder) == before
