"""Small trials to run whole, and what they came to."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from trials.config import TrialConfig, parse
from trials.ledger import Row, Rows, State, TrialFolder
from trials.trial import Surroundings, run

RECIPE = {"epochs": 2, "batch_size": 128}
STEPS = 3
"""Steps an epoch of ``few_digits``: 360 images to train on, in batches of 128."""

BASE: dict[str, Any] = {"dataset": "few_digits", "model": "tiny", "seed": 3}

CONFIGS: dict[str, dict[str, Any]] = {
    "dense": {"method": "dense", "train": RECIPE},
    "one_shot": {"method": "one_shot", "density": 0.3, "pretrain": RECIPE, "finetune": RECIPE},
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
    "bip-both": {
        "method": "bip",
        "density": 0.4,
        "score_init": "random",
        "implicit_gradient": "code",
        "batchnorm": "both",
        "pretrain": RECIPE,
        "prune": RECIPE,
    },
}


def config_of(name: str, **fields: Any) -> TrialConfig:
    return parse({**BASE, **CONFIGS[name], **fields})


def folder_of(config: TrialConfig, storage: Path) -> Path:
    return storage / "sweep" / "trials" / config.id


def run_in(storage: Path, config: TrialConfig, **around: Any) -> State:
    return run(config, folder_of(config, storage), Surroundings(storage / "stages", **around))


def rows_of(path: Path) -> Rows:
    """The rows that the folder's last commit stands for."""
    folder = TrialFolder(path)
    state = folder.state()
    assert state is not None
    return folder.rows(state.commits[-1])


def checkpoint_of(path: Path) -> dict[str, Any]:
    folder = TrialFolder(path)
    state = folder.state()
    assert state is not None
    return folder.checkpoint(state.commits[-1])


def timeless(rows: Rows) -> Rows:
    return {table: [_without_seconds(row) for row in content] for table, content in rows.items()}


def _without_seconds(row: Row) -> Row:
    return {key: value for key, value in row.items() if key != "seconds"}


def same(a: object, b: object) -> bool:
    """Equal to the bit, tensors and all."""
    if isinstance(a, torch.Tensor) and isinstance(b, torch.Tensor):
        return a.dtype == b.dtype and torch.equal(a, b)
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    return a == b


def assert_same_outcome(path: Path, undisturbed: Path) -> None:
    """Complete, with the rows (seconds aside), result and network of the undisturbed trial, to the bit."""
    state, reference = TrialFolder(path).state(), TrialFolder(undisturbed).state()
    assert state is not None
    assert reference is not None
    assert state.status == reference.status == "complete"
    rows = rows_of(path)
    assert timeless(rows) == timeless(rows_of(undisturbed))
    assert_rows_once(rows)
    assert state.result == reference.result
    assert same(checkpoint_of(path)["net"], checkpoint_of(undisturbed)["net"])


def assert_rows_once(rows: Rows) -> None:
    for table, key in (("epochs", ("stage", "level", "epoch")), ("layers", ("stage", "level", "layer"))):
        keys = [tuple(row[name] for name in key) for row in rows[table]]
        assert len(keys) == len(set(keys))
        assert keys
