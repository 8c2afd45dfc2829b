"""Trained thresholds: properties that hold for any network, and whole trials."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.trials.folders import checkpoint_of, rows_of, same
from tests.trials.small_trials import RECIPE, config_of, folder_of, run_in
from trials.errors import UserError
from trials.methods.adaptive.adaptive_sparsity import AdaptiveSparsityConfig, TrainWithThresholds
from trials.methods.adaptive.finetuning import DENSITIES
from trials.methods.parsing import parse
from trials.methods.registry import METHODS
from trials.models import MODELS
from trials.networks.export import export
from trials.sparsity import nearest_count, prunable
from trials.training.net import Net


def config(**fields: Any) -> AdaptiveSparsityConfig:
    base = {"method": "adaptive_sparsity", "dataset": "digits", "model": "tiny", "starget": 0.6, "pthres": 20}
    parsed = parse({**base, "train": {"schedule": "constant"}, **fields})
    assert isinstance(parsed, AdaptiveSparsityConfig)
    return parsed


def convolutions() -> nn.Sequential:
    """Every kind of convolution that wrapping may break."""
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=2, dilation=2, padding_mode="circular"),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Conv2d(8, 8, 3, groups=4, padding="same", bias=False),
        nn.ReLU(),
        nn.Conv2d(8, 16, 1, stride=2),
        nn.AdaptiveAvgPool2d(2),
        nn.Flatten(),
        nn.Linear(64, 5),
    ).double()


def batch() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(6, 3, 9, 9, generator=generator, dtype=torch.float64)
    return x, torch.randint(0, 5, (6,), generator=generator)


def begun(model: nn.Module, **fields: Any) -> tuple[TrainWithThresholds, Net]:
    net, stage = Net(model), TrainWithThresholds(config(**fields))
    stage.enter(net)
    stage.attach(net)
    stage.begin_epoch(0)
    return stage, net


def everything(stage: TrainWithThresholds, net: Net) -> Any:
    return copy.deepcopy({"net": net.state_dict(), "stage": stage.state_dict()})


def wrapped_weight(w: Tensor, r: Tensor) -> Tensor:
    """W by the definition: soft-threshold w/t at 1 with a straight-through gradient, and multiply by t."""
    t = r.clamp(0, 5) * w.detach().std() + 1e-6
    scaled = w / t
    shrunk = torch.where(scaled.abs() > 1, scaled, 0)
    return t * (scaled + (shrunk - scaled).detach())


@pytest.mark.parametrize("mode", ["adaptive", "fixed", "one_sided"])
def test_any_convolution_trains_as_by_the_definition(mode: str) -> None:
    """Compared with autograd through weights computed in the forward pass, for several steps, one graph per step."""
    torch.manual_seed(0)
    stage, net = begun(convolutions(), mode=mode, lv=3.0)
    model = copy.deepcopy(net.model)
    names = list(stage.layers.w)
    w = {name: value.clone().requires_grad_() for name, value in stage.layers.w.items()}
    r = [value.clone().requires_grad_() for value in stage.layers.r.detach()]
    others = {name: p for name, p in model.named_parameters() if name not in w}
    recipe = stage.recipe
    weights = torch.optim.SGD([*w.values(), *others.values()], recipe.lr, recipe.momentum, 0, recipe.weight_decay)
    thresholds = torch.optim.SGD(r, recipe.lr / 100, recipe.momentum)
    x, y = batch()
    for _ in range(3):
        effective = {name: wrapped_weight(w[name], r[i]) for i, name in enumerate(names)}
        logits = torch.func.functional_call(model, effective, (x,))
        s = torch.stack([torch.erf(value / 2**0.5) for value in r])
        n = torch.tensor([value.numel() for value in w.values()])
        difference = 0.6 - (n * s).sum() / n.sum()
        penalty = {"adaptive": difference**2, "fixed": ((s - 0.6) ** 2).mean(), "one_sided": difference.relu()}[mode]
        loss = nn.functional.cross_entropy(logits, y) + 3.0 * penalty
        weights.zero_grad()
        thresholds.zero_grad()
        loss.backward()
        weights.step()
        thresholds.step()
        for value in w.values():
            value.data -= value.data.mean()
        ours, _ = stage.step((x, y))
        assert float(ours) == pytest.approx(loss.item(), rel=1e-10)
        for name in w:
            torch.testing.assert_close(stage.layers.w[name], w[name].detach(), rtol=1e-9, atol=1e-12)
        torch.testing.assert_close(stage.layers.r.detach(), torch.stack(r).detach(), rtol=1e-9, atol=1e-12)
        assert not torch.equal(stage.layers.r.detach(), torch.full_like(stage.layers.r, stage.layers.r[0].item()))
    effective = {name: wrapped_weight(w[name], r[i]) for i, name in enumerate(names)}
    with torch.no_grad():
        expected = torch.func.functional_call(model.eval(), effective, (x,))
        torch.testing.assert_close(net.model.eval()(x), expected, rtol=1e-9, atol=1e-11)


def test_a_forward_pass_changes_nothing_but_batchnorms_statistics() -> None:
    torch.manual_seed(0)
    stage, net = begun(convolutions())
    stage.step(batch())
    before = everything(stage, net)
    net.model.eval()
    net.loss(*batch())
    assert same(everything(stage, net), before)
    net.model.train()
    net.loss(*batch())
    after = everything(stage, net)
    moved = {
        name for name, value in after["net"]["model"].items() if not torch.equal(value, before["net"]["model"][name])
    }
    assert moved == {"1.running_mean", "1.running_var", "1.num_batches_tracked"}
    assert same(after["stage"], before["stage"])


def test_entering_twice_is_entering_once() -> None:
    torch.manual_seed(0)
    stage, net = begun(convolutions())
    before = everything(stage, net)
    assert net.masks
    stage.enter(net)
    stage.attach(net)
    assert same(everything(stage, net), before)


def saved_by_forward(run: Callable[[], object]) -> list[tuple[int, int]]:
    """(address, bytes) of every tensor that a forward pass keeps for its backward."""
    kept: list[Tensor] = []

    def pack(tensor: Tensor) -> Tensor:
        kept.append(tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        graph = run()  # noqa: F841  keeps its tensors alive while their addresses are compared
    return [(tensor.data_ptr(), tensor.nbytes) for tensor in kept]


def test_the_forward_keeps_no_tensor_that_a_dense_one_would_not() -> None:
    """It saves no extra tensor per layer, since the model itself holds the weights that it computes with."""
    torch.manual_seed(0)
    dense = Net(convolutions())
    stage, net = begun(copy.deepcopy(dense.model))
    stage.step(batch())
    x, y = batch()
    plain = saved_by_forward(lambda: dense.loss(x, y))
    ours = saved_by_forward(lambda: net.loss(x, y))
    assert len(plain) > len(stage.layers.w)
    assert len(ours) == len(plain)
    assert sum(size for _, size in set(ours)) == sum(size for _, size in set(plain))


def test_layer_sizes_count_own_weights_and_as_released_those_without_groups() -> None:
    depthwise = nn.Sequential(nn.Conv2d(64, 64, 3, groups=64), nn.Conv2d(64, 8, 3), nn.Flatten(), nn.Linear(8, 10))
    at = {"pthres": 576}
    assert list(config(**at).sparsified(depthwise)) == ["0.weight", "1.weight"]
    at = {"pthres": 577}
    assert list(config(**at).sparsified(depthwise)) == ["1.weight"]
    assert list(config(**at, variant="original").sparsified(depthwise)) == ["0.weight", "1.weight"]
    assert list(config(pthres=0).sparsified(nn.Sequential(nn.Linear(1, 1), nn.Linear(2, 1)))) == ["1.weight"]


def test_without_a_large_enough_layer_it_warns_and_trains_dense() -> None:
    torch.manual_seed(0)
    net, stage = Net(convolutions()), TrainWithThresholds(config(pthres=10**6))
    with pytest.warns(UserWarning, match="pthres is 1000000, but no layer has as many weights"):
        stage.enter(net)
    stage.attach(net)
    before = everything(stage, net)
    loss, _ = stage.step(batch())
    assert stage.sparsity_loss().item() == 0
    assert torch.isfinite(loss)
    assert stage.columns()["analytic_density"] == stage.columns()["density_of_weights"] == 1
    assert not same(everything(stage, net)["net"]["model"], before["net"]["model"])


def test_thresholds_that_are_not_trained_stay_and_start_at_the_target() -> None:
    torch.manual_seed(0)
    stage, net = begun(convolutions(), trainable=False)
    before = stage.layers.r.clone()
    assert stage.columns()["analytic_density"] == pytest.approx(0.4, abs=1e-6)
    stage.step(batch())
    assert torch.equal(stage.layers.r, before)
    with torch.no_grad():
        stage, net = begun(convolutions(), initial_threshold=0.25)
    assert stage.layers.r.tolist() == [0.25] * len(net.masks)


@pytest.mark.parametrize("mode", ["adaptive", "fixed"])
def test_the_exact_cut_keeps_the_weights_farthest_above_their_threshold(mode: str) -> None:
    torch.manual_seed(0)
    stage, net = begun(convolutions(), mode=mode, exact_target=True)
    stage.step(batch())
    stage.end_epoch(net, stage.epochs - 2)
    learnt = copy.deepcopy(net.masks)
    stage.end_epoch(net, stage.epochs - 1)
    counts = stage.layers.counts
    assert sum(int(mask.sum()) for mask in learnt.values()) != nearest_count(0.4, sum(counts))
    if mode == "fixed":
        assert sum(int(mask.sum()) for mask in net.masks.values()) == nearest_count(0.4, sum(counts))
        pairs = zip(net.masks.values(), counts, strict=True)
        assert all(abs(int(mask.sum()) - 0.4 * count) < 1 for mask, count in pairs)
    else:
        assert sum(int(mask.sum()) for mask in net.masks.values()) == nearest_count(0.4, sum(counts))
        ratios = {name: stage.layers.w[name].abs() / stage.layers.t[i] for i, name in enumerate(net.masks)}
        kept = min(float(ratios[name][mask].min()) for name, mask in net.masks.items())
        assert all(float(ratios[name][~mask].max()) <= kept for name, mask in net.masks.items())
    parameters = dict(net.model.named_parameters())
    for name, mask in net.masks.items():
        assert torch.equal(parameters[name], stage.layers.w[name] * mask)


@pytest.mark.usefixtures("few_digits")
def test_rows_hold_analytic_and_measured_density_of_three_totals(tmp_path: Path) -> None:
    trial = config_of("adaptive_sparsity")
    assert run_in(tmp_path, trial).status == "complete"
    rows, checkpoint = rows_of(folder_of(trial, tmp_path)), checkpoint_of(folder_of(trial, tmp_path))
    masks, model = checkpoint["net"]["masks"], MODELS["tiny"](num_classes=10, in_channels=1)
    last, weights = rows["epochs"][-1], sum(w.numel() for w in prunable(model).values())
    parameters = sum(p.numel() for p in model.parameters())
    sparse, kept = sum(m.numel() for m in masks.values()), sum(int(m.sum()) for m in masks.values())
    assert 0 < sparse < weights < parameters  # conv1 is below pthres
    assert last["density"] == kept / sparse
    assert last["density_of_weights"] == (weights - sparse + kept) / weights
    assert last["density_of_parameters"] == (parameters - sparse + kept) / parameters
    layers = {row["layer"]: row for row in rows["layers"]}
    assert layers["conv1"]["threshold"] is None
    analytic = 0.0
    for name, mask in masks.items():
        row = layers[name.removesuffix(".weight")]
        assert row["analytic_density"] == pytest.approx(math.erfc(row["threshold"] / math.sqrt(2)), abs=1e-6)
        analytic += mask.numel() * row["analytic_density"]
    assert last["analytic_density"] == pytest.approx(analytic / sparse)
    assert last["analytic_density_of_weights"] == pytest.approx((weights - sparse + analytic) / weights)
    assert last["analytic_density_of_parameters"] == pytest.approx((parameters - sparse + analytic) / parameters)
    assert last["threshold_lr"] == pytest.approx(last["lr"] / 100)
    assert last["thresholds_outside"] == 0


@pytest.mark.usefixtures("few_digits")
def test_finetuning_goes_on_under_the_mask_of_the_cut(tmp_path: Path) -> None:
    trial = config_of("adaptive_sparsity-cut")
    state = run_in(tmp_path, trial)
    rows = rows_of(folder_of(trial, tmp_path))["epochs"]
    cut, *finetuned = rows[-1 - RECIPE["epochs"] :]
    assert [row["stage"] for row in (cut, *finetuned)] == ["train", *["finetune"] * RECIPE["epochs"]]
    for row in finetuned:
        assert {name: row[name] for name in ("kept", *DENSITIES)} == {name: cut[name] for name in ("kept", *DENSITIES)}
    assert finetuned[-1]["val_loss"] != cut["val_loss"]
    assert {name: state.result[name] for name in DENSITIES} == {name: cut[name] for name in DENSITIES}
    assert state.result["epochs"] == state.result["cost"] == 2 * RECIPE["epochs"]
    assert state.result["warnings"] == []
    net = checkpoint_of(folder_of(trial, tmp_path))["net"]
    assert all(not net["model"][name][~mask].any() for name, mask in net["masks"].items())
    pruned = sum(mask.numel() for mask in net["masks"].values()) * 0.2
    assert sum(int(mask.sum()) for mask in net["masks"].values()) == round(pruned)
    without = trial.model_copy(update={"finetune": None})
    assert without.id == config_of("adaptive_sparsity", exact_target=True).id
    run_in(tmp_path, without)
    before = rows_of(folder_of(without, tmp_path))["epochs"]
    assert [row["val_loss"] for row in before] == [row["val_loss"] for row in rows[: len(before)]]


@pytest.mark.usefixtures("few_digits")
def test_the_export_is_a_plain_network_with_zeros_and_equal_logits(tmp_path: Path) -> None:
    trial = config_of("adaptive_sparsity", exact_target=True)
    state = run_in(tmp_path, trial)
    export(folder_of(trial, tmp_path), tmp_path / "weights.pt")
    plain = MODELS["tiny"](num_classes=10, in_channels=1)
    weights = torch.load(tmp_path / "weights.pt", weights_only=True)
    plain.load_state_dict(weights)
    net = Net(MODELS["tiny"](num_classes=10, in_channels=1))
    checkpoint = checkpoint_of(folder_of(trial, tmp_path))
    net.load_state_dict(checkpoint["net"])
    x = torch.randn(5, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert torch.equal(plain.eval()(x), net.model.eval()(x))
    zeros = sum(int((weights[name] == 0).sum()) for name in net.masks)
    assert state.result["kept"] == sum(mask.numel() for mask in net.masks.values()) - zeros
    assert zeros == sum(int((~mask).sum()) for mask in net.masks.values())


@pytest.mark.usefixtures("few_digits")
def test_the_network_of_one_trial_is_a_source_for_another(tmp_path: Path) -> None:
    dense = config_of("dense")
    run_in(tmp_path, dense)
    export(folder_of(dense, tmp_path), tmp_path / "weights.pt")
    trial = config_of("adaptive_sparsity", source_net=str(tmp_path / "weights.pt"), train={**RECIPE, "epochs": 0})
    run_in(tmp_path, trial)
    start = torch.load(tmp_path / "weights.pt", weights_only=True)
    net = checkpoint_of(folder_of(trial, tmp_path))["net"]
    for name, mask in net["masks"].items():
        centred = start[name] - start[name].mean()
        assert torch.equal(net["model"][name], centred * mask)


@pytest.mark.usefixtures("few_digits")
def test_it_may_start_from_a_dense_network_that_others_share(tmp_path: Path) -> None:
    trial = config_of("adaptive_sparsity", pretrain=RECIPE, train={**RECIPE, "epochs": 0})
    other = config_of("one_shot", pretrain=RECIPE)
    source = METHODS["adaptive_sparsity"](trial).source()
    assert source == METHODS["one_shot"](other).source() == config_of("dense")
    state = run_in(tmp_path, trial)
    (stage,) = (tmp_path / "stages").iterdir()
    start = checkpoint_of(stage)["net"]["model"]
    net = checkpoint_of(folder_of(trial, tmp_path))["net"]
    for name, mask in net["masks"].items():
        assert torch.equal(net["model"][name], (start[name] - start[name].mean()) * mask)
    assert (state.result["epochs"], METHODS["adaptive_sparsity"](config_of("adaptive_sparsity")).source()) == (0, None)


def test_it_has_one_start() -> None:
    with pytest.raises(UserError, match=r"source_net is 'weights\.pt' beside pretrain, but a trial has one start"):
        config_of("adaptive_sparsity", source_net="weights.pt", pretrain=RECIPE)
