"""GoogLeNet for small images: nine inception blocks with BN, no auxiliary heads.

Szegedy et al., Going Deeper with Convolutions, arXiv 1409.4842, in the form that the bidirectional pruning-regrowth
work (arXiv 2511.11675) trains on CIFAR-10: a 3x3 stem without pool, and two 3x3 convolutions in place of each 5x5. All
convolutions have a bias, and BN and ReLU after them. Initial values are torch's defaults. With 10 classes and 3
channels: 6,166,250 parameters, 6,142,528 of them conv and linear weights. Made for 32x32 images, but accepts any size.
"""

from __future__ import annotations

from collections import OrderedDict

import torch
from torch import Tensor, nn

BLOCKS: tuple[tuple[str, tuple[int, int, int, int, int, int]], ...] = (
    ("a3", (64, 96, 128, 16, 32, 32)),
    ("b3", (128, 128, 192, 32, 96, 64)),
    ("a4", (192, 96, 208, 16, 48, 64)),
    ("b4", (160, 112, 224, 24, 64, 64)),
    ("c4", (128, 128, 256, 24, 64, 64)),
    ("d4", (112, 144, 288, 32, 64, 64)),
    ("e4", (256, 160, 320, 32, 128, 128)),
    ("a5", (256, 160, 320, 32, 128, 128)),
    ("b5", (384, 192, 384, 48, 128, 128)),
)
"""Names and planes: 1x1; 1x1 and 3x3; 1x1 and twice 3x3; 1x1 after a pool. Each new number begins with a max-pool."""


def _unit(planes: int, out: int, kernel: int) -> list[nn.Module]:
    return [nn.Conv2d(planes, out, kernel, padding=kernel // 2), nn.BatchNorm2d(out), nn.ReLU()]


class Inception(nn.Module):
    """Four branches on the same maps, concatenated: ``b1`` to ``b4``."""

    def __init__(self, planes: int, widths: tuple[int, int, int, int, int, int]) -> None:
        super().__init__()
        one, reduce3, three, reduce5, five, pooled = widths
        self.b1 = nn.Sequential(*_unit(planes, one, 1))
        self.b2 = nn.Sequential(*_unit(planes, reduce3, 1), *_unit(reduce3, three, 3))
        self.b3 = nn.Sequential(*_unit(planes, reduce5, 1), *_unit(reduce5, five, 3), *_unit(five, five, 3))
        self.b4 = nn.Sequential(nn.MaxPool2d(3, stride=1, padding=1), *_unit(planes, pooled, 1))
        self.planes = one + three + five + pooled

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([self.b1(x), self.b2(x), self.b3(x), self.b4(x)], 1)


def googlenet(*, num_classes: int, in_channels: int) -> nn.Sequential:
    """Build the stem, the blocks with two max-pools between them, global pool and ``linear``."""
    planes = 192
    layers = OrderedDict[str, nn.Module](pre_layers=nn.Sequential(*_unit(in_channels, planes, 3)))
    for name, widths in BLOCKS:
        if name in ("a4", "a5"):
            layers[f"pool{name[1]}"] = nn.MaxPool2d(3, stride=2, padding=1)
        block = Inception(planes, widths)
        layers[name], planes = block, block.planes
    layers |= {"pool": nn.AdaptiveAvgPool2d(1), "flatten": nn.Flatten(), "linear": nn.Linear(planes, num_classes)}
    return nn.Sequential(layers)  # [N, in_channels, H, W] -> [N, num_classes]


BUILDERS = {"googlenet": googlenet}
