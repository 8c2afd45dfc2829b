"""Backward-only pruning: the reference vectors, every kind of layer, and what it leaves unchanged."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tests.trials.global_and_gradient import build_net, convs, load, single
from trials.config.recipes import BackwardConfig
from trials.sparsity import PATTERNS
from trials.sparsity.backward import BackwardPruner, conv2d
from trials.sparsity.dropping import drop
from trials.training.net import Net


def generators(layer: str) -> torch.Generator:
    return torch.Generator().manual_seed(len(layer))


def pruner(model: nn.Module, **fields: Any) -> BackwardPruner:
    return BackwardPruner(model, BackwardConfig(**fields), generators)


@pytest.mark.parametrize(
    ("file", "dtype", "rtol", "atol"),
    [("gradient_prune_f64.npz", torch.float64, 1e-9, 1e-11), ("gradient_prune_f32.npz", torch.float32, 1e-4, 1e-5)],
)
def test_gradient_prune_npz(file: str, dtype: torch.dtype, rtol: float, atol: float) -> None:
    arrays, inputs = load(file, dtype), load("inputs.npz", dtype)

    def gradients(prefix: str, p_prune: float | None) -> None:
        model, x = build_net(dtype), inputs["x"].clone().requires_grad_(True)
        plain = model(x)
        config = None if p_prune is None else BackwardConfig(p_prune=p_prune)
        with BackwardPruner(model, config, generators):
            logits = model(x)
            torch.autograd.backward((logits * inputs["cotangent"]).sum())
        assert torch.equal(logits, plain)
        torch.testing.assert_close(logits.detach(), arrays[f"{prefix}/logits"], rtol=rtol, atol=max(atol, 1e-9))
        found = {"x": x.grad} | {name: parameter.grad for name, parameter in model.named_parameters()}
        for key in (key for key in arrays if key.startswith(f"{prefix}/grad/")):
            torch.testing.assert_close(found[key.split("/")[2]], arrays[key], rtol=rtol, atol=atol, msg=key)

    gradients("nohook", None)
    for i in arrays.numbers("hook{}/"):
        gradients(f"hook{i}", float(arrays["p_prune"][i]))
        dropped = float(arrays["p_prune"][i]) * sum(arrays[f"nohook/grad/{name}.weight"].numel() for name in convs())
        assert torch.equal(arrays[f"hook{i}/grad/x"], arrays["nohook/grad/x"]) == (dropped < 1)
        assert torch.equal(arrays[f"hook{i}/grad/{convs()[-1]}.weight"], arrays[f"nohook/grad/{convs()[-1]}.weight"])


def test_gradient_prune_shape_collision_npz() -> None:
    """An input of exactly the weight's shape is not mistaken for the weight."""
    a = load("gradient_prune_shape_collision_f64.npz")
    conv, x = single(a), a["x"].clone().requires_grad_(True)
    assert x.shape == conv.weight.shape
    with pruner(conv, p_prune=float(a["p_prune"])) as found:
        torch.autograd.backward((conv(x) * a["cotangent"]).sum())
        assert torch.equal(found.kept[""], a["keep_mask"].bool())
    torch.testing.assert_close(x.grad, a["grad_x"], rtol=1e-9, atol=1e-11)
    torch.testing.assert_close(conv.weight.grad, a["grad_weight_correct"], rtol=1e-9, atol=1e-11)
    if "grad_weight_original_BUGGY" in a:  # the released code takes x for the weight, and masks it, too
        weight = a["weight"].clone().requires_grad_(True)
        x = a["x"] * a["keep_mask"]
        masked = F.conv2d(x, weight, None, conv.stride, conv.padding, conv.dilation, conv.groups)
        torch.autograd.backward((masked * a["cotangent"]).sum())
        torch.testing.assert_close(weight.grad, a["grad_weight_original_BUGGY"], rtol=1e-9, atol=1e-11)


def test_gradient_prune_bernoulli_npz() -> None:
    a = load("gradient_prune_bernoulli_f64.npz")
    conv, draws = single(a), []
    with pruner(conv, p_prune=float(a["p_prune"]), p_bern=float(a["p_bern"])) as found:
        for _ in range(max(400, int(a["repeats"]))):
            x = a["x"].clone().requires_grad_(True)
            conv.zero_grad()
            torch.autograd.backward((conv(x) * a["cotangent"]).sum())
            assert x.grad is not None
            draws.append(x.grad)
        assert torch.equal(~found.kept[""], a["candidate_mask"].bool())
    torch.testing.assert_close(conv.weight.grad, a["grad_weight"], rtol=1e-9, atol=1e-11)
    stacked = torch.stack(draws)
    error = stacked.std(0) / len(draws) ** 0.5
    assert ((stacked.mean(0) - a["expected_grad_x"]).abs() <= 5 * error + 1e-12).all()
    assert stacked.std(0).max() > 0
    theirs = (a["sample_mean_grad_x"] - a["expected_grad_x"]).abs()  # the original's own draws
    assert (theirs <= 6 * a["sample_se_grad_x"] + 1e-12).all()


