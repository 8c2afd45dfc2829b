"""The shipped spaces of the adaptive sparsity loss: the demo's result, constraints and recipe."""

from __future__ import annotations

from pathlib import Path

import pytest

from sweeper.results.bounds import feasible
from sweeper.space.load import load_space
from trials.running.trial import TrialHost, run


def test_the_demo_reaches_its_target_within_a_point(tmp_path: Path) -> None:
    space = load_space("adaptive_budget", profile="demo")
    cell = next(cell for cell in space.cells() if cell.values == {"starget": 0.9})
    config = space.config(cell, {"lv": 80.0, "initial_threshold": 0.9})
    state = run(config, tmp_path / "trial", TrialHost(tmp_path / "stages"))
    assert state.status == "complete", state.error
    assert state.result["sparsity"] == pytest.approx(0.9, abs=0.01)
    assert state.result["analytic_density"] == pytest.approx(0.1, abs=0.01)
    assert state.result["val_accuracy"] > 0.9


@pytest.mark.parametrize("name", ["adaptive_budget", "adaptive_fixed"])
@pytest.mark.parametrize("profile", [None, "demo", "paper", "paper_cifar10"])
def test_a_trial_counts_only_within_a_point_of_its_own_target(name: str, profile: str | None) -> None:
    space = load_space(name, profile=profile)
    for cell in space.cells():
        starget = float(cell.values["starget"])  # type: ignore[arg-type]
        for sparsity, counts in ((starget, True), (starget - 0.009, True), (starget + 0.011, False), (0.0, False)):
            row = {"sparsity": sparsity, "config.starget": starget, "starget": starget, "method": "adaptive_sparsity"}
            assert feasible(row, space.constraints) == counts


@pytest.mark.parametrize("name", ["adaptive_budget", "adaptive_fixed"])
def test_paper_is_the_released_recipe(name: str) -> None:
    space = load_space(name, profile="paper")
    config = space.config(next(iter(space.cells())))
    content = config.model_dump()
    assert (content["model"], content["dataset"], content["lv"], content["pthres"]) == (
        "wrn_16_8",
        "cifar100",
        10,
        1000,
    )
    train = {"epochs": 60, "batch_size": 128, "lr": 0.1, "momentum": 0.9, "weight_decay": 5e-4}
    assert {key: content["train"][key] for key in train} == train
    assert content["threshold_lr_factor"] * content["train"]["lr"] == pytest.approx(1e-3)
    assert not space.search
