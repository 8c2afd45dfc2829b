"""Temporary files: their names, what killed writers leave of them, and what is swept up."""

from __future__ import annotations

import errno
import os
import time
from pathlib import Path

import pytest

from sweeper.execution.on_ray import requirements
from trials.storage import files
from trials.storage.leases.owner import has_ended, new_token
from trials.storage.trial_folder import TrialFolder


@pytest.mark.fault("leftovers")
def test_leftovers_are_removed_and_files_of_living_writers_are_not(tmp_path: Path) -> None:
    living = files.temporary_of(tmp_path / "state.json", new_token())
    machine, _, started, unique = new_token().split("-")
    dead = files.temporary_of(tmp_path / "rows" / "a.parquet", f"{machine}-{2**22 + 1}-{started}-{unique}")
    elsewhere = files.temporary_of(tmp_path / "state.json", f"{'0' * 8}-1-2-{unique}")
    old = files.temporary_of(tmp_path / "config.json", f"{'0' * 8}-1-2-{unique}")
    earlier = tmp_path / ".sweep.yaml.4711.tmp"
    (tmp_path / "rows").mkdir()
    for path in (living, dead, elsewhere, old, earlier):
        path.write_text("half")
    os.utime(old, (time.time() - 2 * files.LEFTOVER_S,) * 2)
    TrialFolder(tmp_path).begin()
    assert set(tmp_path.rglob("*.tmp")) == {living, elsewhere}


@pytest.mark.fault("leftovers")
def test_probes_of_a_killed_driver_are_leftovers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[Path] = []
    monkeypatch.setattr(Path, "unlink", lambda path, missing_ok=False: made.append(path))  # as a kill before it
    files.require_writable(tmp_path)
    files._now_of(tmp_path)
    folder = requirements._new_folder(tmp_path)
    monkeypatch.undo()
    assert isinstance(folder, Path)
    folder.mkdir()
    (folder / "driver").write_bytes(b"driver")
    assert set(tmp_path.iterdir()) == {*made, folder}
    files.remove_leftovers(tmp_path)
    assert set(tmp_path.iterdir()) == {*made, folder}  # their process lives
    machine, pid, started, _ = new_token().split("-")
    for path in (*made, folder):
        path.rename(path.with_name(path.name.replace(f"{machine}-{pid}-{started}", f"{machine}-{2**22 + 1}-{started}")))
    others = tmp_path / ".cache.tmp"  # of a program that keeps its own files there
    others.mkdir()
    os.utime(others, (time.time() - 2 * files.LEFTOVER_S,) * 2)
    files.remove_leftovers(tmp_path)
    assert list(tmp_path.iterdir()) == [others]


def test_a_probe_on_a_full_disk_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(path: Path, content: bytes) -> int:
        path.touch()
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OSError, match="No space"):
        files.require_writable(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_names_of_temporary_files_are_never_the_same() -> None:
    assert len({new_token() for _ in range(1000)}) == 1000
    assert not has_ended(new_token())
    assert not has_ended("somebody else's")


def test_a_writer_whose_file_was_taken_writes_it_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real, taken = os.fsync, [False]

    def fsync(file: int) -> None:
        if not taken[0]:
            taken[0] = True
            for path in tmp_path.glob(".*.tmp"):
                path.unlink()
        real(file)

    monkeypatch.setattr(os, "fsync", fsync)
    files.write(tmp_path / "file", b"x")
    assert (tmp_path / "file").read_bytes() == b"x"
