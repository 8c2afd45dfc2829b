"""Numbers of channels, stored values and attributes that a forward pass uses: followed, or the layer stays whole."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tests.trials.compact.cutting import mask_rows, mask_units
from tests.trials.compact.random_nets import lively
from tests.trials.compact.test_odd_nets import IMAGES, Written, conv
from trials.compact import dependencies, simplify, units_of

Forward = Callable[[Any, Tensor], Tensor]


class Scale(nn.Module):
    """Multiplies channels by a stored vector."""

    def __init__(self, gamma: nn.Parameter) -> None:
        super().__init__()
        self.gamma = gamma

    def forward(self, x: Tensor) -> Tensor:
        return x * self.gamma.view(1, -1, 1, 1)


class NormAndActivation(nn.BatchNorm2d):
    """A batch norm with a forward pass of its own, as timm's BatchNormAct2d."""

    def forward(self, x: Tensor) -> Tensor:
        mean, var = self.running_mean, self.running_var
        x = F.batch_norm(x, mean, var, self.weight, self.bias, self.training, 0.1, self.eps)
        return F.relu(x)


class Moved(NormAndActivation):
    """A batch norm whose forward pass takes its parts otherwise."""

    def forward(self, x: Tensor) -> Tensor:
        return F.batch_norm(x, self.running_mean, self.running_var, self.weight + 1, self.bias, False, 0.1, self.eps)


def net(forward: Forward) -> nn.Module:
    gamma = nn.Parameter(torch.ones(8))
    layers = {"stem": conv(3, 8, 3), "other": conv(3, 8, 3), "one": conv(8, 8), "big": conv(8, 16), "wide": conv(16, 8)}
    ends = {"last": conv(8, 8, 3), "head": nn.Linear(8, 4), "tokens": nn.Linear(8, 8), "qkv": nn.Linear(8, 24)}
    norms = {"bn": nn.BatchNorm2d(8), "bn2": nn.BatchNorm2d(8), "own": NormAndActivation(8), "moved": Moved(8)}
    more = {"a": Scale(gamma), "b": Scale(gamma), "prelu": nn.PReLU(8), "leaky": nn.LeakyReLU()}
    made = Written(forward, **layers, **ends, **norms, **more)
    made.bn2.weight = made.bn.weight
    made.shift, made.token = nn.Parameter(torch.ones(1, 8, 1, 1)), nn.Parameter(torch.ones(8))
    made.scalar, made.table = nn.Parameter(torch.ones(1)), nn.Parameter(torch.ones(1, 2, 36, 36))
    made.num_heads, made.channels = 2, 8
    return lively(made)


def end(net: Any, x: Tensor) -> Tensor:
    return net.head(F.relu(net.last(x)).mean((2, 3)))


def attention(count: Callable[[Any], int], mask: bool = False, scaled: bool = False) -> Forward:
    """Attention over the pixels, with a number of heads that is taken from ``count``."""

    def forward(net: Any, x: Tensor) -> Tensor:
        x = net.stem(x).flatten(2).transpose(1, 2)
        n, length, _ = x.shape
        parts = net.qkv(x).chunk(3, -1)
        three = [parts[i].view(n, length, count(net), -1).transpose(1, 2) for i in range(3)]
        mixed = F.scaled_dot_product_attention(*three, attn_mask=net.table if mask else None)
        x = F.relu(net.tokens(mixed.transpose(1, 2).flatten(2))).mean(1)
        return net.head(x / count(net) if scaled else x)

    return forward


