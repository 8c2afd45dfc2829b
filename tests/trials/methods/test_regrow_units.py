"""Budgets, targets, rewards and columns of regrowth count one unit, and every layer gets the budget it was promised."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.trials.folders import checkpoint_of, rows_of
from tests.trials.small_trials import config_of, folder_of, run_in
from trials.config.trial_config import TrialConfig
from trials.errors import UserError
from trials.methods.parsing import parse
from trials.regrowth.channels import kept_filters

pytestmark = pytest.mark.usefixtures("few_digits")

FILTERS = {
    "unit": "filter",
    "prune": {"score": "magnitude", "levels": 3, "prune_fraction": 0.4, "finetune": {"epochs": 1}},
    "rounds": 2,
    "target_sparsity": 0.6,
    "budget_min": 0.05,
    "budget_max": 0.1,
    "ssim_threshold": None,
}


def ran(config: TrialConfig, storage: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """The rows and the network of a trial that was run."""
    state = run_in(storage, config)
    assert state.status == "complete", state.error
    folder = folder_of(config, storage)
    return dict(rows_of(folder)), dict(checkpoint_of(folder)["net"])


def pruned_share(masks: dict[str, Tensor], unit: str) -> float:
    counted = torch.cat([(kept_filters(mask) if unit == "filter" else mask.reshape(-1)) for mask in masks.values()])
    return float(1 - counted.double().mean())


Levels = dict[tuple[str, int], float]


def level_sparsities(rows: dict[str, Any], masks: dict[str, Tensor], unit: str) -> Levels:
    """The sparsity at the end of dense training and of each level of pruning, from rows of the layers with masks."""
    found: dict[tuple[str, int], list[tuple[int, int]]] = {}
    for row in rows["layers"]:
        name = f"{row['layer']}.weight"
        if row["stage"] in ("pretrain", "prune") and name in masks:
            size = masks[name][0].numel() if unit == "filter" else 1
            found.setdefault((row["stage"], row["level"]), []).append((row["kept"] // size, row["total"] // size))
    return {key: 1 - sum(k for k, _ in pairs) / sum(t for _, t in pairs) for key, pairs in found.items()}


@pytest.mark.parametrize("unit", ["filter", "weight"])
def test_rewards_compare_with_pruning_at_a_sparsity_of_the_same_unit(unit: str, tmp_path: Path) -> None:
    rows, net = ran(config_of("regrow_iterative", **{**FILTERS, "unit": unit}), tmp_path)
    sparsities = level_sparsities(rows, net["masks"], unit)
    ends = {(row["stage"], row["level"]): row["val_accuracy"] for row in rows["epochs"]}
    curve = sorted((sparsity, ends[key]) for key, sparsity in sparsities.items())
    assert len({x for x, _ in curve}) == 4
    sizes = [m.numel() if unit == "weight" else len(m) for m in net["masks"].values()]
    start = max(sparsities.values())
    spent = 0
    for level in (1, 2):
        tried = [row for row in rows["allocations"] if row["step"] == level]
        episodes = {row["episode"]: [r for r in tried if r["episode"] == row["episode"]] for row in tried}
        for allocation in episodes.values():
            there = start - (spent + sum(row["count"] for row in allocation)) / sum(sizes)
            expected = allocation[0]["accuracy"] - float(np.interp(there, *zip(*curve, strict=True)))
            assert allocation[0]["reward"] == pytest.approx(expected, abs=1e-9)
        best = max(episodes, key=lambda number: episodes[number][0]["reward"])
        spent += sum(row["count"] for row in episodes[best])
    assert pruned_share(net["masks"], unit) == pytest.approx(start - spent / sum(sizes))


def test_a_target_of_filters_is_reached_in_filters_and_said_in_a_column(tmp_path: Path) -> None:
    rows, net = ran(config_of("regrow_iterative", **{**FILTERS, "rounds": 9, "target_sparsity": 0.7}), tmp_path)
    regrown = [row for row in rows["epochs"] if row["stage"] == "regrow"]
    measured = pruned_share(net["masks"], "filter")
    assert regrown[-1]["filter_sparsity"] == pytest.approx(measured)
    assert 0.7 - 0.1 < measured <= 0.701  # by less than one budget beyond the target
    assert "density_missed" not in regrown[-1]["warnings"]
    reached = [row["filter_sparsity"] <= 0.701 for row in regrown]
    first = reached.index(True)
    assert all("regrown" not in row or row["regrown"] is None for row in regrown[first + 1 :])  # nothing grows any more


def test_the_column_of_filters_is_of_filter_trials_only(tmp_path: Path) -> None:
    rows, net = ran(config_of("regrow-filter"), tmp_path)
    (row,) = (row for row in rows["epochs"] if row["stage"] == "regrow")
    assert row["filter_sparsity"] == pytest.approx(pruned_share(net["masks"], "filter"))
    others, _ = ran(config_of("regrow-rule"), tmp_path)
    assert all("filter_sparsity" not in row for row in others["epochs"])


@pytest.mark.parametrize("method", ["regrow", "regrow_iterative", "single_layer"])
@pytest.mark.parametrize("unit", ["weight", "filter"])
def test_rewards_in_filters_are_of_revision_2(method: str, unit: str) -> None:
    config = parse({"method": method, "unit": unit, "dataset": "digits", "model": "tiny"})
    assert config.revision == (2 if (method, unit) == ("regrow_iterative", "filter") else 1)
    assert bool(config.revised_because) == (config.revision == 2)


@pytest.mark.parametrize(("fraction", "least"), [(None, 1.0), (0.1, 0.0)])
def test_the_full_budget_goes_to_every_layer_as_far_as_it_fits(
    fraction: float | None, least: float, tmp_path: Path
) -> None:
    """As in the released single_layer_regrowth_analysis.py: no layer is named, and one of them was not pruned."""
    prune = {"prune_fraction": 0.9, "distribution": "uniform_plus", "score": "magnitude", "finetune": {"epochs": 1}}
    config = config_of("single_layer", prune=prune, budgets="full", budget_fraction=fraction)
    rows, net = ran(config, tmp_path)
    total = sum(mask.numel() for mask in net["masks"].values())
    tried = rows["allocations"]
    names = {row["layer"] for row in tried}
    assert names == {"conv2", "conv3", "linear"}  # uniform_plus keeps conv1 whole
    for row in tried:
        budget = total if fraction is None else int(fraction * total)
        own = row["episode"] and [r["layer"] for r in tried if r["episode"] == row["episode"] and r["count"]]
        assert own == (0 if not row["episode"] else [own[0]])
        assert row["count"] in (0, min(budget, row["capacity"]))
    counts = {row["layer"]: row["count"] for row in tried if row["count"]}
    assert counts.keys() == names
    capacities = {row["layer"]: row["capacity"] for row in tried}
    assert all(count >= least * capacities[layer] for layer, count in counts.items())
    assert max(counts.values()) > min(capacities.values())  # more than an equal budget would be
    (last,) = (row for row in rows["epochs"] if row["stage"] == "regrow")
    assert last["budget"] == max(counts.values())


def test_an_unknown_initial_value_of_the_analysis_is_refused() -> None:
    with pytest.raises(UserError, match="initial is 'nothing', but must be one of"):
        config_of("single_layer", initial="nothing")
