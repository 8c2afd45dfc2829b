"""Small trials to run whole, and their folders."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.trials.pruned_files import masked_file
from trials.config.trial_config import TrialConfig
from trials.methods.parsing import parse
from trials.methods.registry import METHODS
from trials.running.trial import TrialHost, run
from trials.storage.trial_folder import State

RECIPE = {"epochs": 2, "batch_size": 128}
STEPS = 3
PRUNABLE = 19_056  # conv and linear weights of tiny on gray images of ten classes
"""Steps an epoch of ``few_digits``: 360 images to train on, in batches of 128."""

BASE: dict[str, Any] = {"dataset": "few_digits", "model": "tiny", "seed": 3}

GROWTH = {
    "update_reg_interval": 2,
    "reg_granularity_prune": 0.6,
    "reg_upper_limit": 1.0,
    "stabilize_reg_interval": 2,
    "prune": {"batch_size": 128},
}
"""Lambda is above its limit at iteration 2, or 6 where groups are picked first: the stage ends within an epoch."""

CONFIGS: dict[str, dict[str, Any]] = {
    "dense": {"method": "dense", "train": RECIPE},
    "one_shot": {"method": "one_shot", "density": 0.3, "pretrain": RECIPE, "finetune": RECIPE},
    "one_shot-coupled": {
        "method": "one_shot",
        "density": 0.5,
        "pattern": "filter",
        "couple": True,
        "pretrain": RECIPE,
        "finetune": RECIPE,
    },
    "prune_iterative-coupled": {
        "method": "prune_iterative",
        "levels": 2,
        "prune_fraction": 0.3,
        "pattern": "filter",
        "couple": True,
        "distribution": "uniform",
        "pretrain": RECIPE,
        "finetune": RECIPE,
    },
    "one_shot-filter": {
        "method": "one_shot",
        "density": 0.6,
        "pattern": "filter",
        "distribution": "uniform",
        "pretrain": RECIPE,
        "finetune": None,
    },
    "imp-weights": {"method": "imp", "levels": 2, "pretrain": RECIPE},
    "imp-weights-early": {"method": "imp", "levels": 2, "rewind_epoch": 1, "pretrain": RECIPE},
    "imp-learning_rate": {"method": "imp", "levels": 2, "rewind": "learning_rate", "pretrain": RECIPE},
    "imp-none": {"method": "imp", "levels": 2, "rewind": "none", "pretrain": RECIPE, "finetune": RECIPE},
    "bip": {"method": "bip", "density": 0.2, "pretrain": RECIPE, "prune": RECIPE, "finetune": {**RECIPE, "epochs": 1}},
    "bip-channel": {"method": "bip", "density": 0.5, "pattern": "channel", "pretrain": RECIPE, "prune": RECIPE},
    "bip-original": {"method": "bip", "density": 0.3, "variant": "original", "pretrain": RECIPE, "prune": RECIPE},
    "hydra": {"method": "hydra", "density": 0.2, "pretrain": RECIPE, "prune": RECIPE, "finetune": RECIPE},
    "hydra-filter-original": {
        "method": "hydra",
        "density": 0.5,
        "pattern": "filter",
        "variant": "original",
        "pretrain": RECIPE,
        "prune": RECIPE,
        "finetune": None,
    },
    "finetune": {"method": "finetune", "source_net": masked_file("tiny", 10, 1), "finetune": RECIPE},
    "prune_iterative": {
        "method": "prune_iterative",
        "levels": 2,
        "prune_fraction": 0.5,
        "keep": ["dense", "pruned"],
        "pretrain": RECIPE,
        "finetune": {**RECIPE, "schedule": "cosine", "warmup_share": 0.2},
    },
    "regrow": {
        "method": "regrow",
        "prune": {"prune_fraction": 0.9, "finetune": {"epochs": 1}},
        "rounds": 2,
        "regrow_fraction": 0.02,
        "layers": ["conv2", "conv3", "linear"],
        "controller": {"episodes": 3, "episodes_in_flight": 2, "lr": 5e-3},
        "episode": {"epochs": 1, "data_fraction": 0.5},
        "pretrain": RECIPE,
        "finetune": {**RECIPE, "regrown": "differential"},
    },
    "regrow-rule": {
        "method": "regrow",
        "prune": {"prune_fraction": 0.9, "finetune": {"epochs": 1}},
        "allocation": "proportional",
        "selection": "random",
        "initial": "magnitude",
        "batchnorm_batches": 2,
        "pretrain": RECIPE,
        "finetune": None,
    },
    "regrow-filter": {
        "method": "regrow",
        "unit": "filter",
        "prune": {"score": "magnitude", "distribution": "uniform", "prune_fraction": 0.5, "finetune": {"epochs": 1}},
        "regrow_fraction": 0.1,
        "selection": "gradient",
        "initial": "reference",
        "controller": {"episodes": 2},
        "episode": {"epochs": 0},
        "pretrain": RECIPE,
        "finetune": RECIPE,
    },
    "regrow_iterative": {
        "method": "regrow_iterative",
        "prune": {"levels": 2, "prune_fraction": 0.7, "finetune": {"epochs": 1}},
        "rounds": 2,
        "target_sparsity": 0.88,
        "budget_min": 0.01,
        "budget_max": 0.05,
        "controller": {"episodes": 2},
        "episode": {"epochs": 1, "reward_images": 30},
        "pretrain": RECIPE,
    },
    "single_layer": {
        "method": "single_layer",
        "prune": {"prune_fraction": 0.9, "finetune": {"epochs": 1}},
        "episode": {"epochs": 1, "data_fraction": 0.4},
        "in_flight": 2,
        "pretrain": RECIPE,
    },
    "bip-both": {
        "method": "bip",
        "density": 0.4,
        "score_init": "random",
        "implicit_gradient": "code",
        "batchnorm": "both",
        "pretrain": RECIPE,
        "prune": RECIPE,
    },
    "l1": {"method": "l1", "stage_pr": "[0-2:0.5]", "pretrain": RECIPE, "finetune": RECIPE},
    "l1-weight": {
        "method": "l1",
        "stage_pr": 0.6,
        "pattern": "weight",
        "pick_pruned": "rand",
        "reinit": "kaiming",
        "pretrain": RECIPE,
        "finetune": None,
    },
    "greg1": {"method": "greg1", "stage_pr": 0.5, **GROWTH, "pretrain": RECIPE, "finetune": {**RECIPE, "epochs": 1}},
    "greg1-weight-original": {
        "method": "greg1",
        "variant": "original",
        "pattern": "weight",
        "stage_pr": 0.7,
        **GROWTH,
        "pretrain": RECIPE,
        "finetune": {**RECIPE, "lr_steps": "0:0.02,1:0.01"},
    },
    "greg2-channel": {
        "method": "greg2",
        "pattern": "channel",
        "stage_pr": 0.5,
        **GROWTH,
        "reg_granularity_pick": 0.1,
        "reg_upper_limit_pick": 0.15,
        "pretrain": RECIPE,
        "finetune": {**RECIPE, "epochs": 1},
    },
    "oracle": {
        "method": "oracle",
        "stage_pr": {"0": 0.1},
        "batch_size": 128,
        "pretrain": RECIPE,
        "finetune": {**RECIPE, "epochs": 1},
    },
    "global_prune": {"method": "global_prune", "p_prune": 0.4, "p_bern": 0.7, "pretrain": RECIPE, "finetune": RECIPE},
    "global_prune-original": {
        "method": "global_prune",
        "p_prune": 0.4,
        "pattern": "weight",
        "variant": "original",
        "pretrain": RECIPE,
    },
    "layer_prune": {"method": "layer_prune", "p_prune": 0.4, "pretrain": RECIPE, "finetune": RECIPE},
    "layer_prune-l1-original": {
        "method": "layer_prune",
        "score": "l1",
        "p_prune": 0.4,
        "variant": "original",
        "pretrain": RECIPE,
    },
    "gradient_prune": {
        "method": "gradient_prune",
        "pretrain": RECIPE,
        "train": {**RECIPE, "backward": {"p_prune": 0.5, "p_bern": 0.5, "refresh_every": 2}},
    },
    "bip-backward": {
        "method": "bip",
        "density": 0.2,
        "pretrain": RECIPE,
        "prune": {**RECIPE, "backward": {"p_bern": 0.7, "linear": True, "refresh_every": 4}},
    },
    "dwp": {"method": "dwp", "surrogates": 2, "steps": 2, "images": 30, "pretrain": RECIPE},
    "adaptive_sparsity": {"method": "adaptive_sparsity", "starget": 0.8, "lv": 100, "train": RECIPE},
    "adaptive_sparsity-cut": {
        "method": "adaptive_sparsity",
        "starget": 0.8,
        "lv": 100,
        "exact_target": True,
        "train": RECIPE,
        "finetune": RECIPE,
    },
    "adaptive_sparsity-fixed": {
        "method": "adaptive_sparsity",
        "starget": 0.7,
        "mode": "fixed",
        "pthres": 100,
        "variant": "original",
        "exact_target": True,
        "train": RECIPE,
    },
}


def config_of(name: str, **fields: Any) -> TrialConfig:
    return parse({**BASE, **CONFIGS[name], **fields})


def folder_of(config: TrialConfig, storage: Path) -> Path:
    return storage / "sweep" / "trials" / config.id


def run_in(storage: Path, config: TrialConfig, **trial_host: Any) -> State:
    return run(config, folder_of(config, storage), TrialHost(storage / "stages", **trial_host))


def source_of(config: TrialConfig, storage: Path) -> Path | None:
    """The folder of the shared trial that a trial starts from (of a dense trial, itself); None if it starts anew."""
    source = config if config.method == "dense" else METHODS[config.method](config).source()
    if source is None:
        return None
    (folder,) = (storage / "stages").glob(f"{source.id}-*")
    return folder
