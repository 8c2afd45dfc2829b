"""compact, and prune with couple, on modules that no trial knows."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import prune as torch_prune

import trials.sparsity as sp
from tests.trials.sparsity.test_on_modules import images, net
from trials.compact import units_of

IMAGES = torch.rand(2, 3, 32, 32)


def test_compact_computes_the_same_and_leaves_the_model_alone() -> None:
    model = net().train()
    sp.prune(model, density=0.5, pattern="filter", layers=["branch.0"])
    gone = ~model.branch[0].weight_mask.flatten(1).any(1)
    with torch.no_grad():
        model.branch[1].weight[gone] = 0
        model.branch[1].bias[gone] = 0
    model(images()).sum().backward()  # the pruned weights have a history now
    state = copy.deepcopy(model.state_dict())
    smaller = sp.compact(model, images())
    assert smaller.branch[0].out_channels == smaller.branch[3].in_channels == 6
    torch.testing.assert_close(smaller(images()), model.eval()(images()))
    assert all(torch.equal(state[name], value) for name, value in model.state_dict().items())
    assert torch_prune.is_pruned(model)


def test_compact_lets_the_next_layer_add_what_a_masked_filter_emits() -> None:
    model = net()
    sp.prune(model, density=0.5, pattern="filter", layers=["branch.0"])
    smaller = sp.compact(model, images())
    assert 6 <= smaller.branch[0].out_channels < 12  # one stays where the next layer pads with zeros
    torch.testing.assert_close(smaller(images()), model.eval()(images()))


def test_what_cannot_be_traced_is_refused() -> None:
    class Branching(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(4, 4)

        def forward(self, x: Tensor) -> Tensor:
            return self.layer(x) if x.sum() > 0 else x

    with pytest.raises(ValueError, match="Branching cannot be made smaller"):
        sp.compact(Branching(), torch.ones(1, 4))


class Added(nn.Module):
    """A convolution, and two whose sum a linear layer reads."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.one, self.two = nn.Conv2d(1, 8, 3), nn.Conv2d(8, 6, 3), nn.Conv2d(8, 6, 3)
        self.fc = nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.stem(x))
        return self.fc((self.one(x) + self.two(x)).mean((2, 3)))


def transformer(library: str) -> tuple[nn.Module, Tensor]:
    found = pytest.importorskip(library, reason=f"{library} is not installed, so its transformer is not tested")
    if library == "timm":
        return found.create_model("vit_tiny_patch16_224", img_size=32, patch_size=8, depth=2, num_classes=5), IMAGES
    sizes = {"num_layers": 2, "num_heads": 4, "hidden_dim": 16, "mlp_dim": 24, "num_classes": 5}
    return found.models.VisionTransformer(32, 8, **sizes), IMAGES


def test_coupled_filters_go_over_a_sum_and_the_compact_copy_computes_the_same() -> None:
    model, x = Added().eval(), torch.rand(2, 1, 8, 8)
    masks = sp.prune(model, density=0.5, pattern="filter", couple=True, distribution="uniform")
    gone = [~masks[name].flatten(1).any(1) for name in ("one.weight", "two.weight")]
    assert torch.equal(*gone)
    assert int(gone[0].sum()) == 3
    smaller = sp.compact(model, x)
    assert (smaller.stem.out_channels, smaller.one.out_channels, smaller.two.out_channels) == (4, 3, 3)
    torch.testing.assert_close(smaller(x), model(x))
    again = sp.prune(model, density=0.3, pattern="filter", couple=True)
    assert not any((mask & ~masks[name]).any() for name, mask in again.items())
    units = units_of(smaller)
    assert sum(p.numel() for p in sp.compact(model, x).parameters()) < sum(p.numel() for p in smaller.parameters())
    assert len(units.group) == 7


