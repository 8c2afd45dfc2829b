"""Masks hold in modules that read the weight of a layer without calling it, as attention does."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import prune as torch_prune

import trials.sparsity as sp

TOKENS = torch.randn(3, 5, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.attention(x, x, x, need_weights=False)[0]


class Reader(nn.Module):
    """Reads the weights of two layers, one of them two modules further down."""

    def __init__(self) -> None:
        super().__init__()
        self.one = nn.Linear(8, 8)
        self.rest = nn.Sequential(nn.Sequential(nn.ReLU(), nn.Linear(8, 4)))

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(F.linear(x, self.one.weight).relu(), self.rest[0][1].weight)


class Layers(nn.Sequential):
    """A container whose forward pass is its own."""

    def forward(self, x: Tensor) -> Tensor:
        for layer in self:
            x = F.linear(x, layer.weight, layer.bias).tanh()
        return x


def encoder() -> nn.Module:
    layer = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, batch_first=True)
    return nn.TransformerEncoder(layer, 2)


def swin() -> nn.Module:
    models = pytest.importorskip("torchvision", reason="torchvision is not installed").models
    shape = {"patch_size": [4, 4], "embed_dim": 16, "depths": [1, 1], "num_heads": [2, 2], "window_size": [2, 2]}
    net: nn.Module = models.SwinTransformer(**shape, stochastic_depth_prob=0.0, num_classes=5)
    return nn.Sequential(nn.Unflatten(1, (3, 32)), nn.Upsample((32, 32)), net)


READERS: dict[str, tuple[Callable[[], nn.Module], Tensor]] = {
    "attention": (Attention, TOKENS),
    "encoder": (encoder, TOKENS),
    "reader": (Reader, TOKENS),
    "container": (lambda: Layers(nn.Linear(8, 8), nn.Linear(8, 8)), TOKENS),
    "swin": (swin, torch.randn(2, 96, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)),
}


def train(model: nn.Module, x: Tensor, after: Callable[[], None] = lambda: None) -> None:
    sgd = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    for _ in range(3):
        sgd.zero_grad()
        model(x).square().mean().backward()
        sgd.step()
        after()


@pytest.mark.parametrize("kind", READERS)
def test_training_is_that_of_a_network_whose_weights_are_masked_by_hand(kind: str) -> None:
    make, x = READERS[kind]
    torch.manual_seed(1)
    model = make().double()
    reference = copy.deepcopy(model)
    masks = sp.prune(model, density=0.5)

    def apply() -> None:
        with torch.no_grad():
            for name, mask in masks.items():
                reference.get_parameter(name).mul_(mask)

    apply()
    train(model, x)
    train(reference, x, apply)
    for training in (True, False):  # attention has a path of its own in evaluation
        with torch.no_grad():
            expected = reference.train(training)(x)
            torch.testing.assert_close(model.train(training)(x), expected, rtol=1e-9, atol=1e-12)
    sp.make_permanent(model)
    torch.testing.assert_close(model(x), expected, rtol=1e-9, atol=1e-12)
    assert not any(module._forward_pre_hooks for module in model.modules())


def test_copies_keep_to_the_masks() -> None:
    torch.manual_seed(1)
    model = encoder().double()
    masks = sp.prune(model, density=0.5)
    train(model, TOKENS)
    with torch.no_grad():
        model(TOKENS)
    for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        train(other, TOKENS)
        for name, mask in masks.items():
            assert not other.get_submodule(name.removesuffix(".weight")).weight[~mask].any()
    loaded = encoder().double()
    sp.prune(loaded, density=0.9)
    loaded.load_state_dict(model.state_dict())
    torch.testing.assert_close(loaded(TOKENS), model(TOKENS))


def test_masks_that_torch_made_are_renewed_too() -> None:
    model = Attention().double()
    torch_prune.l1_unstructured(model.attention.out_proj, "weight", amount=0.5)
    sp.prune(model, density=0.25)
    train(model, TOKENS)
    model(TOKENS)
    out = model.attention.out_proj
    assert torch.equal(out.weight, out.weight_orig * out.weight_mask)
    assert sp.density(model) == 0.25


def test_plain_containers_and_repeated_calls_add_no_hooks() -> None:
    model = nn.Sequential(nn.Sequential(nn.Linear(8, 8)), nn.ModuleList([nn.Linear(8, 8)]))
    sp.prune(model, density=0.5)
    assert [type(module) for module in model.modules() if module._forward_pre_hooks] == [nn.Linear, nn.Linear]
    model = Attention()
    for density in (0.8, 0.6, 0.4):
        sp.prune(model, density=density)
    assert [len(module._forward_pre_hooks) for module in model.modules()] == [1, 1, 1]


def test_a_new_mask_replaces_the_last_and_adds_nothing_to_the_model() -> None:
    model = nn.Linear(64, 64)
    sp.prune(model, density=0.9)
    once = len(pickle.dumps(model))
    for density in (0.8, 0.6, 0.4, 0.2):
        masks = sp.prune(model, density=density)
    assert len(pickle.dumps(model)) <= once + 100
    assert torch.equal(model.weight, model.weight_orig * masks["weight"])
    torch_prune.l1_unstructured(model, "weight", amount=100)
    assert int(model.weight_mask.sum()) == int(masks["weight"].sum()) - 100
