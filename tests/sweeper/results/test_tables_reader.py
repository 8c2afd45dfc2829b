"""Tables that are read again and again from memory equal those that are read anew."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from sweeper.folder.sweep_folder import SweepFolder
from sweeper.results import table_cache
from sweeper.results.tables import TablesReader, compact_tables, read
from tests.sweeper.results.test_tables import assert_equal, begin, commit, finished
from trials.errors import UserError


@pytest.fixture
def sweep(tmp_path: Path) -> SweepFolder:
    folder = SweepFolder(tmp_path / "sweep")
    for name in ("bip-c", "bip-a", "bip-b"):
        finished(folder, name)
    return folder


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the trials that are read from their folders."""
    names: list[str] = []
    read_trial = table_cache._read_trial

    def noted(path: Path, *more: object) -> object:
        names.append(path.name)
        return read_trial(path, *more)  # type: ignore[arg-type]

    monkeypatch.setattr(table_cache, "_read_trial", noted)
    return names


def test_only_what_has_changed_is_read_again(sweep: SweepFolder, opened: list[str]) -> None:
    reader = TablesReader(sweep.path)
    assert_equal(reader.read(), read(sweep.path))
    opened.clear()
    reader.read()
    assert opened == []
    attempt = begin(sweep, "bip-d", seed=7)  # a column that none had before
    commit(attempt, 0)
    now = reader.read()
    assert opened == ["bip-d"]
    assert_equal(now, read(sweep.path))
    opened.clear()
    commit(attempt, 3, status="complete", result={"val_accuracy": 0.5})
    now = reader.read()
    assert opened == ["bip-d"]
    assert_equal(now, read(sweep.path))
    assert now.epochs["trial"].tolist().count("bip-d") == 4
    assert not sweep.tables.exists()


def test_trials_that_are_removed_go(sweep: SweepFolder) -> None:
    finished(sweep, "bip-z", seed=7)
    reader = TablesReader(sweep.path)
    reader.read()
    shutil.rmtree(sweep.trials / "bip-z")
    assert_equal(reader.read(), read(sweep.path))
    assert "config.seed" not in reader.read().trials


def test_a_damaged_trial_is_named_every_time_and_read_once_it_is_whole(sweep: SweepFolder) -> None:
    reader = TablesReader(sweep.path)
    state = sweep.trials / "bip-a" / "state.json"
    whole = state.read_bytes()
    state.write_bytes(whole[:40])
    assert [len(reader.read().damaged) for _ in range(2)] == [1, 1]
    state.write_bytes(whole)
    now = reader.read()
    assert now.damaged == ()
    assert_equal(now, read(sweep.path))


def test_it_begins_with_the_files_of_the_folder(sweep: SweepFolder, opened: list[str]) -> None:
    compact_tables(sweep)
    opened.clear()
    assert_equal(TablesReader(sweep.path).read(), read(sweep.path))
    assert opened == []


def test_the_rows_that_are_not_asked_for_stay_out(sweep: SweepFolder) -> None:
    reader = TablesReader(sweep.path, ("epochs",))
    for _ in range(2):
        assert_equal(reader.read(), read(sweep.path, ("epochs",)))
        assert len(reader.read().layers) == 0


def test_what_is_no_sweep_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is not a sweep's folder"):
        TablesReader(tmp_path).read()
