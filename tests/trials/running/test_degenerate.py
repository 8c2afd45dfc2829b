"""Degenerate networks, accuracies and data are named by a code, healthy ones are not."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.trials.folders import rows_of
from tests.trials.small_trials import BASE, CONFIGS, RECIPE, config_of, folder_of, run_in
from trials.config.trial_config import TrialConfig
from trials.data import load_data
from trials.methods import Stage
from trials.methods.asked import count_units, kept_units, share_of
from trials.methods.parsing import parse
from trials.methods.registry import METHODS
from trials.running.degenerate import Judge, guessing
from trials.storage.rows import WARNINGS, Row
from trials.training.build import build_loader, build_net

pytestmark = pytest.mark.usefixtures("few_digits")

UNASKED = {"dense", "finetune", "gradient_prune", "dwp"}
FIGURES: Row = {"val_accuracy": 0.99, "empty_layers": 0}


def few() -> Any:
    return load_data(*config_of("dense").data_key)


def judged(config: TrialConfig, raw: Any = None) -> tuple[Judge, Stage]:
    """The judge of a trial whose network is as built, and the trial's last stage."""
    raw, device = raw or few(), torch.device("cpu")
    net, data = build_net(config, raw, device), build_loader(config, raw, device)
    method = METHODS[config.method](config)
    return Judge(method, net, data, raw), list(method.stages())[-1]


@pytest.mark.parametrize("name", CONFIGS)
def test_a_network_that_lost_nothing_is_named_for_every_method(name: str) -> None:
    judge, stage = judged(config_of(name))
    asks = config_of(name).method not in UNASKED
    assert judge.of_row(FIGURES, stage, True) == (["density_missed", "nothing_pruned"] if asks else [])
    first = next(METHODS[config_of(name).method](config_of(name)).stages())
    if config_of(name).method in ("greg1", "greg2", "oracle", "regrow_iterative", "adaptive_sparsity"):
        assert judge.of_row(FIGURES, first, False) == []  # it removes, or reaches its target, only later


ONE_SHOT = {"method": "one_shot", "pretrain": RECIPE, "finetune": None}


@pytest.mark.parametrize("pattern", ["weight", "kernel", "filter", "channel", "kernel_mean", "filter_l1"])
@pytest.mark.parametrize("distribution", ["global", "uniform", "erk"])
@pytest.mark.parametrize("density", [0.9, 0.37, 0.05])
def test_what_is_pruned_as_asked_is_not_named(pattern: str, distribution: str, density: float) -> None:
    config: Any = parse({**BASE, **ONE_SHOT, "pattern": pattern, "distribution": distribution, "density": density})
    judge, stage = judged(config)
    judge.net.set_masks(config.masks(judge.net, density))
    assert judge.of_row(FIGURES, stage, True) == []
    judge.net.set_masks({})
    judge.net.set_masks(config.masks(judge.net, density / 4 if density > 0.1 else 4 * density))
    assert "density_missed" in judge.of_row(FIGURES, stage, True)


@pytest.mark.parametrize("method", ["one_shot", "bip", "hydra"])
@pytest.mark.parametrize("pattern", ["filter", "channel"])
def test_groups_of_a_perceptron_are_nothing_to_prune(method: str, pattern: str) -> None:
    """(Checks before a run may refuse such a trial; a trial that runs nevertheless says so.)"""
    config = parse({**BASE, "model": "mlp_7_relu", "method": method, "pattern": pattern, "density": 0.5})
    judge, stage = judged(config)
    assert judge.of_row(FIGURES, stage, True) == ["density_missed", "nothing_pruned"]


@pytest.mark.parametrize("method", ["l1", "greg1", "greg2", "oracle"])
@pytest.mark.parametrize("pattern", ["filter", "weight"])
def test_skipping_every_layer_is_named(method: str, pattern: str) -> None:
    fields = {"method": method, "pattern": pattern, "stage_pr": 0.5, "skip_layers": ["0", "1", "2", "3"]}
    judge, stage = judged(parse({**BASE, **fields}))
    assert judge.of_row(FIGURES, stage, True) == ["density_missed", "nothing_pruned"]


@pytest.mark.parametrize(
    ("name", "fields"),
    [
        ("one_shot", {"density": 1.0}),
        ("bip", {"density": 1.0}),
        ("hydra", {"density": 1.0}),
        ("l1", {"stage_pr": 0.0}),
        ("global_prune", {"p_prune": 0.0}),
        ("global_prune", {"p_bern": 0.0}),
        ("layer_prune", {"p_prune": 0.0}),
        ("adaptive_sparsity", {"starget": 0.0}),
    ],
)
def test_where_nothing_was_asked_nothing_is_missed(name: str, fields: dict[str, Any]) -> None:
    judge, stage = judged(config_of(name, **fields))
    assert judge.of_row(FIGURES, stage, True) == []


def test_rounding_to_nothing_is_no_missed_density() -> None:
    judge, stage = judged(config_of("one_shot", density=0.99999))  # of 19,056 weights
    assert judge.of_row(FIGURES, stage, True) == ["nothing_pruned"]


