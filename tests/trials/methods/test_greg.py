"""What GReg, its baseline and its oracle do beyond the recorded numbers: budgets, picks, exits, inheritance, resume."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.trials.running import CONFIGS, checkpoint_of, config_of, folder_of, rows_of, run_in, same
from trials import models
from trials.config import parse
from trials.layer_table import layer_table, table_of
from trials.methods import METHODS
from trials.methods.greg1 import Greg1Config, Greg1Stage
from trials.methods.greg2 import Greg2Config, Greg2Stage
from trials.methods.growing import Growing
from trials.methods.l1 import L1Config, PickAndRemove
from trials.methods.oracle import Choose
from trials.ratios import layer_ratios, read_skip_layers, read_stage_pr
from trials.sparsity import prunable
from trials.sparsity.groups import group_scores, pick_groups
from trials.training import Net

WHAT: dict[str, Any] = {"dataset": "digits", "model": "tiny"}
FAST: dict[str, Any] = {
    "update_reg_interval": 1,
    "reg_granularity_prune": 0.5,
    "reg_upper_limit": 10.0,
    "stabilize_reg_interval": 3,
}


def tiny() -> Net:
    return Net(models.build("tiny", num_classes=10, in_channels=1, seed=1).train())


def batch(seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(8, 1, 8, 8, generator=generator), torch.randint(10, (8,), generator=generator)


def started(stage: Growing, net: Net) -> Growing:
    stage.enter(net)
    stage.attach(net)
    stage.begin_epoch(0)
    return stage


# --- ratios


def test_texts_and_typed_forms_are_one_value() -> None:
    same_values: list[tuple[Any, ...]] = [
        ("[0, 0.5,0.25,]", [0, 0.5, 0.25], (0.0, 0.5, 0.25)),
        ("[1-15:0.7]", "1-15 : 0.7", {"1-15": 0.7}, "0:0,1-9:0.7,10-15:0.7", [[1, 15, 0.7]], ((1, 15, 0.7),)),
        ("[0-4:0.5, 2:0]", {"0-1": 0.5, "3-4": 0.5}, "2:0.1,0-1:0.5,2-2:0,3-4:0.5", [[0, 1, 0.5], [3, 4, 0.5]]),
        ("[0-18:0]", {}, "3:0"),
        (0.5, 0.5),
    ]
    for values in same_values:
        assert len({repr(read_stage_pr(value)) for value in values}) == 1, values
    assert read_skip_layers("[1.0, 2.3,]") == read_skip_layers(["1.0", "2.3"]) == ("1.0", "2.3")
    assert read_skip_layers([2, "9"]) == read_skip_layers("2,9") == ("2", "9")


def test_reading_is_idempotent() -> None:
    for text in ("[0,0.5]", "[1-15:0.7,3:0.5]", "[0-2:1]"):
        assert read_stage_pr(read_stage_pr(text)) == read_stage_pr(text)


@pytest.mark.parametrize("model", ["tiny", "resnet20s", "resnet20", "wrn_28_1", "ResNet50", "vgg16"])
@pytest.mark.parametrize("pattern", ["filter", "channel", "weight"])
def test_one_number_prunes_what_may_be_pruned_but_the_first_layer(model: str, pattern: Any) -> None:
    """And the network can be made so much smaller."""
    table = table_of(model)
    ratios = layer_ratios(table, 0.5, (), pattern)
    assert ratios[table.layers[0].name] == 0
    pruned = [layer for layer in table.layers if ratios[layer.name]]
    if pattern == "weight":
        assert len(pruned) == len(table.layers) - 1
        return
    assert pruned
    assert not any(layer.linear or layer.conv == -1 for layer in pruned)
    assert not any(layer.last_in_block if pattern == "filter" else layer.conv == 0 for layer in pruned)
    config = parse({"method": "l1", "dataset": "cifar10", "model": model, "stage_pr": 0.5, "pattern": pattern})
    with torch.device("meta"):
        net = Net(models.MODELS[model](num_classes=10, in_channels=3))
    METHODS["l1"](config).initialised(net)


def test_linear_layers_stay_whole_with_filters_and_that_is_said() -> None:
    table = table_of("vgg16")
    with pytest.warns(UserWarning, match="linear layers stay whole with pattern 'filter': classifier"):
        ratios = layer_ratios(table, read_stage_pr("[0-13:0.5]"), (), "filter")  # type: ignore[arg-type]
    assert ratios["classifier"] == 0
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert layer_ratios(table, ((0, 13, 0.5),), (), "filter", released=True)["classifier"] == 0.5
        assert layer_ratios(table, ((0, 13, 0.5),), (), "weight")["classifier"] == 0.5


def test_skipped_layers_are_matched_by_component() -> None:
    table = table_of("resnet101")
    ratios = layer_ratios(table, 0.5, ("3.1", "2"), "filter")
    assert ratios["layer3.1.conv1"] == ratios["layer2.3.conv1"] == 0
    assert ratios["layer3.10.conv1"] == ratios["layer3.0.conv1"] == 0.5
    released = layer_ratios(table, 0.5, ("3.1",), "filter", released=True)
    assert released["layer3.10.conv1"] == 0


def test_shortcuts_share_the_index_of_the_convolution_before() -> None:
    layers = {layer.name: layer for layer in table_of("resnet20").layers}
    assert layers["layer2.0.shortcut.0"].index == layers["layer2.0.conv2"].index
    assert layers["layer2.0.shortcut.0"].path == "2.0.-1"
    assert layer_table(nn.Sequential(nn.Linear(2, 2))).layers[0].path == "0"


# --- picks and removal


def test_picks_are_what_their_name_says() -> None:
    scores = torch.tensor([0.3, 0.1, 0.2, 0.1, 0.4]).view(5, 1)
    assert pick_groups(scores, 2, "min").flatten().tolist() == [False, True, False, True, False]
    assert pick_groups(scores, 2, "max").flatten().tolist() == [True, False, False, False, True]
    assert pick_groups(torch.ones(4, 1), 2, "min").flatten().tolist() == [True, True, False, False]
    assert pick_groups(torch.ones(4, 1), 2, "max").flatten().tolist() == [True, True, False, False]
    rand = [pick_groups(scores, 2, "rand", torch.Generator().manual_seed(seed)) for seed in (1, 1, *range(20))]
    assert all(int(pruned.sum()) == 2 for pruned in rand)
    assert torch.equal(rand[0], rand[1])
    assert len({tuple(pruned.flatten().tolist()) for pruned in rand}) > 3


@pytest.mark.parametrize("pattern", ["filter", "channel", "weight"])
def test_l1_removes_exactly_the_budget_and_touches_nothing_else(pattern: Any) -> None:
    net = tiny()
    before = {name: weight.detach().clone() for name, weight in prunable(net.model).items()}
    config = parse({"method": "l1", "stage_pr": 0.5, "pattern": pattern, **WHAT})
    assert isinstance(config, L1Config)
    PickAndRemove(config).enter(net)
    weights = prunable(net.model)
    if pattern == "weight":
        for name, mask in net.masks.items():
            n = mask.numel()
            assert int(mask.sum()) == (n if name == "conv1.weight" else n - -(-n // 2))
            assert torch.equal(weights[name], before[name] * mask)
            if name != "conv1.weight":
                assert before[name][~mask].abs().max() <= before[name][mask].abs().min()
        return
    shapes = {name: tuple(weight.shape[:2]) for name, weight in weights.items()}
    if pattern == "filter":
        assert list(shapes.values()) == [(16, 1), (16, 16), (24, 16), (10, 24)]
        kept = ~net.picked["conv2.weight"].flatten()
        assert torch.equal(weights["conv2.weight"], before["conv2.weight"][kept])
        scores = group_scores(before["conv2.weight"], "filter").flatten()
        assert scores[~kept].max() <= scores[kept].min()
    else:
        assert list(shapes.values()) == [(8, 1), (16, 8), (48, 16), (10, 48)]


@pytest.mark.parametrize("kind", ["orthogonal", "kaiming"])
def test_reinitialised_weights_are_new_and_stay_under_their_masks(kind: str) -> None:
    nets = [tiny() for _ in range(2)]
    config = parse({"method": "l1", "stage_pr": 0.5, "pattern": "weight", "reinit": kind, **WHAT})
    with torch.no_grad():
        nets[0].model.bn1.weight.fill_(3.0)  # type: ignore[union-attr]
        nets[0].model.linear.bias.fill_(3.0)  # type: ignore[union-attr]
    before = {name: weight.detach().clone() for name, weight in prunable(nets[0].model).items()}
    for net in nets:
        PickAndRemove(config).enter(net)  # type: ignore[arg-type]
    weights = prunable(nets[0].model)
    for name, mask in nets[0].masks.items():
        assert not weights[name][~mask].any()
        assert (weights[name] != before[name])[mask].all()
        assert torch.equal(weights[name], prunable(nets[1].model)[name])
    if kind == "orthogonal":
        first = weights["conv1.weight"].flatten(1)  # [16, 9], nothing masked: its columns are orthonormal
        torch.testing.assert_close(first.T @ first, torch.eye(9), atol=1e-5, rtol=0)
    reset = kind == "kaiming"
    assert (nets[0].model.bn1.weight == (1.0 if reset else 3.0)).all()  # type: ignore[union-attr]
    assert (nets[0].model.linear.bias == (0.0 if reset else 3.0)).all()  # type: ignore[union-attr]


# --- growing


def test_lambda_is_of_the_groups_shape_and_nothing_is_kept_for_other_layers() -> None:
    for pattern, shape in (("filter", (32, 1, 1, 1)), ("channel", (1, 16, 1, 1)), ("weight", (32, 16, 3, 3))):
        config = Greg1Config(stage_pr=0.5, pattern=pattern, **WHAT, **FAST)
        stage = started(Greg1Stage(config), tiny())
        assert stage.layers["conv2.weight"].reg.shape == shape
        assert "conv1.weight" not in stage.layers


def ratio_stage(exit_rule: str, limits: dict[str, float]) -> Growing:
    """A stage whose r is ``limits`` by layer, with the limit at 2."""
    config = Greg1Config(stage_pr="1-2:0.5", ratio_exit=exit_rule, mag_ratio_limit=2.0, **WHAT, **FAST)  # type: ignore[arg-type]
    net = tiny()
    stage = started(Greg1Stage(config), net)
    stage.ratios = lambda layers: [  # type: ignore[method-assign]
        limits[name] for name, layer in stage.layers.items() if any(layer is other for other in layers)
    ]
    return stage


@pytest.mark.parametrize(
    ("exit_rule", "first", "second"),
    [("joint", {"conv2.weight": None, "conv3.weight": None}, 1), ("own", {"conv2.weight": None, "conv3.weight": 0}, 1)],
)
def test_ratio_exits(exit_rule: str, first: dict[str, int | None], second: int) -> None:
    limits = {"conv2.weight": 1.0, "conv3.weight": 5.0}
    stage = ratio_stage(exit_rule, limits)
    stage.step(batch())
    assert {name: layer.finished for name, layer in stage.layers.items()} == first
    limits["conv2.weight"] = 100.0
    stage.step(batch())
    assert all(layer.finished is not None and layer.finished <= second for layer in stage.layers.values())
    assert stage.layers["conv2.weight"].finished == second
    assert stage.stable_since == second


def test_a_layer_that_ended_by_its_lambda_does_not_block_the_others() -> None:
    limits = {"conv2.weight": 1.0, "conv3.weight": 5.0}
    for exit_rule, finished in (("joint", 0), ("mid_sweep", None)):
        stage = ratio_stage(exit_rule, limits)
        stage.layers["conv2.weight"].of_pruned = 99.0  # above its limit at the first update
        stage.step(batch())
        stage.step(batch())
        assert stage.layers["conv2.weight"].finished == 0
        assert (stage.layers["conv3.weight"].finished is None) == (exit_rule == "mid_sweep"), finished


def test_blocked_loss_gradient_moves_weights_by_the_penalty_alone() -> None:
    net = tiny()
    config = Greg1Config(stage_pr=0.5, block_loss_grad=True, prune={"weight_decay": 0.0}, **WHAT, **FAST)
    stage = started(Greg1Stage(config), net)
    before = {name: p.detach().clone() for name, p in net.model.named_parameters()}
    stage.step(batch())
    for name, weight in prunable(net.model).items():
        reg = stage.layers[name].reg if name in stage.layers else 0.0
        torch.testing.assert_close(weight.detach(), before[name] * (1 - config.prune.lr * reg))
    after = dict(net.model.named_parameters())
    assert not torch.equal(after["bn1.weight"], before["bn1.weight"])


def test_greg2_recovers_what_it_keeps_from_the_update_after_the_pick() -> None:
    config = Greg2Config(stage_pr=0.5, reg_granularity_pick=0.1, reg_upper_limit_pick=0.15,
                         reg_granularity_recover=-0.25, **WHAT, **FAST)  # fmt: skip
    stage = started(Greg2Stage(config), tiny())
    layer = stage.layers["conv2.weight"]
    seen = []
    for _ in range(3):
        stage.step(batch())
        seen.append((layer.picked, sorted({round(value, 4) for value in layer.reg.flatten().tolist()})))
    assert seen == [(None, [0.1]), (1, [0.2]), (1, [-0.25, 0.7])]


def test_nothing_to_prune_still_stabilises() -> None:
    stage = started(Greg1Stage(Greg1Config(stage_pr=0.0, **WHAT, **FAST)), tiny())
    steps = 0
    while not stage.finished:
        stage.step(batch())
        steps += 1
    assert steps == FAST["stabilize_reg_interval"] + 1


@pytest.mark.parametrize("kind", [Greg1Stage, Greg2Stage])
def test_resumed_at_any_iteration(kind: type[Growing]) -> None:
    """A fresh stage on a fresh network, from the state of iteration t, goes on to the same bits, for every t."""
    fields = {**WHAT, **FAST, "reg_upper_limit": 1.4, "update_reg_interval": 2, "precision": "float32"}
    config: Any = Greg1Config(stage_pr=0.5, **fields)
    if kind is Greg2Stage:
        config = Greg2Config(stage_pr=0.5, reg_granularity_pick=0.1, reg_upper_limit_pick=0.15, **fields)
    net = tiny()
    stage = started(kind(config), net)
    states = []
    while not stage.finished:
        states.append(copied((net.state_dict(), stage.state_dict())))
        stage.step(batch(stage.iteration))
    stage.end_epoch(net, 0)
    assert len(states) > 5
    for t, (net_state, state) in enumerate(states):
        other = Net(models.build("tiny", num_classes=10, in_channels=1, seed=9).train())
        other.load_state_dict(net_state)
        resumed = kind(config)
        resumed.attach(other)
        resumed.load_state_dict(state)
        resumed.begin_epoch(0)
        assert resumed.iteration == t
        while not resumed.finished:
            resumed.step(batch(resumed.iteration))
        resumed.end_epoch(other, 0)
        assert same(other.state_dict(), net.state_dict())
        assert same(resumed.state_dict(), stage.state_dict())


def copied(value: Any) -> Any:
    """A deep copy, as a checkpoint makes."""
    if isinstance(value, Tensor):
        return value.detach().clone()
    if isinstance(value, dict):
        return {key: copied(item) for key, item in value.items()}
    return tuple(map(copied, value)) if isinstance(value, tuple) else value


# --- oracle


def test_the_oracle_sees_every_training_image_once_and_unaugmented() -> None:
    assert Choose.augment is False
    assert Choose.streams == ("train",)


# --- inheritance


@pytest.mark.usefixtures("few_digits")
def test_ratios_and_indices_of_another_trial(tmp_path: Path) -> None:
    base = config_of("greg1")
    assert run_in(tmp_path, base).status == "complete"
    folder = str(folder_of(base, tmp_path))
    picked = checkpoint_of(folder_of(base, tmp_path))["net"]["picked"]
    changed = {"stage_pr": None, "base_pr_model": folder}
    for fields in ({}, {"inherit_pruned": "pr"}):
        config = config_of("l1", **changed, **fields)
        assert run_in(tmp_path, config).status == "complete"
        ours = checkpoint_of(folder_of(config, tmp_path))["net"]["picked"]
        assert {name: int(p.sum()) for name, p in ours.items()} == {name: int(p.sum()) for name, p in picked.items()}
        assert same(ours, picked) or fields
    config = config_of("greg2-channel", **changed)  # other groups
    state = run_in(tmp_path, config)
    assert (state.status, state.error and state.error["type"]) == ("failed", "UserError")
    assert "are no channels of this model" in str(state.error)


@pytest.mark.usefixtures("few_digits")
def test_indices_of_masks(tmp_path: Path) -> None:
    """Single weights, and trials of other methods, say by their masks what they removed."""
    base = config_of("greg1-weight-original")
    assert run_in(tmp_path, base).status == "complete"
    masks = checkpoint_of(folder_of(base, tmp_path))["net"]["masks"]
    folder = str(folder_of(base, tmp_path))
    config = config_of("l1-weight", stage_pr=None, base_pr_model=folder, reinit=None, pick_pruned="min")
    assert run_in(tmp_path, config).status == "complete"
    ours = checkpoint_of(folder_of(config, tmp_path))["net"]["masks"]
    assert same(ours, masks)


@pytest.mark.usefixtures("few_digits")
@pytest.mark.parametrize("name", ["none", "dense"])
def test_a_base_that_pruned_nothing_is_refused_before_anything_trains(name: str, tmp_path: Path) -> None:
    folder = tmp_path / "none"
    if name == "dense":
        base = config_of("dense")
        run_in(tmp_path / "other", base)
        folder = folder_of(base, tmp_path / "other")
    state = run_in(tmp_path, config_of("l1", stage_pr=None, base_pr_model=str(folder)))
    assert state.status == "failed"
    assert state.error is not None
    assert state.error["type"] == "UserError"
    says = {"dense": "removed no filters", "none": "must be the folder of a finished trial"}
    assert says[name] in state.error["message"]
    assert not (tmp_path / "stages").exists()


# --- whole trials


@pytest.mark.usefixtures("few_digits")
def test_a_stage_ends_itself_within_an_epoch_and_the_network_is_smaller_from_then_on(tmp_path: Path) -> None:
    config = config_of("greg1")
    assert run_in(tmp_path, config).status == "complete"
    rows = rows_of(folder_of(config, tmp_path))["epochs"]
    prune = [row for row in rows if row["stage"] == "prune"]
    interval = CONFIGS["greg1"]["stabilize_reg_interval"]
    assert [row["iteration"] for row in prune] == [3, 2 + interval + 1]
    assert all(row["density"] == 1 for row in prune)
    finetune = [row for row in rows if row["stage"] == "finetune"]
    assert finetune[0]["epoch"] == 0
    assert all(row["density"] < 0.5 and row["flops"] < prune[0]["flops"] for row in finetune)
    model = checkpoint_of(folder_of(config, tmp_path))["net"]["model"]
    assert model["conv2.weight"].shape == (16, 16, 3, 3)
