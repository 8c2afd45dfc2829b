"""GReg's prune phase and masked finetuning equal those recorded from the released code, step by step."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from tests.trials.greg_nets import MANIFEST, files, indices, initial, near
from tests.trials.recorded_set import cases, covers
from trials.config.recipes import Recipe
from trials.methods.base import TrainStage
from trials.methods.greg.groups import group_scores, group_shape, pick_groups, prune_count
from trials.methods.greg.growing import Growing, GrowingConfig, GrowingLayer, GrowingMethod
from trials.methods.greg.layer_table import layer_table
from trials.methods.greg.ratios import layer_ratios, read_skip_layers, read_stage_pr
from trials.methods.greg.removal import remove
from trials.methods.parsing import parse
from trials.methods.registry import METHODS
from trials.sparsity import prunable
from trials.training.net import Net

TRAJECTORIES = files("trajectory")
METHOD = {"GReg-1": "greg1", "GReg-2": "greg2"}
RECIPE = {"lr_prune": "lr", "momentum": "momentum", "weight_decay": "weight_decay"}
FLOAT32_ATOL = 1e-4
NOT_OURS = {"arch", "n_layers", "dataset", "method", "wg", "stage_pr", "skip_layers"}


def config_of(params: dict[str, Any], **fields: Any) -> GrowingConfig:
    """The manifest's parameters. Its ratios bypass validation, as they are of a network that the project lacks."""
    content = {name: value for name, value in params.items() if name not in NOT_OURS and name not in RECIPE}
    config = parse(
        {
            **content,
            "method": METHOD[params["method"]],
            "dataset": "digits",
            "model": "tiny",
            "variant": "original",
            "pattern": params["wg"],
            "stage_pr": {},
            "prune": {ours: params[theirs] for theirs, ours in RECIPE.items() if theirs in params},
            **fields,
        }
    )
    assert isinstance(config, GrowingConfig)
    ratios = {
        "stage_pr": read_stage_pr(params["stage_pr"]),
        "skip_layers": read_skip_layers(params.get("skip_layers", "")),
    }
    return config.model_copy(update=ratios)


class Played:
    """A trajectory file's network with our prune stage on it."""

    def __init__(self, name: str, dtype: torch.dtype = torch.float64, **fields: Any) -> None:
        self.about = MANIFEST["files"][name]
        model, self.arrays = initial(name, dtype)
        self.net = Net(model.train())
        self.dtype = dtype
        self.config = config_of(self.about["params"], **fields)
        method = METHODS[self.config.method](self.config)
        assert isinstance(method, GrowingMethod)
        stage, self.removal = method.stages()
        assert isinstance(stage, Growing)
        self.stage = stage
        stage.enter(self.net)
        stage.attach(self.net)
        stage.begin_epoch(0)
        self.losses: list[float] = []
        self.log: list[list[float]] = []

    def step(self) -> None:
        t = self.stage.iteration
        position = t % len(self.arrays["batches/x"])
        updating = self.stage.stable_since is None and t % self.config.update_reg_interval == 0
        x, y = self.arrays["batches/x"][position].to(self.dtype), self.arrays["batches/y"][position]
        self.stage.prepare()
        self.losses.append(float(self.stage.step((x, y))[0]))
        if updating:
            self.log.append([t, *self._ratios(), *self._regs("max"), *self._regs("min")])

    def layer(self, name: str) -> GrowingLayer | None:
        return self.stage.layers.get(f"{name}.weight")

    def reg(self, name: str) -> Tensor:
        """Lambda as the released code holds it: [N, C], or flat for single weights."""
        weight = prunable(self.net.model)[f"{name}.weight"]
        layer = self.layer(name)
        reg = torch.zeros(group_shape(weight, self.config.pattern), dtype=self.dtype) if layer is None else layer.reg
        if self.config.pattern == "weight":
            return reg.flatten()
        return reg.reshape(reg.shape[:2]).expand(weight.shape[:2])

    def _ratios(self) -> list[float]:
        layers = [self.layer(name) for name in self.about["layer_order"]]
        return [float("nan") if layer is None or layer.ratio is None else layer.ratio for layer in layers]

    def _regs(self, which: str) -> list[float]:
        return [float(getattr(self.reg(name), which)()) for name in self.about["layer_order"]]

    def when(self, what: str) -> dict[str, int]:
        """The iteration at which ``what`` happened, by layer; 0 for layers that lose nothing."""
        found = {}
        for name in self.about["layer_order"]:
            layer = self.layer(name)
            at = 0 if layer is None else getattr(layer, what)
            assert at is not None
            found[name] = at
        return found


def test_the_files_are_there() -> None:
    params = [MANIFEST["files"][name]["params"] for name in TRAJECTORIES]
    wanted = [(method, pattern) for method in METHOD for pattern in ("filter", "channel", "weight")]
    covers([(p["method"], p["wg"]) for p in params], wanted, "trajectory of greg")