LAYERS = {
    "plain": {"kernel_size": 3},
    "stride": {"kernel_size": 3, "stride": (2, 1), "padding": (1, 2)},
    "dilation": {"kernel_size": 3, "dilation": 2, "padding": 2},
    "groups": {"kernel_size": 3, "groups": 2, "padding": 1},
    "depthwise": {"kernel_size": 3, "groups": 4, "stride": 2},
    "no-bias": {"kernel_size": 1, "bias": False},
    "same": {"kernel_size": 3, "padding": "same"},
    "same-even": {"kernel_size": 4, "padding": "same"},
    "valid": {"kernel_size": 3, "padding": "valid"},
    "circular": {"kernel_size": 3, "padding": 1, "padding_mode": "circular"},
    "reflect": {"kernel_size": (3, 2), "padding": 1, "padding_mode": "reflect"},
}


def check(layer: nn.Module, x: Tensor, m: Tensor, ours: Tensor) -> None:
    """Output, dL/dW and dL/db of the layer itself, dL/dx of the layer with weight times m."""
    g = torch.randn_like(ours)
    weights = dict(layer.named_parameters())
    plain = layer(x)
    torch.testing.assert_close(ours, plain, rtol=0, atol=1e-12)
    reference = torch.autograd.grad((plain * g).sum(), list(weights.values()), retain_graph=True)
    found = torch.autograd.grad((ours * g).sum(), [x, *weights.values()])
    masked = torch.func.functional_call(layer, {**weights, "weight": weights["weight"] * m}, (x,))
    expected = torch.autograd.grad((masked * g).sum(), x)
    for a, b in zip(found, (*expected, *reference), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-12)


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel lengths:UserWarning")
@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("batched", [True, False])
def test_every_kind_of_convolution(name: str, batched: bool) -> None:
    torch.manual_seed(0)
    conv = nn.Conv2d(4, 8, **LAYERS[name]).double()  # type: ignore[arg-type]
    x = torch.randn(*([3] if batched else []), 4, 9, 8, dtype=torch.float64, requires_grad=True)
    m = (torch.rand_like(conv.weight) > 0.5).double()
    check(conv, x, m, conv2d(conv, x, m))


@pytest.mark.parametrize("shape", [(5,), (3, 5), (2, 3, 5)])
@pytest.mark.parametrize("bias", [True, False])
def test_linear_layers_take_part_where_asked(shape: tuple[int, ...], bias: bool) -> None:
    torch.manual_seed(0)
    layer = nn.Linear(5, 7, bias=bias).double()
    x = torch.randn(*shape, dtype=torch.float64, requires_grad=True)
    plain = copy.deepcopy(layer)
    with pruner(layer, p_prune=0.4, linear=True) as found:
        y = layer(x)
    m = found.kept[""].double()
    assert int((m == 0).sum()) == int(0.4 * 35)
    twin = {"weight": layer.weight, "bias": layer.bias}
    for name, parameter in plain.named_parameters():
        assert torch.equal(parameter, twin[name])
    check(layer, x, m, y)


@pytest.mark.parametrize("pattern", ["weight", "kernel", "kernel_mean", "filter_l1"])
def test_patterns(pattern: str) -> None:
    model = build_net(torch.float64)
    x = load("inputs.npz", torch.float64)["x"].requires_grad_(True)
    with pruner(model, p_prune=0.4, p_bern=0.5, pattern=pattern) as found:
        torch.autograd.backward(model(x).sum())
    magnitudes = {name: model.get_submodule(name).weight.detach().abs() for name in convs()}
    for name, mask in drop(magnitudes, 0.4, pattern=PATTERNS[pattern]).items():
        assert torch.equal(found.kept[name], mask)


def test_autocast_gets_the_gradients_that_autocast_gives() -> None:
    torch.manual_seed(0)
    model, x = nn.Sequential(nn.Conv2d(2, 4, 3), nn.ReLU(), nn.Conv2d(4, 3, 3, bias=False)), torch.randn(2, 2, 7, 7)
    results = []
    for config in (None, BackwardConfig(p_prune=0)):
        model.zero_grad()
        leaf = x.clone().requires_grad_(True)
        with BackwardPruner(model, config, generators), torch.autocast("cpu", dtype=torch.bfloat16):
            y = model(leaf)
        torch.autograd.backward(y.float().square().mean())
        results.append([y, leaf.grad, *(parameter.grad for parameter in model.parameters())])
    for a, b in zip(*results, strict=True):
        assert a is not None
        assert b is not None
        assert a.dtype == b.dtype
        torch.testing.assert_close(a, b, rtol=2e-2, atol=2e-3)


def test_a_weight_changed_between_forward_and_backward_is_noticed() -> None:
    model = build_net()
    x = load("inputs.npz")["x"].requires_grad_(True)
    with pruner(model):
        y = model(x)
        with torch.no_grad():
            model.get_submodule(convs()[-1]).weight.mul_(2)  # type: ignore[operator]
        with pytest.raises(RuntimeError, match="modified by an inplace operation"):
            torch.autograd.backward(y.sum())


