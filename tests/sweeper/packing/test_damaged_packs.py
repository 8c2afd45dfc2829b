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
from trials.errors import DamagedFile
from trials.storage.packed.reading import forget_packs, packed_damage, packs_of

Damage = Callable[[Path], object]


def flip(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


def cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def pipe(file: Path) -> None:
    shutil.rmtree(file) if file.is_dir() else file.unlink()
    os.mkfifo(file)


def replace_by_folder(file: Path) -> None:
    shutil.rmtree(file) if file.is_dir() else file.unlink()
    (file / "something").mkdir(parents=True)


def flip_last(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[-9] ^= 1
    file.write_bytes(content)


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
def test_an_older_manifest_hides_and_loses_no_later_part(tmp_path: Path) -> None:
    folder = sweep_of(tmp_path / "sweep", 3)
    names = sorted(path.name for path in folder.trials.iterdir())
    manifest, older = tmp_path / "sweep/packed/manifest.json", []
    before = content_of(folder)
    for packed in range(1, 4):  # each packing takes over the part before it
        pack_finished(folder, without=names[packed:])
        older.append(manifest.read_bytes())
    for text in older:
        manifest.write_bytes(text)
        forget_packs(folder.path)
        assert content_of(folder) == before
        assert repaired(folder) == []
        assert manifest.read_bytes() == older[-1]
        assert content_of(folder) == before


@pytest.mark.fault("packed-damaged")
@pytest.mark.parametrize("name", ["state.json", "config.json", "rows", "checkpoint", "."])
@pytest.mark.parametrize("damage", [pipe, replace_by_folder, flip_last], ids=["a pipe", "a folder", "flipped"])
def test_damage_in_what_a_killed_packing_has_left_hurts_no_packed_trial(
    tmp_path: Path, name: str, damage: Damage
) -> None:
    folder = sweep_of(tmp_path / "sweep", 2)
    before = content_of(folder)
    trial = min(folder.trials.iterdir())
    shutil.copytree(trial, tmp_path / "left")
    pack_finished(folder)
    shutil.copytree(tmp_path / "left", trial)
    if damage is flip_last and (trial / name).is_dir():
        pytest.skip("no file")
    damage(trial / name)
    forget_packs(folder.path)
    assert all(str(trial / name) in line for line in repaired(folder))
    assert content_of(folder) == before
    assert repaired(folder) == []


@pytest.mark.fault("packed-damaged")
@pytest.mark.parametrize("name", ["state.json", "config.json"])
@pytest.mark.parametrize("damage", [pipe, replace_by_folder], ids=["a pipe", "a folder"])
def test_a_trial_without_files_is_not_packed(tmp_path: Path, name: str, damage: Damage) -> None:
    folder = sweep_of(tmp_path / "sweep", 2)
    trial = min(folder.trials.iterdir())
    damage(trial / name)
    assert pack_finished(folder).trials == 1
    assert (trial / name).exists()


@pytest.mark.fault("packed-damaged")
def test_files_of_others_stay_beside_packed_ones(tmp_path: Path) -> None:
    folder = packed_sweep(tmp_path / "sweep")
    note = tmp_path / "sweep/packed/manifest (1).json"
    note.write_text("mine")
    repaired(folder)
    assert note.read_text() == "mine"


@pytest.mark.fault("packed-damaged")
@pytest.mark.parametrize("what", ["a pipe", "a file", "a link"])
def test_what_lies_in_the_place_of_packed_files_is_named_and_set_aside(tmp_path: Path, what: str) -> None:
    folder = packed_sweep(tmp_path / "sweep")
    packed = tmp_path / "sweep/packed"
    shutil.move(packed, tmp_path / "outside")
    outside = {path.name: path.read_bytes() for path in (tmp_path / "outside").iterdir()}
    if what == "a pipe":
        os.mkfifo(packed)
    elif what == "a file":
        packed.write_text("a file")
    else:
        packed.symlink_to(tmp_path / "outside")
    forget_packs(folder.path)
    assert any(str(packed) in line for line in packed_damage(folder.path))
    (line,) = repaired(folder)
    assert str(packed) in line
    assert "packed.damaged" in line
    assert repaired(folder) == []
    run_again(folder)
    assert {path.name: path.read_bytes() for path in (tmp_path / "outside").iterdir()} == outside


@pytest.mark.fault("packed-damaged")
def test_a_link_for_an_archive_is_not_followed(tmp_path: Path) -> None:
    folder = packed_sweep(tmp_path / "sweep")
    archive, *_ = sorted((tmp_path / "sweep/packed").glob("checkpoints-*"))
    shutil.move(archive, tmp_path / "outside.zip")
    archive.symlink_to(tmp_path / "outside.zip")
    with pytest.raises(DamagedFile, match="a link, which is not followed"):
        content_of(folder)


@pytest.mark.fault("packed-damaged")
def test_a_copy_of_a_packed_sweep_under_another_name_is_whole(tmp_path: Path) -> None:
    folder = packed_sweep(tmp_path / "sweep")
    shutil.copytree(tmp_path / "sweep", tmp_path / "copied")
    assert content_of(SweepFolder(tmp_path / "copied")) == content_of(folder)


@pytest.mark.fault("packed-damaged")
@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_archive_does_not_keep_others_from_being_packed(tmp_path: Path, damage: str) -> None:
    folder = sweep_of(tmp_path / "sweep", 3)
    first, *_ = sorted(folder.trials.iterdir())
    shutil.move(first, tmp_path / "later")
    pack_finished(folder)
    shutil.move(tmp_path / "later", first)
    (archive,) = (tmp_path / "sweep" / "packed").glob("*.zip")
    DAMAGES[damage](archive)
    forget_packs(folder.path)
    pack_finished(folder)
    assert not list(folder.trials.iterdir())
    (record,) = (record for record in folder.records() if record.id == first.name)
    assert record.state is not None
    assert record.folder.checkpoint(record.state.commits[-1])


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
