"""GReg's ratios, picks, learning rates and oracle's choice equal those recorded from the released code."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from tests.trials.greg_nets import GREG, MANIFEST, arrays, files, indices, initial, near
from trials.config.recipes import Recipe
from trials.frozen import validate
from trials.methods.greg.groups import group_scores, group_shape, pick_groups, prune_count
from trials.methods.greg.layer_table import layer_table
from trials.methods.greg.oracle import Choose, OracleConfig
from trials.methods.greg.ratios import layer_ratios, read_skip_layers, read_stage_pr
from trials.methods.parsing import parse
from trials.sparsity import prunable
from trials.training.net import Net


@pytest.mark.parametrize("name", files("pick"))
def test_picks(name: str) -> None:
    about, recorded = MANIFEST["files"][name], arrays(name)
    weights = {layer: recorded[f"weight/{layer}"] for layer in about["layers"]}
    for pattern in about["wgs"]:
        for layer, weight in weights.items():
            scores = group_scores(weight, pattern)
            if pattern != "weight":
                near(scores.flatten(), recorded[f"{pattern}/score/{layer}"], f"{pattern} {layer}", atol=1e-6)
            for mode in about["modes"]:
                for ratio in about["prs"]:
                    pruned = pick_groups(scores, prune_count(ratio, scores.numel()), mode)
                    where = f"{pattern}/{mode}/{ratio:g}/{layer}"
                    assert indices(pruned) == sorted(recorded[f"{where}/pruned"].tolist()), where
                    assert indices(~pruned) == recorded[f"{where}/kept"].tolist(), where


@pytest.mark.parametrize("name", files("n_pruned"))
def test_counts(name: str) -> None:
    recorded = arrays(name)
    for row, ratio in enumerate(recorded["pr"].tolist()):
        for column, n in enumerate(recorded["n"].tolist()):
            assert prune_count(ratio, n) == int(recorded["n_pruned"][row, column]), (ratio, n)


def skeleton(recorded: dict[str, Any], pattern: str) -> nn.Module:
    """A module with the recorded layers' names and numbers of groups."""
    model = nn.Module()
    for name, n in zip(recorded["name"].tolist(), recorded["n_groups"].tolist(), strict=True):
        *parents, last = name.split(".")
        parent = model
        for part in parents:
            if part not in dict(parent.named_children()):
                parent.add_module(part, nn.Module())
            parent = parent.get_submodule(part)
        n_in, n_out = (1, n) if pattern == "filter" else (n, 1)
        linear = last in ("fc", "linear", "classifier")
        with torch.device("meta"):
            parent.add_module(last, nn.Linear(n_in, n_out) if linear else nn.Conv2d(n_in, n_out, 1))
    return model


CASES = [case for name in files("stage_pr") for case in MANIFEST["files"][name]["cases"]]


@pytest.mark.parametrize("variant", ["original", "corrected"])
@pytest.mark.parametrize("case", CASES, ids=[case["id"] for case in CASES])
def test_stage_pr(case: dict[str, Any], variant: str) -> None:
    (name,) = files("stage_pr")
    with np.load(GREG / name, allow_pickle=False) as file:
        prefix = f"{case['id']}/"
        recorded = {key.removeprefix(prefix): file[key] for key in file.files if key.startswith(prefix)}
    pattern = case["wg"]
    model = skeleton(recorded, pattern)
    table = layer_table(model)
    assert [layer.name for layer in table.layers] == recorded["name"].tolist()
    assert [layer.index for layer in table.layers] == recorded["layer_index"].tolist()
    if table.residual:
        for ours, theirs in (("stage", "stage"), ("block", "block"), ("conv", "conv_in_block")):
            places = [getattr(layer, ours) for layer in table.layers]
            assert [-9 if place is None else place for place in places] == recorded[theirs].tolist(), ours
    ratios = layer_ratios(
        table,
        read_stage_pr(case["stage_pr"]),
        read_skip_layers(case["skip_layers"]),
        pattern,
        released=variant == "original",
    )
    ours = [ratios[layer.name] for layer in table.layers]
    if variant == "corrected" and case["quirk"]:
        assert ours != recorded["pr"].tolist()
        return
    assert ours == recorded["pr"].tolist()
    weights = prunable(model)
    groups = [group_shape(weight, pattern).numel() for weight in weights.values()]
    assert [prune_count(ratio, n) for ratio, n in zip(ours, groups, strict=True)] == recorded["n_pruned"].tolist()


def test_lr_schedules() -> None:
    for case in MANIFEST["lr_schedules"]:
        recipe = validate(Recipe, {"lr_steps": case["schedule"]}, "")
        schedule = recipe.lr_schedule()
        first = recipe.lr_steps[0][0]
        for epoch, rate in case["lr_at_epoch"].items():
            expected = rate if int(epoch) >= first else recipe.lr_steps[0][1]  # released: the last rate
            assert schedule(int(epoch)) == expected


@pytest.mark.parametrize("name", files("oracle_pruner"))
def test_oracle(name: str) -> None:
    about = MANIFEST["files"][name]
    model, recorded = initial(name, torch.float64)
    net = Net(model)
    config = parse({"method": "oracle", "dataset": "digits", "model": "tiny", "stage_pr": {}})
    assert isinstance(config, OracleConfig)
    stage = Choose(config.model_copy(update={"stage_pr": read_stage_pr(about["stage_pr"])}))
    stage.enter(net)
    stage.attach(net)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    for x, y in zip(recorded["batches/x"].double(), recorded["batches/y"], strict=True):
        stage.step((x, y))
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    stage.end_epoch(net, 0)
    assert [key.removesuffix(".weight") for key in net.picked] == about["layers"]
    pairs = [
        tuple(tuple(indices(kept[subset] == 0)) for kept, subset in zip(stage.kept, candidate, strict=True))
        for candidate in stage.candidates()
    ]
    ours = dict(zip(pairs, (stage.losses / stage.images).tolist(), strict=True))
    assert len(ours) == about["n_pairs"] == len(recorded["pair_loss"])
    for row, loss in enumerate(recorded["pair_loss"].tolist()):
        pair = tuple(tuple(sorted(recorded[f"pairs/{layer}"][row].tolist())) for layer in about["layers"])
        assert ours[pair] == pytest.approx(loss, abs=1e-9)
    for layer in about["layers"]:
        assert indices(net.picked[f"{layer}.weight"]) == sorted(recorded[f"best/{layer}"].tolist())
    assert stage.columns() == {"candidates": about["n_pairs"], "candidate_loss": pytest.approx(min(ours.values()))}
