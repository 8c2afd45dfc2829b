"""GReg's ratios, picks, learning rates and oracle's choice equal those recorded from the released code."""

from __future__ import annotations

import math
import re
from fractions import Fraction
from typing import Any

import pytest
import torch
from torch import nn

from tests.trials.greg_nets import MANIFEST, arrays, files, indices, initial, near
from tests.trials.recorded_set import Part, cases
from trials.config.recipes import Recipe
from trials.frozen import validate
from trials.methods.greg.groups import group_scores, group_shape, pick_groups, prune_count
from trials.methods.greg.layer_table import SHORTCUT, layer_table
from trials.methods.greg.oracle import Choose, OracleConfig
from trials.methods.greg.ratios import layer_ratios, read_skip_layers, read_stage_pr
from trials.methods.parsing import parse
from trials.sparsity import prunable
from trials.training.net import Net


@pytest.mark.parametrize("name", cases(files("pick"), "pick file of greg"))
def test_picks(name: str) -> None:
    about, recorded = MANIFEST["files"][name], arrays(name)
    weights = {layer: recorded[f"weight/{layer}"] for layer in about["layers"]}
    for pattern in about["wgs"]:
        for layer, weight in weights.items():
            scores = group_scores(weight, pattern)
            if f"{pattern}/score/{layer}" in recorded:
                near(scores.flatten(), recorded[f"{pattern}/score/{layer}"], f"{pattern} {layer}", atol=1e-6)
            for mode in about["modes"]:
                for ratio in about["prs"]:
                    pruned = pick_groups(scores, prune_count(ratio, scores.numel()), mode)
                    where = f"{pattern}/{mode}/{ratio:g}/{layer}"
                    assert indices(pruned) == sorted(recorded[f"{where}/pruned"].tolist()), where
                    assert indices(~pruned) == recorded[f"{where}/kept"].tolist(), where


@pytest.mark.parametrize("name", cases(files("n_pruned"), "n_pruned file of greg"))
def test_counts(name: str) -> None:
    """The product is rounded up in double precision, which adds one in the cells that the manifest lists."""
    recorded, differ = arrays(name), []
    for row, ratio in enumerate(recorded["pr"].tolist()):
        for column, n in enumerate(recorded["n"].tolist()):
            original = int(recorded["n_pruned"][row, column])
            assert prune_count(ratio, n) == original, (ratio, n)
            exact = min(math.ceil(Fraction(str(ratio)) * n), n - 1) if ratio else 0
            if "n_pruned_exact_decimal" in recorded:
                assert int(recorded["n_pruned_exact_decimal"][row, column]) == exact, (ratio, n)
            if exact != original:
                differ.append({"pr": ratio, "n": n, "original": original, "exact": exact})
    quirks = MANIFEST["files"][name].get("float_quirks", differ)
    assert sorted(differ, key=str) == sorted(map(dict, quirks), key=str)


def is_linear(name: str) -> bool:
    return any(re.fullmatch(r"(fc|linear|classifier)\d*", part) for part in name.split("."))


def skeleton(recorded: Part, pattern: str) -> nn.Module:
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
        with torch.device("meta"):
            parent.add_module(last, nn.Linear(n_in, n_out) if is_linear(name) else nn.Conv2d(n_in, n_out, 1))
    return model


def places(recorded: Part) -> list[list[str]]:
    """Every layer's parts that skip_layers can name: its stage, block and convolution, or its index."""
    if "stage" not in recorded:
        return [[str(index)] for index in recorded["layer_index"].tolist()]
    columns = [recorded[key].tolist() for key in ("stage", "block", "conv_in_block")]
    return [["None" if part == -9 else str(part) for part in row] for row in zip(*columns, strict=True)]


