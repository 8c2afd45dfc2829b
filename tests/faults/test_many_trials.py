"""What many trials take, with real ones: files of a trial, requests to a bucket, what Ray Tune holds."""

from __future__ import annotations

import gc
import json
import weakref
from pathlib import Path
from typing import Any

import pytest

from sweeper.cli import COMPLETE, main
from sweeper.packing.packing import pack_finished
from sweeper.results.tables import load
from tests.sweeper.conftest import ray
from tests.sweeper.packing.packed_sweeps import assert_equal, commit_finished, content_of, sweep_of, tables_of
from tests.trials.buckets import prefix, served
from tests.trials.small_trials import config_of, folder_of, run_in
from trials.storage.config_file import write_config
from trials.storage.packed.reading import forget_packs
from trials.storage.row_schema import rows_as_table, table_as_rows
from trials.storage.trial_folder import TrialFolder

__all__ = ["ray"]

pytestmark = pytest.mark.slow_faults

SPACE = """
about: trivial ones
trial: {method: one_shot, dataset: digits, model: tiny, pretrain: {epochs: 1}, finetune: null}
grid: {density: [0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.15, 0.1]}
"""


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


def test_a_bucket_is_packed_too() -> None:
    with served() as requests:
        folder = sweep_of(prefix("packed") / "sweep", 3)
        before, tables = content_of(folder), tables_of(folder.path)
        pack_finished(folder)
        forget_packs(folder.path)
        assert content_of(folder) == before
        assert_equal(tables_of(folder.path), tables)
        assert list(folder.trials.iterdir()) == []
        requests.take()
        commit_finished(folder.trial_folder("one_shot-0123456789ab"), 4)
        assert len(requests.take()) <= 40


@pytest.mark.usefixtures("ray")
@pytest.mark.fault("many-trials")
def test_no_more_trials_than_a_few_stay_in_tune(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from sweeper.execution.on_ray import ended_trials, placement

    there: list[int] = []
    alive: list[int] = []
    all_of_them: dict[str, weakref.ref[Any]] = {}
    forget = placement.forget_ended

    def counting(controller: Any) -> None:
        all_of_them.update((trial.trial_id, weakref.ref(trial)) for trial in controller.get_trials())
        forget(controller)
        there.append(len(controller.get_trials()))
        gc.collect()
        alive.append(sum(trial() is not None for trial in all_of_them.values()))

    monkeypatch.setattr(placement, "forget_ended", counting)
    monkeypatch.setattr(ended_trials, "ENDED_KEPT", 2)
    (tmp_path / "trivial.yaml").write_text(SPACE)
    assert main(["--space", str(tmp_path / "trivial.yaml"), "--storage", str(tmp_path)]) == COMPLETE
    assert set(load(tmp_path / "trivial").trials["status"]) == {"complete"}
    assert len(there) == len(all_of_them) == 10
    assert max(there) <= 7  # the last two that ended, those that run and those that wait
    assert alive[-1] <= 7
