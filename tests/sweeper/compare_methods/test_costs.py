"""Every method costs the same after the dense network, as planned and as its rows say."""

from __future__ import annotations

import functools
import math
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.sweeper.compare_methods.profiles import COMPARED, PROFILES, TUNED, compared, of_seed_0
from tests.trials.small_trials import run_in
from trials.data.loader import split_indices
from trials.dotted_paths import leaves
from trials.methods.greg.growing import Growing, GrowingLayer
from trials.methods.registry import METHODS
from trials.regrowth.layer_signals import BATCH_SIZE

TRAINING_IMAGES = {"digits": 1_437, "cifar10": 50_000}


@functools.cache
def iterations(config: Any) -> int:
    """Iterations of GReg's penalty; for single weights they depend on neither network nor data."""
    stage: Any = next(METHODS[config.method](config).stages())
    picked = None if config.method == "greg2" else torch.tensor([[True]])
    stage.layers = {"weight": GrowingLayer(1, picked)}
    stage.layers["weight"].attach(torch.zeros(1, 1), "weight")
    while not stage._is_stable():
        if stage.stable_since is None and stage.iteration % config.update_reg_interval == 0:
            stage._update_all()
        stage.iteration += 1
    return int(stage.iteration)


def steps_per_epoch(config: Any, batch_size: int) -> int:
    train, _ = split_indices(TRAINING_IMAGES[config.dataset], config.val_fraction, config.split_seed)
    return math.ceil(len(train) / batch_size)


def training_images(config: Any) -> int:
    return len(split_indices(TRAINING_IMAGES[config.dataset], config.val_fraction, config.split_seed)[0])


def cost_after_dense(config: Any) -> float:
    """Gradient evaluations per training image, including those of sparse networks that the trial starts from."""
    method = METHODS[config.method](config)
    source = method.source()
    assert source is not None
    before = 0.0 if source.method == "dense" else cost_after_dense(source)
    return before + scores_of(config) + sum(cost_of(stage, config) for stage in method.stages())


def scores_of(config: Any) -> float:
    """Passes for scores from gradients."""
    images = training_images(config)
    if config.method == "layer_prune" and config.score != "l1":
        return min(config.score_batches * config.score_batch_size, images) / images
    if config.method == "regrow" and config.selection in ("saliency", "gradient"):
        return min(config.saliency_batches * BATCH_SIZE, images) / images
    return 0.0


def cost_of(stage: Any, config: Any) -> float:
    if isinstance(stage, Growing):
        steps = iterations(config.model_copy(update={"stage_pr": 0.5}))
        # the batches of a begun epoch are full
        epochs, rest = divmod(steps, steps_per_epoch(config, stage.recipe.batch_size))
        return epochs + rest * stage.recipe.batch_size / training_images(config)
    if stage.name == "regrow":
        assert (config.controller.patience, config.controller.spread) == (None, None)
        episode, steps = config.episode, steps_per_epoch(config, config.episode.batch_size)
        images = min(round(episode.data_fraction * steps) * episode.batch_size, training_images(config))  # full batches
        return float(config.controller.episodes * episode.epochs * images / training_images(config))
    assert getattr(stage.recipe, "patience", None) is None
    return float(stage.planned_epochs * len(stage.streams))


@pytest.mark.parametrize("profile", PROFILES)
def test_every_method_costs_the_same(profile: str | None) -> None:
    found = [(config.method, cost_after_dense(config)) for config in of_seed_0(compared(profile))]
    assert {method for method, _ in found} == COMPARED
    costs = [cost for _, cost in found]
    assert max(costs) - min(costs) <= (1.0 if profile == "demo" else 0.02 * 200), found
    assert min(costs) == (20.0 if profile == "demo" else 200.0)


SHORT = {
    "at_once": {"finetune": {"epochs": 1}},
    "imp": {"levels": 2, "finetune": {"epochs": 1}},
    "prune_iterative": {"levels": 2, "finetune": {"epochs": 1}},
    "greg": {"stabilize_reg_interval": 4, "reg_granularity_prune": 0.2, "finetune": {"epochs": 1}},
    "greg1": {"stabilize_reg_interval": 5},
    "greg2": {"stabilize_reg_interval": 6, "reg_granularity_pick": 0.01},
    "hydra": {"prune": {"epochs": 1}, "finetune": {"epochs": 1}},
    "bip": {"prune": {"epochs": 1}},
    "adaptive_sparsity": {"train": {"epochs": 1}, "finetune": {"epochs": 1}},
    "regrow": {"prune": {"finetune": {"epochs": 1}}, "controller": {"episodes": 2}, "finetune": {"epochs": 1}},
}
"""By case of the space, what makes its trials as short as they can be."""


@pytest.mark.parametrize("method", sorted(COMPARED))
def test_rows_cost_what_is_planned(method: str, tmp_path: Path) -> None:
    """Shortened, and told from the config alone, the plan that is compared above is what the trials count."""
    for profile in TUNED:
        small = ["trial.model=tiny", "trial.dataset=digits", "trial.pretrain.epochs=1"]
        cases = [f"cases.{name}.trial.{path}={value}" for name, case in SHORT.items() for path, value in leaves(case)]
        space = compared(profile, f"grid.method=[{method}]", *small, *cases)
        config = space.config(space.cells()[0], space.corners(space.cells()[0])[0])
        state = run_in(tmp_path, config)
        assert state.status == "complete"
        assert state.result["cost"] == pytest.approx(cost_after_dense(config), abs=1e-9)
