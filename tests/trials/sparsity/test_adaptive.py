"""Thresholds on any module: the same gradients and trajectories as the method's, and pure forward passes."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from trials.methods.adaptive.thresholds import Thresholded
from trials.sparsity import adaptive, on_modules


def net() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 12, 3, padding=2, dilation=2, padding_mode="reflect"),
        nn.ReLU(),
        nn.Sequential(nn.Conv2d(12, 12, 3, groups=4, bias=False), nn.BatchNorm2d(12), nn.ReLU()),
        nn.AdaptiveAvgPool2d(2),
        nn.Flatten(),
        nn.Linear(48, 20),
        nn.Linear(20, 4),
    ).double()


def batch(step: int) -> tuple[Tensor, Tensor]:
    draw = torch.Generator().manual_seed(step)
    return torch.randn(8, 3, 9, 9, generator=draw, dtype=torch.float64), torch.randint(4, (8,), generator=draw)


def weights(model: nn.Module) -> dict[str, Tensor]:
    return {f"{n}.weight": m.weight for n, m in model.named_modules() if isinstance(m, (nn.Conv2d, nn.Linear))}


def test_training_gives_the_weights_of_the_method() -> None:
    """SGD with momentum and weight decay, thresholds at a hundredth of the rate: the method's own arithmetic."""
    model, plain = net(), net()
    r = adaptive.sparsify_adaptive(model, threshold=0.4, min_weights=100)
    ours = torch.optim.SGD(
        [
            {"params": [p for p in model.parameters() if all(p is not each for each in r)], "weight_decay": 1e-2},
            {"params": r, "lr": 1e-3},
        ],
        lr=0.1,
        momentum=0.9,
    )
    names = [name for name, weight in weights(plain).items() if weight.numel() >= 100]
    layers = Thresholded({name: weight for name, weight in plain.named_parameters() if name in names}, 0.4)
    assert len(r) == len(names) == 3
    parameters = dict(plain.named_parameters())
    rest = [parameter for name, parameter in parameters.items() if name not in names]
    theirs = torch.optim.SGD(
        [
            {"params": [*layers.w.values(), *rest], "weight_decay": 1e-2},
            {"params": [layers.r.requires_grad_()], "lr": 1e-3},
        ],
        lr=0.1,
        momentum=0.9,
    )
    for step in range(6):
        layers.centre()
        with torch.no_grad():
            for name, mask in layers.masks().items():
                parameters[name].copy_(layers.w[name] * mask)
        x, y = batch(step)
        ours.zero_grad()
        theirs.zero_grad()
        plain.zero_grad()
        loss = F.cross_entropy(plain(x), y) + adaptive.sparsity_loss(
            layers.r, layers.n, starget=0.9, lv=10.0, mode="adaptive"
        )
        loss.backward()
        layers.pass_through(parameters)
        other = F.cross_entropy(model(x), y) + adaptive.adaptive_loss(model, sparsity=0.9)
        other.backward()
        torch.testing.assert_close(other, loss, rtol=1e-10, atol=1e-12)
        torch.testing.assert_close(torch.stack([each.grad for each in r]), layers.r.grad, rtol=1e-9, atol=1e-12)
        ours.step()
        theirs.step()
    torch.testing.assert_close(torch.stack(list(r)), layers.r, rtol=1e-9, atol=1e-12)
    layers.centre()
    for name, mask in layers.masks().items():
        torch.testing.assert_close(weights(model)[name], layers.w[name] * mask, rtol=1e-8, atol=1e-10)


def test_a_forward_pass_changes_nothing_and_the_end_keeps_the_outputs() -> None:
    model = net().eval()
    adaptive.sparsify_adaptive(model, sparsity=0.9, min_weights=100)
    before = copy.deepcopy(model.state_dict())
    x, _ = batch(0)
    outputs = model(x)
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    left = on_modules.density(model)
    assert 0.3 < left < 0.9
    assert on_modules.make_permanent(model) is model
    assert model.state_dict().keys() == net().state_dict().keys()
    assert torch.equal(model(x), outputs)
    assert on_modules.density(model) == left


def test_wrapping_twice_is_wrapping_once() -> None:
    model = net()
    first = adaptive.sparsify_adaptive(model, threshold=1.0, min_weights=100)
    again = adaptive.sparsify_adaptive(model, threshold=0.2, min_weights=100)
    assert [id(r) for r in again] == [id(r) for r in first]
    assert {float(r.detach()) for r in again} == {1.0}


