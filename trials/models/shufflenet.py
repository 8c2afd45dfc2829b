"""ShuffleNetV2 at twice the width, for small images: a 3x3 stem without pool, three stages, a 1x1 convolution to 2048.

Ma et al., ShuffleNet V2, arXiv 1807.11164, in the form that the bidirectional pruning-regrowth work (arXiv 2511.11675)
trains on CIFAR-10. No convolution has a bias. Initial values are torch's defaults. With 10 classes and 3 channels:
5,338,026 parameters, 5,304,600 of them conv and linear weights. Made for 32x32 images, but accepts any size.

In a block half of the maps pass unchanged; the maps of both halves are then interleaved.
"""

from __future__ import annotations

from collections import OrderedDict

import torch
from torch import Tensor, nn

_STAGES = ((224, 3), (488, 7), (976, 3))
"""Planes of a stage, and its blocks beside the first one, which halves the image."""

_STEM, _HEAD = 24, 2048


def interleaved(a: Tensor, b: Tensor) -> Tensor:
    """Return the maps of ``a`` and ``b`` [N, C, H, W] in turn, [N, 2C, H, W]."""
    return torch.stack([a, b], 2).flatten(1, 2)


def _convolutions(planes: int, middle: int, out: int, stride: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(planes, middle, 1, bias=False),
        nn.BatchNorm2d(middle),
        nn.ReLU(),
        nn.Conv2d(middle, middle, 3, stride=stride, padding=1, groups=middle, bias=False),
        nn.BatchNorm2d(middle),
        nn.Conv2d(middle, out, 1, bias=False),
        nn.BatchNorm2d(out),
        nn.ReLU(),
    )


class SplitBlock(nn.Module):
    """[N, C, H, W] -> the same shape: the first half of the maps passes, the second is convolved."""

    def __init__(self, planes: int) -> None:
        super().__init__()
        self.passing = planes // 2
        self.right = _convolutions(self.passing, self.passing, self.passing, 1)

    def forward(self, x: Tensor) -> Tensor:
        return interleaved(x[:, : self.passing], self.right(x[:, self.passing :]))


class DownBlock(nn.Module):
    """[N, planes, H, W] -> [N, out, H/2, W/2]: both branches read all maps and give half of the new ones."""

    def __init__(self, planes: int, out: int) -> None:
        super().__init__()
        self.left = nn.Sequential(
            nn.Conv2d(planes, planes, 3, stride=2, padding=1, groups=planes, bias=False),
            nn.BatchNorm2d(planes),
            nn.Conv2d(planes, out // 2, 1, bias=False),
            nn.BatchNorm2d(out // 2),
            nn.ReLU(),
        )
        self.right = _convolutions(planes, out // 2, out // 2, 2)

    def forward(self, x: Tensor) -> Tensor:
        return interleaved(self.left(x), self.right(x))


def shufflenetv2(*, num_classes: int, in_channels: int) -> nn.Sequential:
    """Build the stem, three stages, the 1x1 convolution, global pool and ``linear``."""
    layers = OrderedDict[str, nn.Module](
        conv1=nn.Conv2d(in_channels, _STEM, 3, padding=1, bias=False), bn1=nn.BatchNorm2d(_STEM), relu1=nn.ReLU()
    )
    planes = _STEM
    for number, (out, blocks) in enumerate(_STAGES, start=1):
        layers[f"layer{number}"] = nn.Sequential(DownBlock(planes, out), *(SplitBlock(out) for _ in range(blocks)))
        planes = out
    layers |= {"conv2": nn.Conv2d(planes, _HEAD, 1, bias=False), "bn2": nn.BatchNorm2d(_HEAD), "relu2": nn.ReLU()}
    layers |= {"pool": nn.AdaptiveAvgPool2d(1), "flatten": nn.Flatten(), "linear": nn.Linear(_HEAD, num_classes)}
    return nn.Sequential(layers)  # [N, in_channels, H, W] -> [N, num_classes]


BUILDERS = {"shufflenetv2": shufflenetv2}
