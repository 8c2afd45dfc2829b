"""GReg's prune phase, picks and masked finetuning equal those recorded from the released code."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tests.trials.greg_nets import GREG, MANIFEST, arrays, files, initial, under
from trials.config import Recipe, parse, validate
from trials.layer_table import layer_table
from trials.methods import METHODS
from trials.methods.base import TrainStage
from trials.methods.growing import Growing, GrowingConfig, GrowingLayer, GrowingMethod
from trials.methods.oracle import Choose, OracleConfig
from trials.methods.removal import remove
from trials.ratios import layer_ratios, read_skip_layers, read_stage_pr
from trials.sparsity import prunable
from trials.sparsity.groups import group_scores, group_shape, pick_groups, prune_count
from trials.training import Net

TRAJECTORIES = files("trajectory")
METHOD = {"GReg-1": "greg1", "GReg-2": "greg2"}
RECIPE = {"lr_prune": "lr", "momentum": "momentum", "weight_decay": "weight_decay"}
FLOAT32_ATOL = 1e-4
NOT_OURS = {"arch", "n_layers", "dataset", "method", "wg", "stage_pr", "skip_layers"}


def config_of(params: dict[str, Any], **fields: Any) -> GrowingConfig:
    """The manifest's parameters; its ratios, of a network that is not in the project, are put in unchecked."""
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
    """A trajectory file: its network, and our prune stage on it."""

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
        """Iterations by layer; layers that lose nothing are through at once."""
        found = {}
        for name in self.about["layer_order"]:
            layer = self.layer(name)
            at = 0 if layer is None else getattr(layer, what)
            assert at is not None
            found[name] = at
        return found


def near(ours: Tensor, reference: Tensor, what: str, *, atol: float = 1e-8, rtol: float = 0.0) -> None:
    told = {"atol": atol, "rtol": rtol, "equal_nan": True, "msg": lambda text: f"{what}: {text}"}
    torch.testing.assert_close(ours.detach(), reference.to(ours.dtype), **told)


def indices(pruned: Tensor) -> list[int]:
    return pruned.flatten().nonzero().flatten().tolist()


def test_the_files_are_there() -> None:
    params = [MANIFEST["files"][name]["params"] for name in TRAJECTORIES]
    assert {(p["method"], p["wg"]) for p in params} == {
        (method, pattern) for method in METHOD for pattern in ("filter", "channel", "weight")
    }


@pytest.mark.parametrize("name", TRAJECTORIES)
def test_trajectories(name: str) -> None:
    played = Played(name)
    about, recorded = played.about, played.arrays
    assert played.when("picked") == dict.fromkeys(about["layer_order"], 0) if played.config.method == "greg1" else True
    seen = 0
    while not played.stage.finished:
        t = played.stage.iteration
        played.step()
        if t in about["snapshots_after_iter"]:
            state, seen = played.net.model.state_dict(), seen + 1
            for key, value in under(recorded, f"f64/after_iter/{t}/param/").items():
                near(state[key], value, f"{key} after {t}")
            for layer, value in under(recorded, f"f64/after_iter/{t}/reg/").items():
                near(played.reg(layer), value, f"reg of {layer} after {t}", atol=1e-12)
    assert seen == len(about["snapshots_after_iter"])
    assert played.stage.iteration == about["end_iter"] + 1
    assert played.stage.stable_since == about["iter_stabilize_reg"]
    assert played.when("finished") == about["iter_update_reg_finished"]
    if about["iter_finish_pick"]:
        assert played.when("picked") == about["iter_finish_pick"]
    near(torch.tensor(played.losses, dtype=torch.float64), recorded["f64/loss"], "loss")
    near(torch.tensor(played.log, dtype=torch.float64), recorded["f64/update_log"], "log", atol=1e-12, rtol=1e-7)
    check_removal(played)