@pytest.mark.parametrize("name", cases(TRAJECTORIES, "trajectory file of greg"))
def test_trajectories(name: str) -> None:
    played = Played(name)
    about, recorded = played.about, played.arrays
    assert played.when("picked") == dict.fromkeys(about["layer_order"], 0) if played.config.method == "greg1" else True
    if "per_layer_pr" in about:
        ratios = layer_ratios(
            layer_table(played.net.model),
            played.config.stage_pr,
            played.config.skip_layers,
            played.config.pattern,
            released=True,
        )
        assert ratios == about["per_layer_pr"]
    columns = [f"{kind}:{layer}" for kind in ("hist_mag_ratio", "reg_max", "reg_min") for layer in about["layer_order"]]
    assert about.get("update_log_columns", ["iter", *columns]) == ["iter", *columns]
    seen = 0
    while not played.stage.finished:
        t = played.stage.iteration
        played.step()
        if t in about["snapshots_after_iter"]:
            state, seen = played.net.model.state_dict(), seen + 1
            for key, value in recorded.under(f"f64/after_iter/{t}/param/").items():
                near(state[key], value, f"{key} after {t}")
            for layer, value in recorded.under(f"f64/after_iter/{t}/reg/").items():
                near(played.reg(layer), value, f"reg of {layer} after {t}", atol=1e-12)
    assert seen == len(about["snapshots_after_iter"])
    assert played.stage.iteration == about["end_iter"] + 1
    assert played.stage.stable_since == about["iter_stabilize_reg"]
    assert played.when("finished") == about["iter_update_reg_finished"]
    if about.get("iter_finish_pick"):
        assert played.when("picked") == about["iter_finish_pick"]
    near(torch.tensor(played.losses, dtype=torch.float64), recorded["f64/loss"], "loss")
    near(torch.tensor(played.log, dtype=torch.float64), recorded["f64/update_log"], "log", atol=1e-12, rtol=1e-7)
    check_removal(played)


def check_removal(played: Played) -> None:
    stage, net, recorded = played.stage, played.net, played.arrays
    stage.end_epoch(net, 0)
    for layer, pruned in recorded.under("f64/final/pruned_wg/").items():
        ours = net.picked.get(f"{layer}.weight", torch.zeros(0, dtype=torch.bool))
        assert indices(ours) == sorted(pruned.tolist()), layer
        kept = recorded[f"f64/final/kept_wg/{layer}"].tolist()
        groups = group_shape(net.model.get_parameter(f"{layer}.weight"), played.config.pattern).numel()
        assert sorted([*pruned.tolist(), *kept]) == list(range(groups)), layer
        if changed := played.about.get("n_picked_not_in_initial_L1"):
            first = recorded[f"init/pruned_wg_L1/{layer}"].tolist()
            assert len(set(indices(ours)) - set(first)) == changed[layer], layer
    played.removal.enter(net)
    state = net.model.state_dict()
    masks = recorded.part("f64/final/mask/")
    assert {f"{layer}.weight" for layer in masks} == net.masks.keys()
    for layer, mask in masks.items():
        assert torch.equal(net.masks[f"{layer}.weight"], mask.bool())
        assert not state[f"{layer}.weight"][~mask.bool()].any()
    compact = recorded.part("f64/final/compact/")
    assert bool(compact) != bool(masks)
    for key, value in compact.items():
        near(state[key], value, f"compact {key}")


@pytest.mark.filterwarnings("ignore:TF32 acceleration on top of oneDNN")  # torch warns when the flag is set
@pytest.mark.parametrize("name", cases(TRAJECTORIES, "trajectory file of greg"))
def test_trajectories_in_float32(name: str) -> None:
    """Without oneDNN and the fused step, which round differently from the released code.

    Either moves an activation of one of these networks across zero a step earlier, which turns differences of 1e-6 into
    2e-3.
    """
    played = Played(name, torch.float32)
    played.stage.sgd.optimizer.param_groups[0].update(fused=False, foreach=False)
    with torch.backends.mkldnn.flags(enabled=False):
        while not played.stage.finished:
            played.step()
    about, recorded = played.about, played.arrays
    assert played.stage.iteration == about["end_iter"] + 1
    assert played.when("finished") == about["iter_update_reg_finished"]
    state = played.net.model.state_dict()
    for key, value in recorded.under(f"f32/after_iter/{about['end_iter']}/param/").items():
        near(state[key], value, key, atol=FLOAT32_ATOL)
    for layer, value in recorded.under(f"f32/after_iter/{about['end_iter']}/reg/").items():
        near(played.reg(layer), value, f"reg of {layer}", rtol=1e-6)
    near(torch.tensor(played.losses), recorded["f32/loss"], "loss", atol=FLOAT32_ATOL)
    near(torch.tensor(played.log), recorded["f32/update_log"], "log", atol=1e-5, rtol=1e-3)
    played.stage.end_epoch(played.net, 0)
    for layer, pruned in recorded.under("f64/final/pruned_wg/").items():
        assert indices(played.net.picked.get(f"{layer}.weight", torch.zeros(0))) == sorted(pruned.tolist())