@pytest.mark.parametrize("pattern", ["weight", "kernel", "filter", "channel"])
def test_units_are_counted_alike_in_shapes_and_masks(pattern: str) -> None:
    weights = {"conv": torch.zeros(4, 3, 5, 5), "linear": torch.zeros(6, 7)}
    whole = {name: torch.ones_like(weight, dtype=torch.bool) for name, weight in weights.items()}
    expected = {"weight": 342, "kernel": 12 + 42, "filter": 10, "channel": 10}[pattern]
    assert sum(count_units(weight, pattern) for weight in weights.values()) == expected
    assert share_of(weights, 0.5, pattern).units == expected
    assert int(kept_units(list(weights), weights, whole, pattern)) == expected
    whole["conv"][1] = False
    lost = {"weight": 75, "kernel": 3, "filter": 1, "channel": 0}[pattern]
    assert int(kept_units(list(weights), weights, whole, pattern)) == expected - lost


@pytest.mark.parametrize(("classes", "majority", "images"), [(10, 50, 500), (2, 100, 200), (2, 180, 200), (3, 9, 20)])
def test_guesses_are_at_chance_level_and_better_ones_are_not(classes: int, majority: int, images: int) -> None:
    p = max(1 / classes, majority / images)
    sigma = math.sqrt(p * (1 - p) / images)
    assert p + sigma < guessing(classes, majority, images) < p + 2 * sigma


def test_one_class_leaves_nothing_but_guessing() -> None:
    assert guessing(1, 20, 20) == 1.0
    assert guessing(10, 20, 20) == 1.0


@pytest.mark.parametrize(("accuracy", "codes"), [(0.06, ["chance_level"]), (0.1, ["chance_level"]), (0.9, [])])
def test_accuracy_is_judged_in_rows_and_result(accuracy: float, codes: list[str]) -> None:
    judge, stage = judged(config_of("dense"))
    row = {**FIGURES, "val_accuracy": accuracy}
    assert judge.of_row(row, stage, False) == codes
    assert judge.of_row(row, stage, True) == codes
    assert judge.of_result(row) == codes


@pytest.mark.parametrize(
    ("kind", "codes"),
    [
        ("digits", []),
        ("two classes", []),
        ("one class", ["one_class"]),
        ("rare in training", ["class_missing_in_val"]),
        ("rare in validation", ["class_missing_in_train"]),
        ("rare in test", ["class_missing_in_train"]),
        ("rare in both", ["class_missing_in_val", "class_missing_in_train"]),
        ("rare in training and test", ["class_missing_in_val"]),
    ],
)
def test_data_are_judged_in_the_result(kind: str, codes: list[str]) -> None:
    raw = few()
    data = build_loader(config_of("dense"), raw, torch.device("cpu"))
    count = {"digits": 10, "one class": 1}.get(kind, 2)
    labels, test_labels = raw.train_labels % count, raw.test_labels % count
    if kind in ("rare in training", "rare in both", "rare in training and test"):
        labels[data.train_indices[0]] = 3
    if kind in ("rare in validation", "rare in both"):
        labels[data.val_indices[0]] = 4
    if kind in ("rare in test", "rare in training and test"):
        test_labels[0] = 3
    changed = dataclasses.replace(raw, train_labels=labels, test_labels=test_labels)
    judge, stage = judged(config_of("dense"), changed)
    guess = ["chance_level"] if kind == "one class" else []  # guessing is always right
    assert judge.of_row(FIGURES, stage, True) == guess
    assert judge.of_result(FIGURES) == [*guess, *codes]


@pytest.mark.parametrize("stratify", [False, True])
@pytest.mark.parametrize("split_seed", range(8))
@pytest.mark.parametrize("images", [1, 2, 3])
def test_a_class_is_missing_where_the_split_has_put_none_of_it(images: int, split_seed: int, stratify: bool) -> None:
    raw, rare = few(), 3
    labels = raw.train_labels % 2
    labels[:images] = rare
    config = config_of("dense", val_fraction=0.4, split_seed=split_seed, stratify_split=stratify)
    raw = dataclasses.replace(raw, train_labels=labels, test_labels=raw.test_labels % 2)
    data = build_loader(config, raw, torch.device("cpu"))
    there = {
        part: rare in labels[indices] for part, indices in (("train", data.train_indices), ("val", data.val_indices))
    }
    codes = [f"class_missing_in_{part}" for part in ("val", "train") if not there[part]]
    assert judged(config, raw)[0].of_result(FIGURES) == codes
    assert codes == [] or not stratify or images == 1
    assert "class_missing_in_train" not in codes or not stratify


def test_a_trial_with_empty_layers_says_so_in_row_and_result(tmp_path: Path) -> None:
    config = config_of("one_shot", density=1e-4)
    state = run_in(tmp_path, config)
    assert state.status == "complete", state.error
    assert state.result["warnings"] == ["layers_empty", "chance_level"]
    rows = rows_of(folder_of(config, tmp_path))["epochs"]
    assert [row["warnings"] for row in rows if row["stage"] == "finetune"] == 3 * [["layers_empty", "chance_level"]]
    assert all("layers_empty" not in row["warnings"] for row in rows if row["stage"] == "pretrain")


def test_every_code_has_a_sentence() -> None:
    assert set(WARNINGS) == {
        *("density_missed", "layers_empty", "chance_level", "nothing_pruned"),
        *("one_class", "class_missing_in_val", "class_missing_in_train"),
    }
    assert all(text and "\n" not in text for text in WARNINGS.values())
