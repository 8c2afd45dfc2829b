"""Networks of kinds that people bring, on which a method must either be refused by its check or train."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn
from torch.nn import functional as F


class TiedNetwork(nn.Module):
    """Two convolutions with one weight, and a linear head."""

    def __init__(self, num_classes: int, in_channels: int) -> None:
        super().__init__()
        self.stem = nn.Conv2d(in_channels, 8, 3, padding=1)
        self.one = nn.Conv2d(8, 8, 3, padding=1)
        self.other = nn.Conv2d(8, 8, 3, padding=1)
        self.other.weight = self.one.weight
        self.head = nn.Linear(8, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.other(F.relu(self.one(F.relu(self.stem(x))))))
        logits: Tensor = self.head(x.mean((2, 3)))
        return logits


class RepeatedNetwork(nn.Module):
    """One convolution applied three times."""

    def __init__(self, num_classes: int, in_channels: int) -> None:
        super().__init__()
        self.stem = nn.Conv2d(in_channels, 8, 3, padding=1)
        self.again = nn.Conv2d(8, 8, 3, padding=1)
        self.head = nn.Linear(8, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for _ in range(3):
            x = F.relu(self.again(x))
        logits: Tensor = self.head(x.mean((2, 3)))
        return logits


def depthwise_network(*, num_classes: int, in_channels: int) -> nn.Sequential:
    """A stem, a depthwise convolution and a pointwise one, with BN."""
    return nn.Sequential(
        *(nn.Conv2d(in_channels, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16), nn.ReLU()),
        *(nn.Conv2d(16, 16, 3, padding=1, groups=16, bias=False), nn.BatchNorm2d(16), nn.ReLU()),
        *(nn.Conv2d(16, 24, 1, bias=False), nn.BatchNorm2d(24), nn.ReLU()),
        *(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(24, num_classes)),
    )


def linear_network(*, num_classes: int, in_channels: int) -> nn.Sequential:
    """Linear layers only."""
    return nn.Sequential(
        *(nn.AdaptiveAvgPool2d(4), nn.Flatten(), nn.Linear(16 * in_channels, 24), nn.ReLU()),
        nn.Linear(24, num_classes),
    )


def dropout_network(*, num_classes: int, in_channels: int) -> nn.Sequential:
    """Dropout, whose draws decide every step."""
    return nn.Sequential(
        *(nn.Conv2d(in_channels, 8, 3, padding=1), nn.ReLU(), nn.Dropout2d(0.2)),
        *(nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Dropout(0.5), nn.Linear(32, num_classes)),
    )


ODD_NETWORKS: dict[str, Callable[..., nn.Module]] = {
    "two layers with one weight": TiedNetwork,
    "a layer that is applied three times": RepeatedNetwork,
    "a depthwise convolution": depthwise_network,
    "linear layers only": linear_network,
    "dropout": dropout_network,
}
"""Builders, by what is odd of the networks."""