def test_fixed_thresholds_get_no_gradient_and_are_stored() -> None:
    model = net()
    assert adaptive.sparsify_adaptive(model, threshold=0.7, trainable=False, min_weights=100) == []
    F.cross_entropy(model(batch(0)[0]), batch(0)[1]).backward()
    stored = {name: value for name, value in model.state_dict().items() if name.endswith(".r")}
    assert len(stored) == 3
    assert not any(value.requires_grad for value in stored.values())


@pytest.mark.parametrize("mode", ["adaptive", "fixed", "one_sided"])
def test_the_loss_moves_thresholds_only(mode: str) -> None:
    model = net()
    r = adaptive.sparsify_adaptive(model, sparsity=0.5, min_weights=100)
    loss = adaptive.adaptive_loss(model, sparsity=0.9, mode=mode)  # type: ignore[arg-type]
    loss.backward()  # type: ignore[no-untyped-call]
    assert all(each.grad is not None and each.grad < 0 for each in r)
    others = [p for p in model.parameters() if all(p is not each for each in r)]
    assert all(p.grad is None for p in others)


def test_nothing_to_prune_is_said() -> None:
    model = nn.Sequential(nn.Linear(4, 4))
    with pytest.warns(UserWarning, match="no layer has as many weights"):
        assert adaptive.sparsify_adaptive(model) == []
    assert adaptive.adaptive_loss(model, sparsity=0.9) == 0


def test_what_cannot_be_is_refused() -> None:
    model = nn.Sequential(nn.Linear(40, 40))
    with pytest.raises(ValueError, match=r"threshold is 6, but must be in \[0, 5\]"):
        adaptive.sparsify_adaptive(model, threshold=6)
    with pytest.raises(ValueError, match=r"sparsity is 1, but must be in \[0, 1\)"):
        adaptive.sparsify_adaptive(model, sparsity=1)
    with pytest.raises(ValueError, match=r"sparsity is -0.1, but must be in \[0, 1\)"):
        adaptive.adaptive_loss(model, sparsity=-0.1)
    with pytest.raises(ValueError, match="mode is 'budget', but must be one of: adaptive, fixed, one_sided"):
        adaptive.adaptive_loss(model, sparsity=0.5, mode="budget")  # type: ignore[arg-type]
    on_modules.prune(model, density=0.5)
    with pytest.raises(ValueError, match=r"layers 0 are masked: call sp\.make_permanent first"):
        adaptive.sparsify_adaptive(model)


def tied() -> nn.Module:
    model = nn.Sequential(nn.Embedding(40, 40), nn.Linear(40, 40))
    model[1].weight = model[0].weight
    return model


def not_finite() -> nn.Module:
    model = nn.Sequential(nn.Linear(40, 40), nn.Linear(40, 40))
    nn.init.constant_(model[1].weight[0], torch.nan)
    return model


@pytest.mark.parametrize(
    ("make", "rule"),
    [
        (tied, "layers 1 share weights with other modules"),
        (not_finite, "layers 1 have weights that are NaN or infinite"),
        (lambda: nn.utils.parametrizations.weight_norm(nn.Linear(40, 40)), "layers ParametrizedLinear are parametr"),
        (lambda: nn.utils.spectral_norm(nn.Linear(40, 40)), "layers Linear have weights that a hook computes"),
    ],
    ids=["tied", "nan", "parametrized", "hook"],
)
def test_weights_that_cannot_have_a_threshold_are_refused_before_anything_changes(
    make: Callable[[], nn.Module], rule: str
) -> None:
    model = make()
    before = list(dict(model.named_parameters()))
    with pytest.raises(ValueError, match=rule):
        adaptive.sparsify_adaptive(model)
    assert list(dict(model.named_parameters())) == before


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_has_the_thresholds_and_the_loss_of_float32(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(300, 300), nn.Linear(300, 40)).to(dtype)  # more weights than float16 can count
    exact = copy.deepcopy(model).float()
    found = []
    for one in (model, exact):
        r = adaptive.sparsify_adaptive(one, sparsity=0.9)
        loss = adaptive.adaptive_loss(one, sparsity=0.9)
        (loss + one[1].weight.float().square().mean()).backward()
        found.append((loss, torch.stack([each.grad for each in r]), on_modules.density(one)))
    assert found[0][0] == found[1][0]
    torch.testing.assert_close(found[0][1], found[1][1], rtol=1e-5, atol=1e-6)
    assert found[0][2] == found[1][2]
    assert model[0].weight.dtype == dtype
