"""GReg beyond the recorded numbers: when layers stop growing, and that it resumes to the same bits."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.trials.folders import checkpoint_of, rows_of, same
from tests.trials.greg_nets import WHAT, tiny
from tests.trials.small_trials import CONFIGS, config_of, folder_of, run_in
from trials import models
from trials.methods.greg.greg1 import Greg1Config, Greg1Stage
from trials.methods.greg.greg2 import Greg2Config, Greg2Stage
from trials.methods.greg.growing import Growing
from trials.methods.greg.oracle import Choose
from trials.sparsity import prunable
from trials.training.net import Net

FAST: dict[str, Any] = {
    "update_reg_interval": 1,
    "reg_granularity_prune": 0.5,
    "reg_upper_limit": 10.0,
    "stabilize_reg_interval": 3,
}


def batch(seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(8, 1, 8, 8, generator=generator), torch.randint(10, (8,), generator=generator)


def started(stage: Growing, net: Net) -> Growing:
    stage.enter(net)
    stage.attach(net)
    stage.begin_epoch(0)
    return stage


def test_lambda_is_of_the_groups_shape_and_nothing_is_kept_for_other_layers() -> None:
    for pattern, shape in (("filter", (32, 1, 1, 1)), ("channel", (1, 16, 1, 1)), ("weight", (32, 16, 3, 3))):
        config = Greg1Config(stage_pr=0.5, pattern=pattern, **WHAT, **FAST)
        stage = started(Greg1Stage(config), tiny())
        assert stage.layers["conv2.weight"].reg.shape == shape
        assert "conv1.weight" not in stage.layers


def step(stage: Growing, images: tuple[Tensor, Tensor]) -> None:
    stage.prepare()
    stage.step(images)


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
    step(stage, batch())
    assert {name: layer.finished for name, layer in stage.layers.items()} == first
    limits["conv2.weight"] = 100.0
    step(stage, batch())
    assert all(layer.finished is not None and layer.finished <= second for layer in stage.layers.values())
    assert stage.layers["conv2.weight"].finished == second
    assert stage.stable_since == second


def test_a_layer_that_ended_by_its_lambda_does_not_block_the_others() -> None:
    limits = {"conv2.weight": 1.0, "conv3.weight": 5.0}
    for exit_rule, finished in (("joint", 0), ("mid_sweep", None)):
        stage = ratio_stage(exit_rule, limits)
        stage.layers["conv2.weight"].of_pruned = 99.0  # above its limit at the first update
        step(stage, batch())
        step(stage, batch())
        assert stage.layers["conv2.weight"].finished == 0
        assert (stage.layers["conv3.weight"].finished is None) == (exit_rule == "mid_sweep"), finished


def test_blocked_loss_gradient_moves_weights_by_the_penalty_alone() -> None:
    net = tiny()
    config = Greg1Config(stage_pr=0.5, block_loss_grad=True, prune={"weight_decay": 0.0}, **WHAT, **FAST)
    stage = started(Greg1Stage(config), net)
    before = {name: p.detach().clone() for name, p in net.model.named_parameters()}
    step(stage, batch())
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
        step(stage, batch())
        seen.append((layer.picked, sorted({round(value, 4) for value in layer.reg.flatten().tolist()})))
    assert seen == [(None, [0.1]), (1, [0.2]), (1, [-0.25, 0.7])]


def test_nothing_to_prune_still_stabilises() -> None:
    stage = started(Greg1Stage(Greg1Config(stage_pr=0.0, **WHAT, **FAST)), tiny())
    steps = 0
    while not stage.finished:
        step(stage, batch())
        steps += 1
    assert steps == FAST["stabilize_reg_interval"] + 1


@pytest.mark.parametrize("kind", [Greg1Stage, Greg2Stage])
def test_resumed_at_any_iteration(kind: type[Growing]) -> None:
    """For every t, a new stage on a new network continues from the state of iteration t to the same bits."""
    fields = {**WHAT, **FAST, "reg_upper_limit": 1.4, "update_reg_interval": 2, "precision": "float32"}
    config: Any = Greg1Config(stage_pr=0.5, **fields)
    if kind is Greg2Stage:
        config = Greg2Config(stage_pr=0.5, reg_granularity_pick=0.1, reg_upper_limit_pick=0.15, **fields)
    net = tiny()
    stage = started(kind(config), net)
    states = []
    while not stage.finished:
        states.append(copied((net.state_dict(), stage.state_dict())))
        step(stage, batch(stage.iteration))
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
            step(resumed, batch(resumed.iteration))
        resumed.end_epoch(other, 0)
        assert same(other.state_dict(), net.state_dict())
        assert same(resumed.state_dict(), stage.state_dict())


def copied(value: Any) -> Any:
    """A deep copy, as a checkpoint makes one."""
    if isinstance(value, Tensor):
        return value.detach().clone()
    if isinstance(value, dict):
        return {key: copied(item) for key, item in value.items()}
    return tuple(map(copied, value)) if isinstance(value, tuple) else value


def test_the_oracle_sees_every_training_image_once_and_unaugmented() -> None:
    assert Choose.augment is False
    assert Choose.streams == ("train",)


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
