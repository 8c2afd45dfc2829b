"""DenseNet-121 for small images: a 3x3 stem without pool, four dense blocks, growth rate 32.

Huang et al., Densely Connected Convolutional Networks, arXiv 1608.06993, DenseNet-BC, in the form that the
bidirectional pruning-regrowth work (arXiv 2511.11675) trains on CIFAR-10. Every layer of a block reads all maps before
it in the block: BN, ReLU, 1x1 convolution to 128 maps, BN, ReLU, 3x3 convolution to 32. No convolution has a bias.
Initial values are torch's defaults. With 10 classes and 3 channels: 6,956,298 parameters, 6,872,768 of them conv and
linear weights. Made for 32x32 images, but accepts any size.
"""

from __future__ import annotations

from collections import OrderedDict
from functools import partial

import torch
from torch import Tensor, nn

GROWTH = 32
BOTTLENECK = 4


class DenseLayer(nn.Module):
    """[N, planes, H, W] -> [N, GROWTH + planes, H, W]: new maps before those that it read."""

    def __init__(self, planes: int) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(planes)
        self.conv1 = nn.Conv2d(planes, BOTTLENECK * GROWTH, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(BOTTLENECK * GROWTH)
        self.conv2 = nn.Conv2d(BOTTLENECK * GROWTH, GROWTH, 3, padding=1, bias=False)
        self.relu = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        new = self.conv1(self.relu(self.bn1(x)))
        new = self.conv2(self.relu(self.bn2(new)))
        return torch.cat([new, x], 1)


def transition(planes: int) -> nn.Sequential:
    """[N, planes, H, W] -> [N, planes / 2, H/2, W/2]."""
    layers = OrderedDict[str, nn.Module](
        bn=nn.BatchNorm2d(planes), relu=nn.ReLU(), conv=nn.Conv2d(planes, planes // 2, 1, bias=False)
    )
    return nn.Sequential(layers | {"pool": nn.AvgPool2d(2, ceil_mode=True)})


def densenet(depths: tuple[int, ...], *, num_classes: int, in_channels: int) -> nn.Sequential:
    """Build the stem, a dense block per depth with transitions between them, BN, ReLU, global pool and ``linear``."""
    planes = 2 * GROWTH
    layers = OrderedDict[str, nn.Module](conv1=nn.Conv2d(in_channels, planes, 3, padding=1, bias=False))
    for number, depth in enumerate(depths, start=1):
        layers[f"dense{number}"] = nn.Sequential(*(DenseLayer(planes + i * GROWTH) for i in range(depth)))
        planes += depth * GROWTH
        if number < len(depths):
            layers[f"trans{number}"] = transition(planes)
            planes //= 2
    layers |= {"bn": nn.BatchNorm2d(planes), "relu": nn.ReLU(), "pool": nn.AdaptiveAvgPool2d(1)}
    layers |= {"flatten": nn.Flatten(), "linear": nn.Linear(planes, num_classes)}
    return nn.Sequential(layers)  # [N, in_channels, H, W] -> [N, num_classes]


BUILDERS = {"densenet121": partial(densenet, (6, 12, 24, 16))}