@pytest.mark.parametrize("library", ["torchvision", "timm"])
def test_coupled_heads_and_hidden_units_of_transformers_go(library: str) -> None:
    torch.manual_seed(0)
    model, x = transformer(library)
    before = sum(p.numel() for p in model.parameters())
    sp.prune(model.eval(), density=0.5, pattern="filter", couple=True, distribution="uniform")
    smaller = sp.compact(model, x)
    assert sum(p.numel() for p in smaller.parameters()) < 0.75 * before


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"pattern": "weight"}, "pattern is 'weight', but couple takes 'filter' only"),
        ({"distribution": "erk"}, "distribution is 'erk', but couple takes 'global' or 'uniform' only"),
        ({"layers": ["stem"]}, "leave out layers"),
        ({"density": None}, "density is None, but must be a number in"),
        ({"density": "0.5"}, "density is '0.5', but must be a number in"),
        ({"density": 0.01}, "keeps 0 of 14 coupled units, but each of 2 groups must keep one"),
    ],
)
def test_what_cannot_be_coupled_is_refused(fields: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        sp.prune(Added(), **{"density": 0.5, "pattern": "filter", "couple": True, **fields})


def test_coupled_units_that_are_gone_do_not_return() -> None:
    model = Added()
    sp.prune(model, density=0.3, pattern="filter", couple=True)
    with pytest.raises(ValueError, match=r"only 4 of 14 coupled units are left: give a lower one"):
        sp.prune(model, density=0.5, pattern="filter", couple=True)


@pytest.mark.parametrize("norm", [nn.utils.parametrizations.weight_norm, nn.utils.spectral_norm])
def test_layers_that_compute_their_weight_stay_whole_in_a_compact_copy(norm: Callable[[nn.Module], nn.Module]) -> None:
    layers = [norm(nn.Conv2d(3, 8, 3)), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.ReLU(), nn.Conv2d(8, 4, 3)]
    model = nn.Sequential(*layers).double().eval()
    sp.prune(model, density=0.5, pattern="filter", distribution="uniform", layers=["2"])
    smaller = sp.compact(model, images())
    assert [smaller[i].weight.shape[0] for i in (0, 2, 4)] == [8, 4, 4]
    torch.testing.assert_close(smaller(images()), model(images()))


def rectangular() -> nn.Module:
    layers = [nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 4, 3), nn.Flatten(), nn.Linear(4 * 6 * 36, 4)]
    return nn.Sequential(*layers)


def test_the_example_says_what_the_module_takes() -> None:
    model, x = rectangular(), torch.randn(2, 3, 10, 40)
    with pytest.raises(ValueError, match=r"no square image .*, or give example, a batch that it takes"):
        sp.prune(model, density=0.5, pattern="filter", couple=True)
    masks = sp.prune(model, density=0.5, pattern="filter", couple=True, distribution="uniform", example=x)
    assert [int(mask.flatten(1).any(1).sum()) for mask in masks.values()] == [4, 2, 4]
    smaller = sp.compact(model, x)
    assert [smaller[i].out_channels for i in (0, 2)] == [4, 2]
    torch.testing.assert_close(smaller(x), model.eval()(x), rtol=1e-4, atol=1e-5)
    for piece in (sp.compact, lambda m, e: sp.prune(m, density=0.5, pattern="filter", couple=True, example=e)):
        with pytest.raises(ValueError, match="example is a tuple, but must be a batch of the module's one input"):
            piece(rectangular(), (x, x))


@pytest.mark.parametrize("layer", [nn.Conv2d(3, 8, 3), nn.Linear(10, 8)])
def test_a_layer_alone_stays_whole_in_a_compact_copy(layer: nn.Module) -> None:
    sp.prune(layer, density=0.5)
    x = images().float()
    assert torch.equal(sp.compact(layer, x)(x), layer(x))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_compact_allows_for_the_rounding_of_the_outputs(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 16, 3), nn.ReLU(), nn.Conv2d(16, 4, 3)).to(dtype)
    with torch.no_grad():
        model[2].weight.mul_(1000)  # entries near zero lie beside others of hundreds
    sp.prune(model, density=0.5, pattern="filter", layers="0")
    assert sp.compact(model, images().to(dtype))[0].out_channels == 8


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e3])
def test_compact_compares_relative_to_the_largest_output(dtype: torch.dtype, scale: float) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(64, 200), nn.ReLU(), nn.Linear(200, 300), nn.ReLU(), nn.Linear(300, 50))
    with torch.no_grad():
        model[0].weight[:80] = 0
        model[2].weight[:100] = 0
        for tensor in model[4].parameters():
            tensor.mul_(scale)
    smaller = sp.compact(model.to(dtype), torch.randn(16, 64).to(dtype))
    assert smaller[0].out_features < 200
    assert smaller[2].out_features < 300
