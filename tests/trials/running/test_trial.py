"""A trial learns from its training images only, and gives the same figures in every run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.trials.folders import checkpoint_of, rows_of, same, state_of, the_stage, timeless
from tests.trials.small_trials import PRUNABLE, config_of, folder_of, run_in
from trials.data import load_data
from trials.running import progress
from trials.seeding import derive_seed
from trials.sparsity import nearest_count
from trials.storage.trial_folder import TrialFolder
from trials.training.build import build_loader
from trials.training.net import Net

pytestmark = pytest.mark.usefixtures("few_digits")


def test_validation_is_not_trained_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: set[bytes] = set()
    original = Net.loss

    def loss(self: Net, x: Tensor, y: Tensor) -> Any:
        if self.model.training:
            seen.update(image.numpy().tobytes() for image in x)
        return original(self, x, y)

    monkeypatch.setattr(Net, "loss", loss)
    config = config_of("bip", augment=False)
    run_in(tmp_path, config)
    data = build_loader(config, load_data("few_digits"), torch.device("cpu"))
    held_out = {
        image.numpy().tobytes() for split in ("val", "test") for x, _ in data.eval_batches(split, 50) for image in x
    }
    trained = {image.numpy().tobytes() for x, _ in data.eval_batches("train", 50) for image in x}
    assert seen == trained
    assert not seen & held_out


def test_a_dense_trial_is_the_shared_trial_that_others_start_from(tmp_path: Path) -> None:
    dense, bip = config_of("dense"), config_of("bip")
    run_in(tmp_path, dense)
    stage = the_stage(tmp_path)
    assert stage.name.startswith(dense.id)
    folder = folder_of(dense, tmp_path)
    assert same(checkpoint_of(folder)["net"], checkpoint_of(stage)["net"])
    named = {table: [{**row, "stage_id": stage.name} for row in part] for table, part in rows_of(stage).items()}
    assert rows_of(folder) == named
    state, stage_state = TrialFolder(folder).state(), TrialFolder(stage).state()
    assert state is not None
    assert stage_state is not None
    nothing = {"epochs": 0, "gradient_evaluations": 0, "cost": 0.0, "cost_flops": 0, "dense_cost": 2.0}
    assert state.result == {**stage_state.result, **nothing}  # it trains no epochs itself
    run_in(tmp_path, bip)
    assert len(list((tmp_path / "stages").iterdir())) == 1
    copied = rows_of(folder_of(bip, tmp_path))["epochs"][:2]
    assert [{key: row[key] for key in named["epochs"][0]} for row in copied] == named["epochs"]


def test_seeds_differ_and_repeat(tmp_path: Path) -> None:
    first, again, other = (
        timeless(rows_of(folder_of(config, tmp_path / where)))
        for where, config in (
            ("a", config_of("one_shot")),
            ("b", config_of("one_shot")),
            ("c", config_of("one_shot", seed=4)),
        )
        if run_in(tmp_path / where, config)
    )
    assert first == again
    assert [row["train_loss"] for row in first["epochs"]] != [row["train_loss"] for row in other["epochs"]]


def test_it_learns(tmp_path: Path) -> None:
    recipe = {"epochs": 8, "batch_size": 32}
    config = config_of("bip", density=0.2, pretrain=recipe, prune=recipe, finetune=None)
    state = run_in(tmp_path, config)
    rows = rows_of(folder_of(config, tmp_path))["epochs"]
    dense = next(row for row in rows if row["stage"] == "pretrain" and row["epoch"] == 8)
    assert dense["test_accuracy"] > 0.85
    assert state.result["test_accuracy"] > dense["test_accuracy"] - 0.05


def test_asked_to_stop_at_most_twice_a_second(tmp_path: Path) -> None:
    asked = 0

    def should_stop() -> bool:
        nonlocal asked
        asked += 1
        return False

    config = config_of("one_shot")
    assert run_in(tmp_path, config, should_stop=should_stop).status == "complete"
    state = state_of(folder_of(config, tmp_path))
    assert asked <= state.seconds / progress.STOP_POLL_S + 1


def test_seeds_are_derived_the_same_everywhere() -> None:
    assert derive_seed(0, "order", 1) == 8444176558443591710  # must never change: every trial's batches depend on it
    seeds = {derive_seed(*parts) for parts in [(0,), (1,), ("0",), (0, 0), (0, "a"), ("a", 0), ("a0",), ("a", "0")]}
    assert len(seeds) == 8
    assert all(0 <= seed < 2**63 for seed in seeds)


@pytest.mark.parametrize("precision", ["float32", "float64", "bf16"])
def test_precisions_train_and_come_back(precision: str, tmp_path: Path) -> None:
    config = config_of("bip", precision=precision, memory_format="channels_last")
    state = run_in(tmp_path, config)
    assert state.status == "complete", state.error
    weight = checkpoint_of(folder_of(config, tmp_path))["net"]["model"]["conv1.weight"]
    assert weight.dtype == (torch.float64 if precision == "float64" else torch.float32)
    assert state.result["kept"] == nearest_count(0.2, PRUNABLE)
