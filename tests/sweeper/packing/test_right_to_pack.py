"""Packing that began on what no longer holds: a late driver, a damaged file, a trial that goes on meanwhile."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import sweeper
from sweeper.execution import table_writer
from sweeper.execution.table_writer import TableWriter
from sweeper.folder.sweep_folder import SweepFolder
from sweeper.packing import automatic, packing
from sweeper.packing.packing import drop_packed_checkpoints, pack_finished
from sweeper.packing.repairing import repaired
from sweeper.results.tables import compact_tables
from sweeper.search.plan import Plan
from tests.sweeper.packing.packed_sweeps import commit_finished, content_of, finish_all, sweep_of
from tests.sweeper.sweeps import begun, make_space
from trials.errors import UserError
from trials.storage.leases.lease import Lease
from trials.storage.packed.reading import forget_packs, packed_damage
from trials.storage.trial_folder import TrialFolder


def more(folder: SweepFolder, seeds: int) -> None:
    """Extend a sweep to so many seeds and run what is left."""
    finish_all(begun(make_space(grid={"density": [0.5], "seed": list(range(seeds))}), folder.path))


def meanwhile(monkeypatch: pytest.MonkeyPatch, module: Any, name: str, happens: Callable[[], object]) -> None:
    """Let something happen after the first call of a function."""
    function = getattr(module, name)

    def call(*arguments: Any, **options: Any) -> Any:
        found = function(*arguments, **options)
        monkeypatch.setattr(module, name, function)
        happens()
        return found

    monkeypatch.setattr(module, name, call)


@pytest.mark.fault("packing-killed")
@pytest.mark.parametrize("step", ["write_part", "write_manifest", "require_right"])
def test_a_driver_that_wakes_late_destroys_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str) -> None:
    """Its successor has packed more, and ended."""
    folder = sweep_of(tmp_path / "sweep", 2)
    found: dict[str, Any] = {}

    def successor() -> None:
        forget_packs(folder.path)
        repaired(folder)
        more(folder, 4)
        pack_finished(folder)
        found.update(content_of(folder))

    meanwhile(monkeypatch, packing, step, successor)
    with contextlib.suppress(UserError):
        pack_finished(folder)
    forget_packs(folder.path)
    assert len(found) == 4
    assert content_of(folder) == found
    assert repaired(folder) == []
    assert content_of(folder) == found


@pytest.mark.fault("packing-killed")
def test_only_the_driver_packs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = sweep_of(tmp_path / "sweep", 2)
    lease = Lease(folder.path / "lock")
    assert lease.acquire()
    before = content_of(folder)
    with lease, monkeypatch.context() as patch:
        patch.setattr("os.getpid", lambda: 1)
        with pytest.raises(UserError, match="is being run by process"):
            pack_finished(folder)
    assert content_of(folder) == before
    assert pack_finished(folder).trials == 2


@pytest.mark.fault("packed-damaged")
def test_a_link_in_the_place_of_the_folder_is_left_alone(tmp_path: Path) -> None:
    """Somebody has moved it to another disk while the sweep ran."""
    folder = sweep_of(tmp_path / "sweep", 2)
    pack_finished(folder)
    shutil.move(tmp_path / "sweep/packed", tmp_path / "outside")
    (tmp_path / "sweep/packed").symlink_to(tmp_path / "outside")
    outside = {path.name: path.read_bytes() for path in (tmp_path / "outside").iterdir()}
    with pytest.raises(UserError, match="a link"):
        pack_finished(folder)
    assert {path.name: path.read_bytes() for path in (tmp_path / "outside").iterdir()} == outside


@pytest.mark.fault("packed-damaged")
def test_a_damaged_config_is_not_packed(tmp_path: Path) -> None:
    folder = sweep_of(tmp_path / "sweep", 3)
    first, *_ = sorted(folder.trials.iterdir())
    content = (first / "config.json").read_bytes()
    (first / "config.json").write_bytes(content[:-40])
    assert pack_finished(folder) == packing.Packing(2, 1, 2, 6)
    (line,) = repaired(folder)
    assert str(first / "config.json") in line


@pytest.mark.fault("packed-damaged")
def test_a_damaged_config_does_not_replace_the_packed_one(tmp_path: Path) -> None:
    folder = sweep_of(tmp_path / "sweep", 2)
    first, *_ = sorted(folder.trials.iterdir())
    content = (first / "config.json").read_bytes()
    before = content_of(folder)
    pack_finished(folder)
    first.mkdir()
    (first / "config.json").write_bytes(content[:-40])
    assert pack_finished(folder).trials == 0
    (line,) = repaired(folder)
    assert str(first / "config.json") in line
    assert content_of(folder) == before


@pytest.mark.fault("packed-damaged")
@pytest.mark.parametrize("damage", ["flipped", "cut"])
@pytest.mark.parametrize("through", ["packing", "dropping"])
def test_a_damaged_checkpoint_gets_no_new_hash(tmp_path: Path, damage: str, through: str) -> None:
    folder = sweep_of(tmp_path / "sweep", 3)
    pack_finished(folder)
    (archive,) = (tmp_path / "sweep/packed").glob("*.zip")
    content = bytearray(archive.read_bytes())
    content[200] ^= 1
    archive.write_bytes(content if damage == "flipped" else content[:300])
    if through == "packing":
        more(folder, 4)
        pack_finished(folder)
    else:
        last = max(record.id for record in folder.records())
        drop_packed_checkpoints(folder, lambda trial: trial != last)
    lines = repaired(folder, checkpoints=True)
    assert any(archive.name in line for line in lines)


@pytest.mark.fault("packed-damaged")
def test_an_archive_that_is_gone_does_not_stop_the_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packing, "PART_TRIALS", 1)
    folder = sweep_of(tmp_path / "sweep", 2)
    pack_finished(folder)
    first, _ = sorted((tmp_path / "sweep/packed").glob("*.zip"))
    first.unlink()
    drop_packed_checkpoints(folder, lambda trial: False)
    assert not list((tmp_path / "sweep/packed").glob("*.zip"))


@pytest.mark.fault("packed-damaged")
@pytest.mark.parametrize("parts", [1, 2])
def test_parts_that_no_index_tells_of_are_named_and_set_aside(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, parts: int
) -> None:
    """The manifest is lost, and so are the index and the copy of the last part."""
    monkeypatch.setattr(packing, "PART_TRIALS", 2)
    folder = sweep_of(tmp_path / "sweep", 2 * parts)
    pack_finished(folder)
    packed = tmp_path / "sweep/packed"
    for file in (*packed.glob(f"trials-00000{parts}*"), *packed.glob(f"copy-00000{parts}*")):
        file.write_bytes(b"rot")
    (packed / "manifest.json").unlink()
    forget_packs(folder.path)
    assert any("manifest.json is missing" in line for line in packed_damage(folder.path))
    lines = repaired(folder)
    lost = {file.name for file in packed.glob(f"*-00000{parts}-*") if file.name.endswith(".damaged")}
    assert {kind.partition("-")[0] for kind in lost} == {"trials", "copy", "rows", "checkpoints"}
    assert all(any(name in line for line in lines) for name in lost)
    assert len(content_of(folder)) == 2 * parts - 2
    assert repaired(folder) == []


def test_a_trial_that_ends_while_it_is_packed_waits_for_the_next_packing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its process counted as dead. Its tables were written while it ran."""
    space = make_space(grid={"density": [0.5], "seed": [0, 1]})
    folder = SweepFolder(tmp_path / "sweep")
    folder.append({"space": space.document()})
    plan = Plan(space, folder)
    first, late = plan.next(), plan.next()
    assert first is not None
    assert late is not None
    commit_finished(folder.trial_folder(first.trial_id), 0)
    attempt, _ = TrialFolder(folder.trial_folder(late.trial_id)).begin(host="here", device="cpu")
    compact_tables(folder)
    end = {"rows": {"epochs": [{"stage": "prune", "level": 0, "epoch": 1}]}, "progress": {}, "seconds": 1.0}
    meanwhile(
        monkeypatch,
        SweepFolder,
        "stamps",
        lambda: attempt.commit(checkpoint={"net": {}}, status="complete", result={}, **end),
    )
    pack_finished(folder)
    compact_tables(folder)
    assert set(sweeper.load(folder.path).trials["status"]) == {"complete"}
    pack_finished(folder)
    assert not list((tmp_path / "sweep/trials").iterdir())
    assert set(sweeper.load(folder.path).trials["status"]) == {"complete"}


def test_a_file_among_the_trials_stops_neither_packing_nor_tables(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(automatic, "PACK_ABOVE", 1)
    folder = sweep_of(tmp_path / "sweep", 3)
    (tmp_path / "sweep/trials/.DS_Store").write_bytes(b"of a Mac")
    (tmp_path / "sweep/trials/notes").write_bytes(b"of a user")
    assert pack_finished(folder).trials == 3
    automatic.drop_and_pack(folder, over=True)
    assert sorted(path.name for path in (tmp_path / "sweep/trials").iterdir()) == [".DS_Store", "notes"]


def test_tables_are_written_where_packing_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise OSError("no")

    folder = sweep_of(tmp_path / "sweep", 1)
    monkeypatch.setattr(table_writer, "COMPACT_EVERY_S", -1.0)
    monkeypatch.setattr(table_writer, "pack_if_many", fail)
    writer = TableWriter(folder)
    writer.write_if_due()
    assert (tmp_path / "sweep/tables/trials.parquet").exists()
    assert writer.newly_took_s() > 0
    assert writer.newly_took_s() == 0
