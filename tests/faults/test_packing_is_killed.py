"""Packing is killed before each call that changes the file system: nothing is lost, nothing is there twice."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from sweeper.folder.sweep_folder import SweepFolder
from sweeper.packing.packing import pack_finished, tidy, unpack
from sweeper.packing.repairing import repair_packed
from tests.sweeper.packing.packed_sweeps import Killed, Killer, content_of, finish_all, sweep_of
from tests.sweeper.sweeps import begun, make_space
from trials.storage.packed.reading import forget_packs

EACH = pytest.mark.parametrize("every", [7, pytest.param(1, marks=pytest.mark.slow_faults)])
"""Killed before every such call; each call takes seconds of CPU in all."""


def killed_at_each_call(
    every: int,
    whole: SweepFolder,
    work: Path,
    change: Callable[[SweepFolder], object],
    check: Callable[[SweepFolder], None],
) -> int:
    """Change a copy of a sweep, killed before one of its first calls, and so on every few calls; check each."""
    at = (2 if every > 1 else 1) - every
    while True:
        at += every
        copy = SweepFolder(work / f"{at}" / "sweep")
        shutil.copytree(whole.path, copy.path)  # type: ignore[arg-type]
        with pytest.MonkeyPatch.context() as patch:
            killer = Killer(patch, at)
            try:
                change(copy)
            except Killed:
                killed = True
            else:
                killed = False
        forget_packs(copy.path)
        check(copy)
        shutil.rmtree(copy.path.parent)
        if not killed:
            return killer.calls


@EACH
@pytest.mark.fault("packing-killed")
def test_packing_that_is_killed_loses_nothing(tmp_path: Path, every: int) -> None:
    folder = sweep_of(tmp_path / "sweep", 2)
    before = content_of(folder)

    def check(copy: SweepFolder) -> None:
        assert content_of(copy) == before
        pack_finished(copy)
        assert content_of(copy) == before
        assert list(copy.trials.iterdir()) == []
        assert len(list((copy.path / "packed").iterdir())) == 6
        assert repair_packed(copy) == []

    assert killed_at_each_call(every, folder, tmp_path / "work", pack_finished, check) > 30


@EACH
@pytest.mark.fault("packing-killed")
def test_a_part_that_takes_over_another_one_is_killed(tmp_path: Path, every: int) -> None:
    folder = sweep_of(tmp_path / "sweep", 1)
    pack_finished(folder)
    finish_all(begun(make_space(grid={"density": [0.5], "seed": [0, 1]}), folder.path))
    before = content_of(folder)
    assert len(before) == 2

    def check(copy: SweepFolder) -> None:
        assert content_of(copy) == before
        pack_finished(copy)
        assert content_of(copy) == before
        assert len(list((copy.path / "packed").iterdir())) == 6

    assert killed_at_each_call(every, folder, tmp_path / "work", pack_finished, check) > 20


@EACH
@pytest.mark.fault("packing-killed")
def test_unpacking_that_is_killed_loses_nothing(tmp_path: Path, every: int) -> None:
    folder = sweep_of(tmp_path / "sweep", 2)
    before = content_of(folder)
    pack_finished(folder)

    def check(copy: SweepFolder) -> None:
        assert content_of(copy) == before
        tidy(copy)
        assert content_of(copy) == before
        assert repair_packed(copy, checkpoints=True) == []

    killed_at_each_call(every, folder, tmp_path / "work", lambda copy: unpack(copy, list(before)), check)
