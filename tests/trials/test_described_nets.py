"""Descriptions of nets in manifests: every form of the same layer gives the same layer, and unknown ones are named."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from tests.trials.described_nets import module_of, sequential


@pytest.mark.parametrize(
    "described",
    [
        "c: Conv2d(4,6,k3x5,pad1x2,stride2x1,dilation1,groups2,no bias) - 180 weights",
        "c: conv2d(4, 6, k(3,5), pad (1, 2), stride=(2,1), groups=2, bias=False)",
        "c: Conv2d(4,6,(3,5),(2,1),(1,2),groups 2,without bias)",
        {"name": "c", "type": "masked conv2d", "in_channels": 4, "out_channels": 6, "kernel": [3, 5], "stride": [2, 1],
         "padding": [1, 2], "groups": 2, "bias": False},
        {"name": "c", "type": "conv2d", "in_channels": 4, "out_channels": 6, "kernel": "3x5", "stride": "2x1",
         "padding": "1x2", "dilation": None, "groups": 2, "bias": 0},
    ],
)  # fmt: skip
def test_a_convolution(described: Any) -> None:
    ((name, layer),) = sequential([described]).named_children()
    expected = nn.Conv2d(4, 6, (3, 5), (2, 1), (1, 2), groups=2, bias=False)
    assert (name, repr(layer)) == ("c", repr(expected))


def test_a_bias_that_is_not_mentioned_is_one_that_is_recorded() -> None:
    lines = ["a: Conv2d(1,2,k3)", "b: Linear(2,3)", "c: Linear(3,3,no bias)", "d: Linear(3,3,bias)"]
    recorded = ["a.weight", "b.weight", "b.bias", "c.weight", "d.weight"]
    assert [layer.bias is not None for layer in sequential(lines, recorded)] == [False, True, False, True]
    assert [layer.bias is not None for layer in sequential(lines)] == [True, True, False, True]


def test_everything_else() -> None:
    lines = ["c: Conv2d(3,4,k3,padsame)", "bn1 (only if batchnorm)", "relu", "max_pool2d(2)", "n: BatchNorm2d(4)"]
    lines += ["LeakyReLU(0.2)", "avg_pool2d(2)", "adaptive_avg_pool2d to 1x3, flatten (C,H,W order) -> 12", "GELU"]
    net = sequential(lines)
    assert [name for name, _ in net.named_parameters()] == [
        "c.weight",
        "c.bias",
        "bn1.weight",
        "bn1.bias",
        "n.weight",
        "n.bias",
    ]
    assert net(torch.zeros(2, 3, 12, 12)).shape == (2, 12)
    assert "bn1" not in dict(sequential(lines, batchnorm=False).named_children())
    assert sequential(["global average pool"])(torch.ones(2, 5, 3, 4)).tolist() == [[1.0] * 5] * 2
    assert sequential(["adaptive_avg_pool2d(2,3)", "flatten"])(torch.zeros(1, 2, 6, 6)).shape == (1, 12)
    assert repr(module_of("a single Conv2d(3,4,k3,pad1), no more")) == repr(nn.Conv2d(3, 4, 3, padding=1))


@pytest.mark.parametrize("line", ["x: Attention(4,4)", "swiglu"])
def test_an_unknown_layer_is_named(line: str) -> None:
    with pytest.raises(
        ValueError, match=f"no layer is described by '{line.split('(')[0].split(': ')[-1]}': tests know "
    ):
        sequential([line])
