"""Damage to every kind of file of a storage: identical results, repaired and said, or refused in one line.

A case is its seed. ``python -m tests.faults.fuzz SEED`` repeats one with every command, and says how it ended.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.damage import case_of, files_of, folders_of
from tests.faults.fuzz import REAL_FROM
from tests.faults.fuzz_outcomes import Fuzz, Whole, Wrong, everything
from tests.faults.fuzzed_sweeps import Run, make_storage
from tests.faults.quick_trials import run_quickly
from tests.trials.conftest import few_digits
from trials.running.trial import run as run_trial

__all__ = ["few_digits"]

CASES, ALL_CASES, AT_ONCE = 120, REAL_FROM, 500


def made(folder: Path, run: Run) -> Iterator[Whole]:
    make_storage(folder / "storage", run)
    before = everything(folder / "storage")
    yield Whole.of(folder / "storage", folder, run)
    assert everything(folder / "storage") == before, "a case has changed a file that it shares with the others"


@pytest.fixture(scope="module")
def whole(few_digits: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Whole]:
    """The storage that cases damage copies of, and what it comes to; its trials are quick stand-ins."""
    yield from made(tmp_path_factory.mktemp("quick"), run_quickly)


@pytest.fixture(scope="module")
def trained(few_digits: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Whole]:
    """The same with real trials."""
    yield from made(tmp_path_factory.mktemp("real"), run_trial)


def test_every_file_of_a_storage_is_of_a_known_kind(whole: Whole) -> None:
    files = files_of(whole.storage)
    assert files.pop("") == [], "name its kind in tests/faults/damage.py, so that it is damaged, too"
    assert [kind for kind, paths in files.items() if not paths] == []
    assert all(folders_of(whole.storage).values())


def run(whole: Whole, folder: Path, seeds: range, *, commands: bool) -> None:
    """Run a case for each seed, and fail with a line for each that ends wrongly."""
    files, folders = files_of(whole.storage), folders_of(whole.storage)
    fuzz, wrong = Fuzz(whole, folder, commands=commands), []
    for seed in seeds:
        try:
            fuzz.run(case_of(seed, files, folders))
        except Wrong as error:
            wrong.append(str(error))
    assert not wrong, f"{len(wrong)} of {len(seeds)} cases; python -m tests.faults.fuzz SEED repeats one\n" + "\n".join(
        wrong
    )


@pytest.mark.fault("damaged-file")
def test_damage_to_a_file_is_repaired_or_refused(whole: Whole, tmp_path: Path) -> None:
    run(whole, tmp_path, range(CASES), commands=False)


@pytest.mark.slow_faults
@pytest.mark.fault("damaged-file")
@pytest.mark.parametrize("first", range(0, ALL_CASES, AT_ONCE))
def test_damage_to_any_file_is_repaired_or_refused_by_every_command(whole: Whole, tmp_path: Path, first: int) -> None:
    run(whole, tmp_path, range(first, first + AT_ONCE), commands=True)


@pytest.mark.slow_faults
@pytest.mark.fault("damaged-file")
def test_real_trials_go_on_from_damage(trained: Whole, tmp_path: Path) -> None:
    run(trained, tmp_path, range(ALL_CASES, ALL_CASES + AT_ONCE), commands=False)