def test_a_layer_used_twice_is_pruned_twice_and_everything_is_given_back() -> None:
    conv = nn.Conv2d(3, 3, 3, padding=1).double()
    model = nn.Sequential(conv, nn.Tanh(), conv).eval()
    calls: list[int] = []
    conv.register_forward_hook(lambda *_: calls.append(1))
    x = torch.randn(2, 3, 5, 5, dtype=torch.float64, requires_grad=True)
    (dense,) = torch.autograd.grad(model(x).sum(), x)
    before = copy.deepcopy(model)
    with pruner(model, p_prune=0.5) as found:
        (pruned,) = torch.autograd.grad(model(x).sum(), x)
        with pytest.raises(ValueError, match="already has a replaced forward"):
            pruner(model)
        with torch.no_grad():
            assert torch.equal(model(x), before(x))
    hidden = conv(x).tanh()
    thin = conv.weight * found.kept["0"]
    g = F.conv_transpose2d(torch.ones_like(hidden), thin, padding=1) * (1 - hidden.square())
    torch.testing.assert_close(pruned, F.conv_transpose2d(g, thin, padding=1))
    torch.testing.assert_close(torch.autograd.grad(model(x).sum(), x)[0], dense, rtol=0, atol=0)
    assert "forward" not in vars(conv)
    assert len(calls) == 2 * 5 + 1  # five passes, the copy's included, and one by hand
    assert not model.training


def steps(model: nn.Module, found: BackwardPruner, count: int) -> list[Tensor]:
    """Weights after each of ``count`` steps of SGD."""
    inputs, weights = load("inputs.npz"), []
    for _ in range(count):
        model.zero_grad()
        loss, _ = Net(model).loss(inputs["x"], inputs["y"])
        torch.autograd.backward(loss)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter -= 0.5 * parameter.grad  # type: ignore[operator]
        weights.append(torch.cat([p.detach().flatten() for p in model.parameters()]))
    return weights


@pytest.mark.parametrize("every", [0, 1, 3])
def test_candidates_are_selected_anew_when_asked(every: int, monkeypatch: pytest.MonkeyPatch) -> None:
    selections: list[int] = []
    original = BackwardPruner.refresh

    def refresh(self: BackwardPruner) -> None:
        selections.append(self.forwards)
        original(self)

    monkeypatch.setattr(BackwardPruner, "refresh", refresh)
    model = build_net()
    with pruner(model, p_prune=0.5, refresh_every=every) as found:
        steps(model, found, 7)
        with torch.no_grad():
            model(load("inputs.npz")["x"])  # evaluation does not count as a step
    assert selections == {0: [0], 1: [0, 1, 2, 3, 4, 5, 6], 3: [0, 3, 6]}[every]


def test_state_continues_to_the_bit() -> None:
    model = build_net()
    with pruner(model, p_prune=0.5, p_bern=0.5, refresh_every=4) as found:
        steps(model, found, 2)
        net, state = copy.deepcopy(model.state_dict()), copy.deepcopy(found.state_dict())
        undisturbed = steps(model, found, 4)
    for resumed in (True, False):
        other = build_net()
        other.load_state_dict(net)
        with pruner(other, p_prune=0.5, p_bern=0.5, refresh_every=4) as again:
            if resumed:
                again.load_state_dict(state)
            same = all(torch.equal(a, b) for a, b in zip(steps(other, again, 4), undisturbed, strict=True))
        assert same == resumed  # without its state the steps differ


def test_state_of_another_kind_of_device_goes_on_with_draws_of_its_own() -> None:
    """The state of CUDA's generator has 16 bytes. Candidates and their count go on."""
    model = build_net()
    with pruner(model, p_prune=0.5, p_bern=0.5, refresh_every=4) as found:
        steps(model, found, 2)
        state = copy.deepcopy(found.state_dict())
    state["generators"] = {name: torch.zeros(16, dtype=torch.uint8) for name in state["generators"]}
    with pruner(model, p_prune=0.5, p_bern=0.5, refresh_every=4) as again:
        again.load_state_dict(state)
        assert again.forwards == 2
        assert all(map(torch.equal, again.kept.values(), found.kept.values()))
        steps(model, again, 1)


def test_rows_report_ratio_and_candidates() -> None:
    model = build_net()
    with pruner(model, p_prune=0.5, p_bern=0.5) as found:
        assert found.columns() == {}
        steps(model, found, 1)
        columns = found.columns()
    total = sum(model.get_submodule(name).weight.numel() for name in convs())  # type: ignore[union-attr,operator,misc]
    assert columns == {
        "backward_nominal_ratio": 0.25,
        "backward_candidate_units": int(0.5 * total) / total,
        "backward_candidate_weights": int(0.5 * total) / total,
    }