def padded(net: Any, x: Tensor) -> Tensor:
    x = F.relu(net.stem(x))
    return end(net, net.wide(net.big(x) + F.pad(x, (0, 0, 0, 0, x.shape[1] // 2, x.shape[1] // 2))))


def told(net: Any, x: Tensor) -> Tensor:
    x = net.stem(x)
    torch._assert(x.shape[1] == 8, "eight channels")
    return end(net, x)


def sliced(net: Any, x: Tensor) -> Tensor:
    return end(net, net.one(net.big(net.other(x))[:, : net.stem(x).shape[1]]))


def summed(net: Any, x: Tensor) -> Tensor:
    one, other = net.stem(x), net.other(x)
    x = net.big(F.relu(one)).view(one.shape[0], one.shape[1] + other.shape[1], 6, 6)
    return end(net, net.wide(F.relu(x))) + other.mean((1, 2, 3)).view(-1, 1)


def rounded(net: Any, x: Tensor) -> Tensor:
    x = F.relu(net.stem(x))
    return end(net, net.one(x.view(x.shape[0], x.shape[1] // 4 * 4, 6, 6)))


def token(net: Any, x: Tensor) -> Tensor:
    x = net.stem(x).flatten(2)
    x = torch.cat([net.token.view(1, -1, 1).expand(x.shape[0], -1, -1), x], 2)
    return net.head(F.relu(net.tokens(x.transpose(1, 2))).mean(1))


STAYS: dict[str, tuple[Forward, str]] = {
    "divided by their number": (lambda net, x: end(net, (y := net.stem(x)) / y.shape[1]), "takes their number"),
    "times a power of it": (lambda net, x: end(net, (y := net.stem(x)) * y.shape[1] ** -0.5), "takes their number"),
    "compared with it": (told, "takes their number"),
    "padded by it": (padded, "takes their number"),
    "a slice by that of others": (sliced, "takes their number"),
    "viewed as a sum of two": (summed, "takes their number"),
    "rounded to fours": (rounded, "computed from that of others"),
    "a stored offset": (lambda net, x: end(net, net.stem(x) + net.shift), "does not map 0 to 0"),
    "subtracted from an offset": (lambda net, x: end(net, net.shift - net.stem(x)), "does not map 0 to 0"),
    "a stored token beside them": (token, "does not map 0 to 0"),
    "a scalar added": (lambda net, x: end(net, net.stem(x) + net.scalar), "does not map 0 to 0"),
    "clamped above zero": (lambda net, x: end(net, net.stem(x).clamp(min=0.3)), "does not map 0 to 0"),
    "two scales of one vector": (lambda net, x: end(net, net.b(net.one(net.a(net.stem(x))))), "share their gamma"),
    "two norms of one scale": (lambda net, x: end(net, net.bn2(net.one(net.bn(net.stem(x))))), "share their weight"),
    "a norm of other parts": (lambda net, x: end(net, net.moved(net.stem(x))), "batch_norm"),
    "a sum by keywords": (lambda net, x: end(net, torch.add(input=net.stem(x), other=net.other(x))), "a sum"),
}
"""What keeps the stem's filters from going alone, with the reason."""

HEADS: dict[str, tuple[Forward, bool]] = {
    "by an attribute": (attention(lambda net: net.num_heads), True),
    "written out": (attention(lambda net: 2), False),
    "used for more": (attention(lambda net: net.num_heads, scaled=True), False),
    "with a table for each": (attention(lambda net: net.num_heads, mask=True), False),
}
"""Numbers of heads, and whether heads can go."""

GOES: dict[str, Forward] = {
    "a stored scale": lambda net, x: end(net, net.stem(x) * net.shift),
    "a scalar times them": lambda net, x: end(net, net.stem(x) * net.scalar),
    "slopes": lambda net, x: end(net, net.prelu(net.stem(x))),
    "a leaky module": lambda net, x: end(net, net.leaky(net.stem(x))),
    "clamped": lambda net, x: end(net, net.stem(x).clamp(-0.1, 0.4)),
    "a norm with a forward pass of its own": lambda net, x: end(net, net.own(net.stem(x))),
    "the same dimension by an attribute": lambda net, x: end(net, net.stem(x).view(x.shape[0], net.channels, 6, 6)),
}
"""What lets the stem's filters go."""

FORWARDS = {**{k: v[0] for k, v in STAYS.items()}, **{k: v[0] for k, v in HEADS.items()}, **GOES}


@pytest.mark.parametrize("name", FORWARDS)
def test_the_compact_form_computes_the_same(name: str) -> None:
    whole = net(FORWARDS[name])
    for seed in range(4):
        model = copy.deepcopy(whole)
        mask_units(model, seed)
        if seed % 2:
            mask_rows(model, seed)
        with torch.no_grad():
            expected = model(IMAGES)
            assert expected.std() > 1e-9
            simplify(model)
            torch.testing.assert_close(model(IMAGES), expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", STAYS)
def test_what_stays_says_why(name: str) -> None:
    assert STAYS[name][1] in dependencies(net(STAYS[name][0]))["stem.weight"].pinned


@pytest.mark.parametrize("name", GOES)
def test_what_can_go_is_found(name: str) -> None:
    assert not dependencies(net(GOES[name]))["stem.weight"].pinned


@pytest.mark.parametrize("name", HEADS)
def test_heads_go_if_their_number_follows(name: str) -> None:
    model = net(HEADS[name][0])
    assert ("qkv.weight" not in units_of(model).fixed) == HEADS[name][1]
    assert model.num_heads == 2


def test_an_image_that_is_too_large_takes_little_memory() -> None:
    """Attention over the pixels of 320 x 320 images, which is tried first here, has 20 billion scores for two heads."""
    model = net(attention(lambda net: net.num_heads, mask=True))
    model.image_size = 320
    assert "scaled_dot_product_attention" in units_of(model).fixed["qkv.weight"]
