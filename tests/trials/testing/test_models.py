"""check_model lets sound networks pass, and catches each way to break the contract."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from trials.testing import check_model

SHAPE = (1, 8, 8)


class Sound(nn.Module):
    """A network of one block; broken ones derive from it."""

    def __init__(self, num_classes: int, in_channels: int) -> None:
        super().__init__()
        self.stem = nn.Conv2d(in_channels, 8, 3, padding=1)
        self.norm = nn.BatchNorm2d(8)
        self.conv = nn.Conv2d(8, 8, 3, padding=1)
        self.head = nn.Linear(8, num_classes)

    def features(self, x: Tensor) -> Tensor:
        return F.relu(self.conv(F.relu(self.norm(self.stem(x)))))

    def forward(self, x: Tensor) -> Any:
        return self.head(self.features(x).mean((2, 3)))


@pytest.mark.parametrize("model", [Sound, "tiny"])
def test_a_sound_network_passes(model: type[nn.Module] | str) -> None:
    check_model(model, image_shape=SHAPE)


class UnusedLayer(Sound):
    def __init__(self, num_classes: int, in_channels: int) -> None:
        super().__init__(num_classes, in_channels)
        self.spare = nn.Conv2d(8, 8, 1)


class UnusedParameter(Sound):
    def __init__(self, num_classes: int, in_channels: int) -> None:
        super().__init__(num_classes, in_channels)
        self.scale = nn.Parameter(torch.ones(8))


class OwnDraws(Sound):
    def __init__(self, num_classes: int, in_channels: int) -> None:
        super().__init__(num_classes, in_channels)
        with torch.no_grad():
            self.head.bias.fill_(float(np.random.rand()))


class SetValues(Sound):
    def __init__(self, num_classes: int, in_channels: int) -> None:
        super().__init__(num_classes, in_channels)
        for parameter in self.parameters():
            nn.init.constant_(parameter, 0.1)


class ReadsValues(Sound):
    def __init__(self, num_classes: int, in_channels: int) -> None:
        super().__init__(num_classes, in_channels)
        self.scale = float(self.stem.weight.detach().abs().mean())


class OtherArguments(Sound):
    def __init__(self, classes: int) -> None:
        super().__init__(classes, 1)


class OneOutputMore(Sound):
    def __init__(self, num_classes: int, in_channels: int) -> None:
        super().__init__(num_classes + 1, in_channels)


class Views(Sound):
    def forward(self, x: Tensor) -> Any:
        x = self.features(x)
        return self.head(x.view(x.shape[0], -1).reshape(x.shape).mean((2, 3)))


class AlwaysDrops(Sound):
    def forward(self, x: Tensor) -> Any:
        return self.head(F.dropout(self.features(x).mean((2, 3)), 0.5))


class Centres(Sound):
    def forward(self, x: Tensor) -> Any:
        x = self.features(x).mean((2, 3))
        return self.head(x - x.mean(0))


class Counts(Sound):
    passes = 0

    def forward(self, x: Tensor) -> Any:
        if self.training:
            self.passes += 1
        return super().forward(x) * (1.0 if not self.training else 1.0 + 0.1 * self.passes)


class DrawsPython(Sound):
    def forward(self, x: Tensor) -> Any:
        return super().forward(x) * (1.0 if not self.training else random.random())


class Branches(Sound):
    def forward(self, x: Tensor) -> Any:
        x = self.features(x)
        if float(x.detach().mean()) > 1e9:
            x = -x
        return self.head(x.mean((2, 3)))


BROKEN: dict[Callable[..., nn.Module], str] = {
    UnusedLayer: "never calls spare",
    UnusedParameter: "parameters that no output depends on in training: scale",
    OwnDraws: "two networks of one seed differ",
    SetValues: "two networks of different seeds are equal",
    ReadsValues: "must be built on the meta device too",
    OtherArguments: "must be called with num_classes and in_channels",
    OneOutputMore: "must make \\[2, 4\\]",
    Views: "channels_last: use reshape or flatten, not view",
    AlwaysDrops: "must compute the same twice in evaluation mode",
    Centres: "from that image alone",
    Counts: "keep all state in parameters and buffers",
    DrawsPython: "must train to the same bits in every process",
    Branches: "must have a forward pass that can be traced",
}


@pytest.mark.parametrize("model", BROKEN)
def test_a_broken_network_is_caught(model: Callable[..., nn.Module]) -> None:
    with pytest.raises(AssertionError, match=BROKEN[model]):
        check_model(model, image_shape=SHAPE)


def test_a_network_may_branch_if_it_shall_not_be_made_smaller() -> None:
    check_model(Branches, image_shape=SHAPE, compacts=False)


def test_what_is_no_network_is_said() -> None:
    with pytest.raises(AssertionError, match=r"must return an nn\.Module"):
        check_model(lambda num_classes, in_channels: "net", image_shape=SHAPE)  # type: ignore[arg-type, return-value]