def by_the_rules(case: dict[str, Any], recorded: Part) -> list[float]:
    """Every layer's ratio without the quirks of the released code, by the rules alone.

    A layer to skip is named by whole parts, with every pattern. Whole filters and channels are removed neither from a
    linear layer, nor from a shortcut, nor where a sum fixes their number.
    """
    items = [item.split(".") for item in re.findall(r"[\w.-]+", case.get("skip_layers", ""))]
    where, names = places(recorded), recorded["name"].tolist()
    if "stage" in recorded:
        by_stage = [float(item) for item in re.findall(r"[\d.]+", case["stage_pr"])]
        ratios = [by_stage[stage] for stage in recorded["stage"].tolist()]
    else:
        ratios = [0.0] * len(names)
        for first, last, ratio in re.findall(r"(\d+)(?:-(\d+))?\s*:\s*([\d.]+)", case["stage_pr"]):
            for index in range(int(first), min(int(last or first), len(names) - 1) + 1):
                ratios[index] = float(ratio)
    last_conv: dict[tuple[str, ...], int] = {}
    for stage, *inside in where:
        if inside and inside[1] != "None":
            last_conv[stage, inside[0]] = max(int(inside[1]), last_conv.get((stage, inside[0]), 0))
    for position, place in enumerate(where):
        protected = is_linear(names[position])
        if len(place) == 3 and place[2] != "None":
            fixed = last_conv[place[0], place[1]] if case["wg"] == "filter" else 0
            protected = protected or int(place[2]) in (-1, fixed)
        if any(place[: len(item)] == item for item in items) or (protected and case["wg"] != "weight"):
            ratios[position] = 0.0
    return ratios


CASES = [case for name in files("stage_pr") for case in MANIFEST["files"][name]["cases"]]


@pytest.mark.filterwarnings("ignore:stage_pr is .* linear layers stay whole:UserWarning")
@pytest.mark.parametrize("variant", ["original", "corrected"])
@pytest.mark.parametrize("case", cases(CASES, "stage_pr case of greg", ids=lambda case: str(case["id"])))
def test_stage_pr(case: dict[str, Any], variant: str) -> None:
    (name,) = files("stage_pr")
    recorded = arrays(name).under(f"{case['id']}/")
    pattern = case["wg"]
    model = skeleton(recorded, pattern)
    table = layer_table(model)
    assert [layer.name for layer in table.layers] == recorded["name"].tolist()
    assert [layer.index for layer in table.layers] == recorded["layer_index"].tolist()
    assert [layer.conv == SHORTCUT for layer in table.layers] == recorded["is_shortcut"].tolist()
    assert table.residual == ("stage" in recorded)
    if table.residual:
        for ours, theirs in (("stage", "stage"), ("block", "block"), ("conv", "conv_in_block")):
            numbers = [getattr(layer, ours) for layer in table.layers]
            assert [-9 if number is None else number for number in numbers] == recorded[theirs].tolist(), ours
    skipped, released = read_skip_layers(case.get("skip_layers", "")), variant == "original"
    ratios = layer_ratios(table, read_stage_pr(case["stage_pr"]), skipped, pattern, released=released)
    ours = [ratios[layer.name] for layer in table.layers]
    expected = recorded["pr"].tolist() if released else by_the_rules(case, recorded)
    assert ours == expected
    assert (expected == recorded["pr"].tolist()) == (released or not case.get("quirk"))
    groups = [group_shape(weight, pattern).numel() for weight in prunable(model).values()]
    counts = [prune_count(ratio, n) for ratio, n in zip(ours, groups, strict=True)]
    assert all(
        n == count
        for n, count, same in zip(
            recorded["n_pruned"].tolist(), counts, map(float.__eq__, ours, recorded["pr"].tolist()), strict=True
        )
        if same
    )
    assert case.get("total_groups", sum(groups)) == sum(groups)
    assert case.get("n_layers", len(ours)) == len(ours)
    if released:
        assert case.get("n_layers_pruned", sum(n > 0 for n in counts)) == sum(n > 0 for n in counts)
        assert case.get("total_groups_pruned", sum(counts)) == sum(counts)


def test_lr_schedules() -> None:
    for case in MANIFEST["lr_schedules"]:
        recipe = validate(Recipe, {"lr_steps": case["schedule"]}, "")
        schedule = recipe.lr_schedule()
        first = recipe.lr_steps[0][0]
        for epoch, rate in case["lr_at_epoch"].items():
            expected = rate if int(epoch) >= first else recipe.lr_steps[0][1]  # released: the last rate
            assert schedule(int(epoch)) == expected


@pytest.mark.parametrize("name", cases(files("oracle_pruner"), "oracle_pruner file of greg"))
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
