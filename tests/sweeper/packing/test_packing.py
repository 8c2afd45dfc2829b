"""Finished trials in few files: every reader sees the same as before."""

from __future__ import annotations

from pathlib import Path

from sweeper.packing.packing import pack_finished, tidy, unpack
from tests.sweeper.packing.packed_sweeps import assert_equal, inodes, networks_of, records_of, sweep_of, tables_of


def test_a_packed_sweep_reads_as_before(tmp_path: Path) -> None:
    folder = sweep_of(tmp_path / "sweep", 7)
    tables, records, networks = tables_of(folder.path), records_of(folder), networks_of(folder)
    stamps = folder.stamps()
    assert pack_finished(folder).trials == 7
    assert list(folder.trials.iterdir()) == []
    assert folder.stamps() == stamps
    assert_equal(tables_of(folder.path), tables)
    assert records_of(folder) == records
    assert networks_of(folder) == networks
    assert len(networks) == 7
    assert pack_finished(folder).trials == 0


def test_unpacked_trials_are_as_before(tmp_path: Path) -> None:
    folder = sweep_of(tmp_path / "sweep", 5)
    tables, networks = tables_of(folder.path), networks_of(folder)
    pack_finished(folder)
    unpack(folder, [record.id for record in folder.records()][:2])
    assert len(list(folder.trials.iterdir())) == 2
    tidy(folder)
    assert len(list(folder.trials.iterdir())) == 2
    assert_equal(tables_of(folder.path), tables)
    assert networks_of(folder) == networks
    assert pack_finished(folder).trials == 2
    assert_equal(tables_of(folder.path), tables)
    assert networks_of(folder) == networks
    assert inodes(folder.path) == 6  # manifest, index, copy, rows of two tables, archive
