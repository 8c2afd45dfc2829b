"""prune, density and make_permanent on modules that no trial knows, mixed with torch.nn.utils.prune."""

from __future__ import annotations

import copy
import io
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import prune as torch_prune

import trials.sparsity as sp
from trials.sparsity import DISTRIBUTIONS, PATTERNS, SCORES, nearest_count


class Joined(nn.Module):
    """Two branches that are added, and a head; a depthwise convolution in one of them."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.branch = nn.Sequential(
            nn.Conv2d(8, 12, 1, bias=False), nn.BatchNorm2d(12), nn.ReLU(), nn.Conv2d(12, 8, 3, padding=1)
        )
        self.deep = nn.Conv2d(8, 8, 3, padding=1, groups=8)
        self.head = nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x).relu()
        x = (self.branch(x) + self.deep(x)).relu()
        return self.head(x.mean((2, 3)))


def net() -> Joined:
    torch.manual_seed(1)
    model = Joined().double()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.running_mean)
            nn.init.normal_(module.bias)
    return model


def images() -> Tensor:
    return torch.randn(4, 3, 10, 10, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


@pytest.mark.parametrize("pattern", PATTERNS)
@pytest.mark.parametrize("distribution", DISTRIBUTIONS)
@pytest.mark.parametrize("score", SCORES)
def test_every_choice_prunes_as_asked_and_further_within(score: str, distribution: str, pattern: str) -> None:
    model = net()
    how = {"score": score, "distribution": distribution, "pattern": pattern}
    asked = PATTERNS[pattern].density or 0.6
    first = sp.prune(model, density=None if pattern == "nm" else 0.8, **how)
    then = sp.prune(model, density=asked, **how)
    for name, mask in then.items():
        assert not (mask & ~first[name]).any()
        layer = model.get_submodule(name.removesuffix(".weight"))
        assert torch.equal(layer.weight_mask.bool(), mask)
        assert torch.equal(layer.weight, layer.weight_orig * mask)
    units = [PATTERNS[pattern].left(mask) for mask in then.values()]
    total = sum(unit.numel() for unit in units)
    assert sum(int(unit.sum()) for unit in units) == nearest_count(asked, total)


def test_training_and_torch_keep_to_the_masks() -> None:
    model = net()
    masks = sp.prune(model, density=0.3)
    torch_prune.random_unstructured(model.head, "weight", amount=3)
    left = sp.density(model)
    assert left == pytest.approx(0.3 - 3 / sum(mask.numel() for mask in masks.values()), abs=1e-3)
    sgd = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=0.1)
    for _ in range(3):
        sgd.zero_grad()
        model(images()).square().sum().backward()
        sgd.step()
    model(images())
    assert sp.density(model) == left
    for name, mask in masks.items():
        assert not model.get_submodule(name.removesuffix(".weight")).weight[~mask].any()


def test_a_pruned_model_is_saved_and_loaded() -> None:
    model, other = net(), net()
    sp.prune(model, density=0.3)
    sp.prune(other, density=0.9)
    file = io.BytesIO()
    torch.save(model.state_dict(), file)
    file.seek(0)
    other.load_state_dict(torch.load(file, weights_only=True))
    assert torch.equal(other(images()), model(images()))
    assert sp.density(other) == sp.density(model)


def test_permanent_is_the_same_network_of_plain_weights() -> None:
    model = net()
    sp.prune(model, density=0.3)
    torch_prune.l1_unstructured(model.stem, "bias", amount=2)
    before, left = model(images()), sp.density(model)
    assert sp.make_permanent(model) is model
    assert model.state_dict().keys() == net().state_dict().keys()
    assert torch.equal(model(images()), before)
    assert sp.density(model) == left
    assert not torch_prune.is_pruned(model)


def test_only_the_named_layers_are_pruned() -> None:
    model = net()
    masks = sp.prune(model, density=0.5, layers=["stem", "branch.3"])
    assert list(masks) == ["stem.weight", "branch.3.weight"]
    assert {name for name, _ in model.named_buffers() if name.endswith("_mask")} == {
        "stem.weight_mask",
        "branch.3.weight_mask",
    }


def test_a_layer_alone_is_a_module_too() -> None:
    layer = nn.Linear(10, 10)
    assert list(sp.prune(layer, density=0.5)) == ["weight"]
    assert sp.density(layer) == 0.5


def test_equal_seeds_draw_equal_masks() -> None:
    one, other, third = (sp.prune(net(), density=0.5, score="random", seed=seed) for seed in (3, 3, 4))
    assert all(torch.equal(one[name], other[name]) for name in one)
    assert any(not torch.equal(one[name], third[name]) for name in one)


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"density": 0}, r"density is 0, but must be a number in \(0, 1\]"),
        ({"density": 1.5}, r"density is 1.5, but must be a number in \(0, 1\]"),
        ({"density": 1e-6}, r"density is 1e-06, which keeps none of \d+ weights: give a higher one"),
        (
            {"density": 0.01, "pattern": "filter"},
            r"density is 0.01, which keeps none of \d+ filters: give a higher one",
        ),
        ({"density": 0.5, "score": "lapm"}, "score is 'lapm', but must be one of"),
        ({"density": 0.5, "pattern": "row"}, "pattern is 'row', but must be one of"),
        ({"density": 0.5, "distribution": "even"}, "distribution is 'even', but must be one of"),
        ({"density": 0.5, "layers": ["fc"]}, "layers has fc, which the pattern cannot prune: name some of stem"),
        ({"density": 0.5, "layers": ["head"], "pattern": "filter"}, "layers has head, which the pattern cannot prune"),
        ({"density": 0.5, "layers": []}, "Joined has no layer that pattern weight prunes"),
    ],
)
def test_what_cannot_be_is_refused(asked: dict[str, object], message: str) -> None:
    model = net()
    with pytest.raises(ValueError, match=message):
        sp.prune(model, **asked)  # type: ignore[arg-type]
    assert not torch_prune.is_pruned(model)


@pytest.mark.parametrize("density", [np.float32(0.5), np.float64(0.5), Fraction(1, 2)])
def test_a_density_is_any_real_number(density: Any) -> None:
    assert int(sp.prune(nn.Linear(8, 8), density=density)["weight"].sum()) == 32


def test_more_than_is_left_is_refused() -> None:
    model = net()
    sp.prune(model, density=0.2)
    with pytest.raises(ValueError, match=r"density is 0.5, but only 0.2\d* of \d+ weights are left: give a lower one"):
        sp.prune(model, density=0.5)


def test_masks_and_thresholds_do_not_mix() -> None:
    model = net()
    sp.sparsify_adaptive(model, min_weights=10)
    with pytest.raises(ValueError, match=r"are parametrized: make them plain first \(sp.make_permanent"):
        sp.prune(model, density=0.5)
    sp.prune(sp.make_permanent(model), density=0.2)


def tied() -> nn.Module:
    model = nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 8))
    model[1].weight = model[0].weight
    return model


def lazy() -> nn.Module:
    return nn.Sequential(nn.LazyConv2d(8, 3), nn.LazyLinear(4))


def meta() -> nn.Module:
    with torch.device("meta"):
        return nn.Sequential(nn.Conv2d(3, 8, 3))


def normalised(norm: Callable[[nn.Module], nn.Module]) -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 8, 3), norm(nn.Conv2d(8, 8, 3)))


def not_finite() -> nn.Module:
    model = nn.Sequential(nn.Conv2d(3, 8, 3))
    nn.init.constant_(model[0].weight, torch.nan)
    return model


def complex_weights() -> nn.Module:
    return nn.Sequential(nn.Linear(4, 4, dtype=torch.complex64))


@pytest.mark.parametrize(
    ("make", "rule"),
    [
        (complex_weights, "layers 0 have weights that are no real floating-point numbers"),
        (tied, "layers 0, 1 share weights with other modules"),
        (lazy, "run a forward pass first"),
        (meta, "0.weight, 0.bias are on the meta device, without values"),
        (lambda: normalised(nn.utils.parametrizations.weight_norm), "layers 1 are parametrized"),
        (lambda: normalised(nn.utils.spectral_norm), "layers 1 have weights that a hook computes"),
        (not_finite, "layers 0 have weights that are NaN or infinite"),
        (lambda: nn.Conv1d(3, 8, 3), "Conv1d has no layer that pattern weight prunes: no Conv2d or Linear"),
    ],
    ids=["complex", "tied", "lazy", "meta", "parametrized", "hook", "nan", "conv1d"],
)
def test_what_cannot_be_pruned_is_refused_before_anything_changes(make: Callable[[], nn.Module], rule: str) -> None:
    model = make()
    before = list(dict(model.named_parameters()))
    with pytest.raises(ValueError, match=rule):
        sp.prune(model, density=0.5)
    assert list(dict(model.named_parameters())) == before


@pytest.mark.parametrize("make", [lazy, meta])
@pytest.mark.parametrize("piece", [sp.density, sp.sparsify_adaptive, lambda model: sp.compact(model, images())])
def test_every_piece_refuses_parameters_without_values(
    make: Callable[[], nn.Module], piece: Callable[[nn.Module], object]
) -> None:
    with pytest.raises(ValueError, match=r"not initialised yet|without values"):
        piece(make())


@pytest.mark.parametrize("wrap", [nn.DataParallel, lambda model: torch.compile(model, backend="eager")])
def test_wrapped_modules_are_pruned_within_and_made_smaller_by_themselves(wrap: Callable[..., nn.Module]) -> None:
    model = net()
    masks = sp.prune(wrap(model), density=0.5)
    assert sum(int(mask.sum()) for mask in masks.values()) == round(0.5 * sum(m.numel() for m in masks.values()))
    with pytest.raises(ValueError, match="is a wrapper, which cannot be traced: give its network"):
        sp.compact(wrap(model), images())
    with pytest.raises(ValueError, match="is a wrapper"):
        sp.prune(wrap(net()), density=0.5, pattern="filter", couple=True)
    sp.compact(model, images())


def test_layers_of_several_precisions_are_ranked_together() -> None:
    model = nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 8).double())
    reference = nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 8)).double()
    reference.load_state_dict(model.state_dict())
    masks, expected = (sp.prune(one, density=0.5) for one in (model, reference))
    assert all(torch.equal(mask, expected[name]) for name, mask in masks.items())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("pattern", ["weight", "filter", "kernel_mean"])
@pytest.mark.parametrize("score", SCORES)
def test_half_precision_is_ranked_as_the_same_numbers_in_float64_are(
    score: str, pattern: str, dtype: torch.dtype
) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(4, 16, 3), nn.Conv2d(16, 32, 3), nn.Conv2d(32, 64, 3)).to(dtype)
    exact = copy.deepcopy(model).double()
    masks, expected = (
        sp.prune(one, density=0.4, score=score, pattern=pattern, distribution="uniform") for one in (model, exact)
    )
    differ = sum(int((mask != expected[name]).sum()) for name, mask in masks.items())
    assert differ == 0
    assert model[0].weight.dtype == dtype


def test_density_of_each_layer() -> None:
    model = nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 2))
    sp.prune(model, density=0.25, layers="0")
    assert sp.density(model, by_layer=True) == {"0": 0.25, "1": 1.0}
    assert sp.density(nn.ReLU(), by_layer=True) == {}


def test_one_layer_may_be_named_as_text() -> None:
    model = nn.Sequential(*(nn.Linear(4, 4) for _ in range(12)))
    assert list(sp.prune(model, density=0.5, layers="11")) == ["11.weight"]


def test_n_of_m_within_a_mask_keeps_at_most_n() -> None:
    layer = nn.Linear(16, 16)
    first = sp.prune(layer, density=0.3)["weight"]
    then = sp.prune(layer, pattern="nm")["weight"]
    assert not (then & ~first).any()
    assert then.view(16, 4, 4).sum(-1).max() == 2
