"""A trial has one row per epoch, and its rows agree with its masks."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch

from sweeper.columns import ALWAYS, SOME
from sweeper.results.column_types import placed
from tests.trials.folders import assert_rows_once, checkpoint_of, rows_of
from tests.trials.small_trials import CONFIGS, PRUNABLE, config_of, folder_of, run_in, source_of
from trials.compact import units_of
from trials.models import MODELS
from trials.running import progress
from trials.sparsity import nearest_count
from trials.sparsity.coupled import units_left
from trials.storage.rows import Row

pytestmark = pytest.mark.usefixtures("few_digits")

EPOCHS: dict[str, list[tuple[str, int, int]]] = {  # (stage, level, epoch) of every row; 0 is after entering a stage
    "dense": [],
    "one_shot": [("finetune", 0, epoch) for epoch in (0, 1, 2)],
    "one_shot-filter": [("prune", 0, 0)],
    "imp-weights": [("train", level, epoch) for level in (1, 2) for epoch in (0, 1, 2)],
    "imp-weights-early": [("train", level, epoch) for level in (1, 2) for epoch in (0, 2)],
    "imp-learning_rate": [("train", level, epoch) for level in (1, 2) for epoch in (0, 1, 2)],
    "imp-none": [("train", level, epoch) for level in (1, 2) for epoch in (0, 1, 2)],
    "regrow": [
        *(("prune", 1, epoch) for epoch in (0, 1)),
        *(row for level in (1, 2) for row in (("regrow", level, 1), ("finetune", level, 1), ("finetune", level, 2))),
    ],
    "regrow-filter": [
        *(("prune", 1, epoch) for epoch in (0, 1)),
        ("regrow", 1, 1),
        *(("finetune", 1, epoch) for epoch in (1, 2)),
    ],
    "regrow-rule": [*(("prune", 1, epoch) for epoch in (0, 1)), ("regrow", 1, 1)],
    "regrow_iterative": [
        *(("prune", level, epoch) for level in (1, 2) for epoch in (0, 1)),
        *(("regrow", level, 1) for level in (1, 2)),
    ],
    "single_layer": [*(("prune", 1, epoch) for epoch in (0, 1)), ("regrow", 0, 1)],
    "prune_iterative": [("prune", level, epoch) for level in (1, 2) for epoch in (0, 1, 2)],
    "prune_iterative-coupled": [("prune", level, epoch) for level in (1, 2) for epoch in (0, 1, 2)],
    "one_shot-coupled": [("finetune", 0, epoch) for epoch in (0, 1, 2)],
    "one_shot-nm": [("finetune", 0, epoch) for epoch in (0, 1, 2)],
    "bip-nm": [("prune", 0, epoch) for epoch in (0, 1, 2)],
    "hydra-nm": [("prune", 0, epoch) for epoch in (0, 1, 2)],
    "bip": [*(("prune", 0, epoch) for epoch in (0, 1, 2)), ("finetune", 0, 1)],
    "bip-both": [("prune", 0, epoch) for epoch in (0, 1, 2)],
    "bip-channel": [("prune", 0, epoch) for epoch in (0, 1, 2)],
    "bip-original": [("prune", 0, epoch) for epoch in (0, 1, 2)],
    "hydra": [*(("prune", 0, epoch) for epoch in (0, 1, 2)), *(("finetune", 0, epoch) for epoch in (1, 2))],
    "hydra-filter-original": [("prune", 0, epoch) for epoch in (0, 1, 2)],
    "finetune": [("finetune", 0, epoch) for epoch in (0, 1, 2)],
    "l1": [("finetune", 0, epoch) for epoch in (0, 1, 2)],
    "l1-weight": [("remove", 0, 0)],
    "greg1": [*(("prune", 0, epoch) for epoch in (1, 2)), *(("finetune", 0, epoch) for epoch in (0, 1))],
    "greg1-weight-original": [
        *(("prune", 0, epoch) for epoch in (1, 2)),
        *(("finetune", 0, epoch) for epoch in (0, 1, 2)),
    ],
    "greg2-channel": [*(("prune", 0, epoch) for epoch in (1, 2, 3)), *(("finetune", 0, epoch) for epoch in (0, 1))],
    "oracle": [("choose", 0, 1), *(("finetune", 0, epoch) for epoch in (0, 1))],
    "global_prune": [("finetune", 0, epoch) for epoch in (0, 1, 2)],
    "global_prune-original": [("prune", 0, 0)],
    "layer_prune": [("finetune", 0, epoch) for epoch in (0, 1, 2)],
    "layer_prune-l1-original": [("prune", 0, 0)],
    "gradient_prune": [("train", 0, epoch) for epoch in (1, 2)],
    "bip-backward": [("prune", 0, epoch) for epoch in (0, 1, 2)],
    "dwp": [("attack", 0, 0)],
    "adaptive_sparsity": [("train", 0, epoch) for epoch in (0, 1, 2)],
    "adaptive_sparsity-fixed": [("train", 0, epoch) for epoch in (0, 1, 2)],
    "adaptive_sparsity-cut": [*(("train", 0, epoch) for epoch in (0, 1, 2)), ("finetune", 0, 1), ("finetune", 0, 2)],
}


@pytest.mark.parametrize("name", CONFIGS)
def test_one_row_per_epoch(name: str, tmp_path: Path) -> None:
    config = config_of(name)
    reported: list[Row] = []
    state = run_in(tmp_path, config, report=reported.append)
    assert state.status == "complete", state.error
    rows = rows_of(folder_of(config, tmp_path))
    assert_rows_once(rows)
    keys = [(row["stage"], row["level"], row["epoch"]) for row in rows["epochs"]]
    source = source_of(config, tmp_path)
    pretraining = [] if source is None else [("pretrain", 0, 1), ("pretrain", 0, 2)]
    assert keys == [*pretraining, *EPOCHS[name]]
    assert [(row["stage"], row["level"], row["epoch"]) for row in reported] == keys
    made = {stage.name.partition("-")[0]: stage.name for stage in (tmp_path / "stages").glob("*")}
    shared = {"pretrain": source.name} if source is not None else {}
    if "prune_iterative" in made:
        shared = {"pretrain": made["dense"], "prune": made["prune_iterative"]}
    for row in rows["epochs"]:
        assert row["stage_id"] == shared.get(row["stage"])
        assert (row["train_loss"] is None) == (row["epoch"] == 0 or row["stage"] == "regrow")
        assert row["variant"] == ("corrected" if row["stage_id"] else config.variant)
        assert row["sparsity"] == 1 - row["density"]
        assert row["density"] == row["kept"] / row["prunable"]
        assert row["seconds"] >= 0
        assert not any(isinstance(value, float) and not math.isfinite(value) for value in row.values())
    last = {(row["stage"], row["level"]): row["epoch"] for row in rows["epochs"]}
    for row in rows["epochs"]:  # the test set is evaluated only when a stage ends
        assert (row["test_accuracy"] is not None) == (row["epoch"] == last[row["stage"], row["level"]])
    assert state.result["test_accuracy"] == rows["epochs"][-1]["test_accuracy"]
    assert state.result["density"] == rows["epochs"][-1]["density"]
    assert set(progress.RESULT) < state.result.keys()
    missed = {"density_missed"} if name == "adaptive_sparsity" else set()  # two epochs do not lead to its target
    assert set(state.result["warnings"]) - {"chance_level"} == missed
    assert all(set(row["warnings"]) <= {"chance_level", *missed} for row in rows["epochs"])
    for table, found in {"trials": [state.result], **rows}.items():
        assert_documented(table, found)


def assert_documented(table: str, rows: list[Row]) -> None:
    """Assert that sweeper/columns.py types every column that a trial writes, and that its values have that type."""
    documented = {**ALWAYS[table], **SOME[table]}
    for name, value in (item for row in rows for item in row.items()):
        assert name in documented, f"{table}: add a line for {name} to sweeper/columns.py"
        assert placed(table, name, [value]).keys() == {name}, f"{table}: {name} is {value!r}"


@pytest.mark.parametrize("name", CONFIGS)
def test_rows_agree_with_the_masks(name: str, tmp_path: Path) -> None:
    """Density, layer counts and zeros, from the rows and from the final network."""
    config = config_of(name)
    run_in(tmp_path, config)
    rows, net = rows_of(folder_of(config, tmp_path)), checkpoint_of(folder_of(config, tmp_path))["net"]
    masks, weights = net["masks"], net["model"]
    for key, mask in masks.items():
        assert mask.dtype == torch.bool
        assert not weights[key][~mask].any()
        assert weights[key][mask].all()
    last = rows["epochs"][-1]
    final_layers = [row for row in rows["layers"] if (row["stage"], row["level"]) == (last["stage"], last["level"])]
    assert [row["layer"] for row in final_layers] == ["conv1", "conv2", "conv3", "linear"]
    for row in final_layers:
        mask = masks.get(f"{row['layer']}.weight")
        assert row["kept"] == int((torch.ones_like(weights[f"{row['layer']}.weight"]) if mask is None else mask).sum())
        assert net["kept"] or mask is not None or row["kept"] == row["total"]
    assert last["kept"] == sum(row["kept"] for row in final_layers if f"{row['layer']}.weight" in masks or not masks)
    assert last["flops"] == sum(row["flops"] for row in final_layers)
    pattern = getattr(config, "pattern", "weight")
    if getattr(config, "couple", False):
        units = units_of(MODELS[config.model](num_classes=10, in_channels=1))
        share = CONFIGS[name].get("density") or (1 - CONFIGS[name]["prune_fraction"]) ** CONFIGS[name]["levels"]
        assert int(units_left(units, masks).sum()) == nearest_count(share, len(units.group))
        assert last["compact_parameters"] < last["parameters"]
        assert 0 < last["density"] < 1  # of weights: the rows of a unit, and the columns that read it
    elif pattern != "weight" and "density" in CONFIGS[name]:
        assert "linear.weight" not in masks
        assert ("conv1.weight" in masks) == (pattern != "channel")  # its input channels are the image's and stay
        for mask in masks.values():
            groups = mask.transpose(0, int(pattern == "channel")).flatten(1)
            assert abs(int(groups.any(1).sum()) - CONFIGS[name]["density"] * len(groups)) < 1
            assert torch.equal(groups.any(1), groups.all(1))
        counts = [mask.shape[int(pattern == "channel")] for mask in masks.values()]
        whole = [mask.transpose(0, int(pattern == "channel")).flatten(1).any(1) for mask in masks.values()]
        if config.rounding == "nearest":
            assert sum(int(left.sum()) for left in whole) == nearest_count(CONFIGS[name]["density"], sum(counts))
    elif "density" in CONFIGS[name]:
        assert last["kept"] == nearest_count(CONFIGS[name]["density"], PRUNABLE)
