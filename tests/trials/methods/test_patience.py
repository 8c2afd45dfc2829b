"""Dense training with a ``patience``: it stops early, ends with the best epoch, and resumes bit for bit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.trials.folders import assert_same_outcome, checkpoint_of, rows_of, same
from tests.trials.small_trials import BASE, config_of, folder_of, run_in
from trials.errors import UserError
from trials.methods.parsing import parse
from trials.methods.segments import planned_epochs
from trials.running import progress

pytestmark = pytest.mark.usefixtures("few_digits")

PATIENT = {"epochs": 30, "batch_size": 64, "lr": 0.3, "patience": 2}
"""Reaches its best epoch long before the last, since the rate stays high."""


def epochs_of(config: Any, storage: Path) -> list[dict[str, Any]]:
    state = run_in(storage, config)
    assert state.status == "complete", state.error
    return [dict(row) for row in rows_of(folder_of(config, storage))["epochs"]]


def dense(**train: Any) -> Any:
    return parse({**BASE, "method": "dense", "train": {**PATIENT, **train}})


def test_training_stops_after_epochs_without_a_better_one_and_ends_with_the_best(tmp_path: Path) -> None:
    rows = epochs_of(dense(), tmp_path / "patient")
    whole = epochs_of(dense(patience=None), tmp_path / "whole")
    accuracies = [row["val_accuracy"] for row in whole]
    best = next(
        i
        for i, accuracy in enumerate(accuracies)
        if max(accuracies[i + 1 : i + 3]) <= max(accuracies[: i + 1]) == accuracy
    )
    assert len(rows) == best + 3 < len(whole)
    assert [row["val_accuracy"] for row in rows[:-1]] == accuracies[: best + 2]
    assert rows[-1]["val_accuracy"] == accuracies[best]  # of the restored network
    assert rows[-1]["best_epoch"] == best + 1
    assert rows[-1]["test_accuracy"] is not None
    rates = [row["lr"] for row in whole]  # the schedule is that of 30 epochs
    assert [row["lr"] for row in rows] == [*rates[: len(rows) - 1], rates[best]]
    assert {row["report"] for row in rows} == {"best_val"}
    shorter = epochs_of(dense(epochs=30, patience=best + 1), tmp_path / "other")
    assert len(shorter) >= len(rows)


def test_it_resumes_bit_for_bit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = dense()
    epochs_of(config, tmp_path / "undisturbed")
    monkeypatch.setattr(progress, "STOP_POLL_S", 0.0)
    for _ in range(300):
        if run_in(tmp_path / "stopped", config, should_stop=lambda: True).status == "complete":
            break
    assert_same_outcome(folder_of(config, tmp_path / "stopped"), folder_of(config, tmp_path / "undisturbed"))


def test_methods_start_from_the_best_epoch(tmp_path: Path) -> None:
    config = config_of("one_shot", pretrain=PATIENT, finetune=None)
    rows = epochs_of(config, tmp_path)
    before = [row for row in rows if row["stage"] == "pretrain"]
    assert 2 < len(before) < 30
    (stage,) = (tmp_path / "stages").iterdir()
    assert same(dict(rows_of(stage)["epochs"][-1]), {**before[-1], "stage_id": None})
    assert checkpoint_of(stage)["position"] == {"stage": 1}


def test_it_never_stops_before_a_snapshot_that_a_method_rewinds_to(tmp_path: Path) -> None:
    snapshots = {"method": "dense", "train": {**PATIENT, "patience": 1}, "snapshots": [25]}
    rows = epochs_of(parse({**BASE, **snapshots}), tmp_path)
    assert 25 <= len(rows) <= 30


@pytest.mark.parametrize("name", ["imp-learning_rate", "gradient_prune"])
def test_stages_that_train_by_the_same_recipe_stop_as_well(name: str, tmp_path: Path) -> None:
    recipe = {"pretrain": PATIENT} if name.startswith("imp") else {"train": {**PATIENT, "backward": {"p_prune": 0.3}}}
    rows = epochs_of(config_of(name, **recipe), tmp_path)
    last = max(row["level"] for row in rows)
    trained = [row for row in rows if row["stage"] == "train" and row["level"] == last and row["epoch"]]
    assert 2 < len(trained) < 30
    assert trained[-1]["val_accuracy"] == max(row["val_accuracy"] for row in trained)


def test_without_patience_names_and_epochs_are_as_before() -> None:
    plain = parse({**BASE, "method": "dense", "train": {"epochs": 3}})
    assert parse({**BASE, "method": "dense", "train": {"epochs": 3, "patience": None}}).id == plain.id
    assert parse({**BASE, "method": "dense", "train": {"epochs": 3, "patience": 1}}).id != plain.id
    assert planned_epochs(plain) == 3


def test_a_population_does_not_divide_epochs_that_may_not_come() -> None:
    with pytest.raises(UserError, match="patience is 2 in the recipe of pretrain, but until_epoch and pbt divide"):
        parse({**BASE, "method": "dense", "train": PATIENT, "until_epoch": 3})


def test_the_last_epoch_counts_where_report_says_so(tmp_path: Path) -> None:
    content = {**BASE, "method": "dense", "train": PATIENT}
    rules = {rule: parse({**content, "report": rule}) for rule in ("last", "best_val")}
    rows = {rule: epochs_of(config, tmp_path) for rule, config in rules.items()}
    assert len(rows["last"]) == len(rows["best_val"])  # patience ends both alike
    assert rows["last"][-1]["val_accuracy"] < rows["best_val"][-1]["val_accuracy"]
    for rule, config in rules.items():
        assert {row["report"] for row in rows[rule]} == {rule} == {config.reported}
    assert rows["best_val"] == epochs_of(dense(), tmp_path)  # one shared trial for one content
    assert len(list((tmp_path / "stages").iterdir())) == 2
    assert [rules[rule].revision for rule in rules] == [2, 1]
    assert dense(patience=None).revision == dense().revision == 1