def check_removal(played: Played) -> None:
    stage, net, recorded = played.stage, played.net, played.arrays
    stage.end_epoch(net, 0)
    for layer, pruned in under(recorded, "f64/final/pruned_wg/").items():
        ours = net.picked.get(f"{layer}.weight", torch.zeros(0, dtype=torch.bool))
        assert indices(ours) == sorted(pruned.tolist()), layer
    played.removal.enter(net)
    state = net.model.state_dict()
    masks = under(recorded, "f64/final/mask/")
    assert {f"{layer}.weight" for layer in masks} == net.masks.keys()
    for layer, mask in masks.items():
        assert torch.equal(net.masks[f"{layer}.weight"], mask.bool())
        assert not state[f"{layer}.weight"][~mask.bool()].any()
    compact = under(recorded, "f64/final/compact/")
    assert bool(compact) != bool(masks)
    for key, value in compact.items():
        near(state[key], value, f"compact {key}")


@pytest.mark.filterwarnings("ignore:TF32 acceleration on top of oneDNN")  # torch's own, of the flag alone
@pytest.mark.parametrize("name", TRAJECTORIES)
def test_trajectories_in_float32(name: str) -> None:
    """Rounded as the released code rounds: no oneDNN, no fused step. Either moves an activation of one of these
    networks across zero a step earlier, which turns differences of 1e-6 into 2e-3."""
    played = Played(name, torch.float32)
    played.stage.sgd.optimizer.param_groups[0].update(fused=False, foreach=False)
    with torch.backends.mkldnn.flags(enabled=False):
        while not played.stage.finished:
            played.step()
    about, recorded = played.about, played.arrays
    assert played.stage.iteration == about["end_iter"] + 1
    assert played.when("finished") == about["iter_update_reg_finished"]
    state = played.net.model.state_dict()
    for key, value in under(recorded, f"f32/after_iter/{about['end_iter']}/param/").items():
        near(state[key], value, key, atol=FLOAT32_ATOL)
    played.stage.end_epoch(played.net, 0)
    for layer, pruned in under(recorded, "f64/final/pruned_wg/").items():
        assert indices(played.net.picked.get(f"{layer}.weight", torch.zeros(0))) == sorted(pruned.tolist())


@pytest.mark.parametrize("name", TRAJECTORIES)
def test_initial_picks_and_scores(name: str) -> None:
    played = Played(name)
    weights = prunable(played.net.model)
    for layer, pruned in under(played.arrays, "init/pruned_wg_L1/").items():
        weight = weights[f"{layer}.weight"]
        scores = group_scores(weight, played.config.pattern)
        ours = pick_groups(scores, len(pruned), played.about["params"].get("pick_pruned", "min"))
        assert indices(ours) == sorted(pruned.tolist())
        near(weight.abs().mean(), played.arrays[f"init/original_w_mag/{layer}"], layer)
        near(scores[~ours].mean(), played.arrays[f"init/original_kept_w_mag/{layer}"], layer)


@pytest.mark.parametrize("name", TRAJECTORIES)
def test_corrected_variant_differs_from_the_released_one_in_the_joint_exit_only(name: str) -> None:
    """Without a ratio exit nothing differs; with one, all layers of GReg-1 stop in the update that reaches it."""
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


@pytest.mark.parametrize("name", files("masked_finetune"))
def test_masked_finetuning(name: str) -> None:
    about = MANIFEST["files"][name]
    model, recorded = initial(name, torch.float64)
    net = Net(model.train())
    weights = prunable(net.model)
    counts = {key: prune_count(about["pr"], weight.numel()) for key, weight in weights.items()}
    remove(net, {k: pick_groups(group_scores(w, "weight"), counts[k], "min") for k, w in weights.items()}, "weight")
    masks = under(recorded, "mask/")
    assert {key.removesuffix(".weight") for key in net.masks} == masks.keys()
    for layer, mask in masks.items():
        assert torch.equal(net.masks[f"{layer}.weight"], mask.bool())
    recipe = Recipe(lr=about["lr"], momentum=about["momentum"], weight_decay=about["weight_decay"], schedule="constant")
    stage = TrainStage("finetune", recipe)
    stage.attach(net)
    for epoch in range(about["epochs"]):
        stage.begin_epoch(epoch)
        for x, y in zip(recorded["batches/x"], recorded["batches/y"], strict=True):
            stage.step((x, y))
        state = net.model.state_dict()
        for key, value in under(recorded, f"after_epoch/{epoch}/").items():
            near(state[key], value, f"{key} after epoch {epoch}")


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


def test_lambda_grows_as_in_the_released_code() -> None:
    """Counts of updates: float32 reaches a limit at another update than float64."""
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