@pytest.mark.parametrize("name", cases(TRAJECTORIES, "trajectory file of greg"))
def test_initial_picks_and_scores(name: str) -> None:
    played = Played(name)
    weights = prunable(played.net.model)
    for layer, pruned in played.arrays.under("init/pruned_wg_L1/").items():
        weight = weights[f"{layer}.weight"]
        scores = group_scores(weight, played.config.pattern)
        ours = pick_groups(scores, len(pruned), played.about["params"].get("pick_pruned", "min"))
        assert indices(ours) == sorted(pruned.tolist())
        near(weight.abs().mean(), played.arrays[f"init/original_w_mag/{layer}"], layer)
        near(scores[~ours].mean(), played.arrays[f"init/original_kept_w_mag/{layer}"], layer)


@pytest.mark.parametrize("name", cases(TRAJECTORIES, "trajectory file of greg"))
def test_corrected_variant_differs_from_the_released_one_in_the_joint_exit_only(name: str) -> None:
    """Without a ratio exit they are equal; with one, all layers of GReg-1 stop in the update that reaches it."""
    played = Played(name, variant="corrected")
    while not played.stage.finished:
        played.step()
    when, released = played.when("finished"), played.about["iter_update_reg_finished"]
    growing = {layer for layer in when if played.layer(layer) is not None}
    if len({released[layer] for layer in growing}) == 1:
        assert when == released
    else:
        assert played.config.method == "greg1"
        assert {when[layer] for layer in growing} == {min(released[layer] for layer in growing)}


@pytest.mark.parametrize("name", cases(files("masked_finetune"), "masked_finetune file of greg"))
def test_masked_finetuning(name: str) -> None:
    about = MANIFEST["files"][name]
    model, recorded = initial(name, torch.float64)
    net = Net(model.train())
    weights = prunable(net.model)
    counts = {key: prune_count(about["pr"], weight.numel()) for key, weight in weights.items()}
    remove(net, {k: pick_groups(group_scores(w, "weight"), counts[k], "min") for k, w in weights.items()}, "weight")
    masks = recorded.under("mask/")
    assert {key.removesuffix(".weight") for key in net.masks} == set(masks)
    for layer, mask in masks.items():
        assert torch.equal(net.masks[f"{layer}.weight"], mask.bool())
    recipe = Recipe(lr=about["lr"], momentum=about["momentum"], weight_decay=about["weight_decay"], schedule="constant")
    assert about.get("batches_per_epoch", len(recorded["batches/x"])) == len(recorded["batches/x"])
    stage = TrainStage("finetune", recipe)
    stage.attach(net)
    for epoch in range(about["epochs"]):
        stage.begin_epoch(epoch)
        for x, y in zip(recorded["batches/x"], recorded["batches/y"], strict=True):
            stage.step((x, y))
        state = net.model.state_dict()
        for key, value in recorded.under(f"after_epoch/{epoch}/").items():
            near(state[key], value, f"{key} after epoch {epoch}")


def test_lambda_grows_as_in_the_released_code() -> None:
    """The number of updates until a limit is reached, which differs between float32 and float64."""
    for case in MANIFEST["reg_accumulation"]:
        dtype = {"torch.float32": torch.float32, "torch.float64": torch.float64}[case["dtype"]]
        limit, pick_limit = case["upper_limit"], case["upper_limit_pick"]

        layer = growing_layer(dtype)
        updates = 0
        while layer.of_pruned <= limit:
            layer.grow(case["granularity_prune"], kept=0.0)
            updates += 1
        assert updates == case["greg1_updates_until_limit"]
        assert layer.of_pruned == pytest.approx(case["greg1_final_reg"], rel=1e-7)

        layer = growing_layer(dtype)
        updates = 0
        while layer.of_pruned < pick_limit:
            layer.grow(case["granularity_pick"])
            updates += 1
        assert updates == case["greg2_updates_until_pick"]
        assert layer.of_pruned == layer.of_kept == pytest.approx(case["greg2_reg_at_pick"], rel=1e-7)
        updates = 0
        while layer.of_pruned <= limit:
            layer.grow(case["granularity_prune"], kept=-1e-4)
            updates += 1
        assert updates == case["greg2_updates_after_pick_until_limit"]
        assert layer.of_pruned == pytest.approx(case["greg2_final_reg"], rel=1e-7)


def growing_layer(dtype: torch.dtype) -> GrowingLayer:
    layer = GrowingLayer(1, torch.tensor([[True], [False]]))
    layer.attach(torch.zeros(2, 1, dtype=dtype), "filter")
    return layer
