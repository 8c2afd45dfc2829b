"""EfficientNet-B0 for small images: a 3x3 stem of stride 1, 16 inverted residuals with squeeze-and-excitation.

Tan and Le, EfficientNet, arXiv 1905.11946, in the form that the bidirectional pruning-regrowth work (arXiv 2511.11675)
trains on CIFAR-10: SiLU, a block's output dropped as a whole (``DropConnect``) with a probability that rises with the
depth to almost 0.2, and the head Linear(320, classes) without the 1x1 convolution to 1280. Initial values are torch's
defaults. With 10 classes and 3 channels: 3,598,598 parameters, 3,549,792 of them conv and linear weights. The released
net has 1,024 more weights in a 1x1 convolution of its first block that no forward pass calls. Made for 32x32 images,
but accepts any size.
"""

from __future__ import annotations

from collections import OrderedDict

import torch
from torch import Tensor, nn

_STEM = 32
BLOCKS_OF = (  # expansion, planes, blocks, kernel, stride
    (1, 16, 1, 3, 1),
    (6, 24, 2, 3, 2),
    (6, 40, 2, 5, 2),
    (6, 80, 3, 3, 2),
    (6, 112, 3, 5, 1),
    (6, 192, 4, 5, 2),
    (6, 320, 1, 3, 1),
)
DROPOUT = DROP_CONNECT = 0.2


class SqueezeExcitation(nn.Module):
    """Scale every map by a gate in (0, 1) that reads the maps' means."""

    def __init__(self, planes: int, squeezed: int) -> None:
        super().__init__()
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.se1 = nn.Conv2d(planes, squeezed, 1)
        self.silu = nn.SiLU()
        self.se2 = nn.Conv2d(squeezed, planes, 1)
        self.gate = nn.Sigmoid()

    def forward(self, x: Tensor) -> Tensor:
        gate: Tensor = self.gate(self.se2(self.silu(self.se1(self.pool(x)))))
        return x * gate


class DropConnect(nn.Dropout):
    """Drop a sample's maps as a whole with probability ``p``, and scale the others by 1 / (1 - p)."""

    def forward(self, x: Tensor) -> Tensor:
        return x * super().forward(torch.ones_like(x[:, :1, :1, :1]))


class InvertedResidual(nn.Module):
    """1x1 expansion (unless it is 1), depthwise convolution, squeeze-and-excitation, 1x1 projection, sum."""

    def __init__(self, planes: int, out: int, expansion: int, kernel: int, stride: int, drop: float) -> None:
        super().__init__()
        wide = expansion * planes
        layers = OrderedDict[str, nn.Module]()
        if expansion > 1:
            layers |= {"conv1": nn.Conv2d(planes, wide, 1, bias=False), "bn1": nn.BatchNorm2d(wide)}
            layers |= {"silu1": nn.SiLU()}
        depthwise = nn.Conv2d(wide, wide, kernel, stride, padding=kernel // 2, groups=wide, bias=False)
        layers |= {"conv2": depthwise, "bn2": nn.BatchNorm2d(wide), "silu2": nn.SiLU()}
        layers |= {"se": SqueezeExcitation(wide, planes // 4)}
        layers |= {"conv3": nn.Conv2d(wide, out, 1, bias=False), "bn3": nn.BatchNorm2d(out)}
        self.adds = stride == 1 and planes == out
        if self.adds and drop:
            layers["drop"] = DropConnect(drop)
        self.layers = nn.Sequential(layers)

    def forward(self, x: Tensor) -> Tensor:
        new: Tensor = self.layers(x)
        return new + x if self.adds else new


def efficientnet_b0(*, num_classes: int, in_channels: int) -> nn.Sequential:
    """Build the stem, the blocks, global pool, dropout and ``linear``."""
    layers = OrderedDict[str, nn.Module](
        conv1=nn.Conv2d(in_channels, _STEM, 3, padding=1, bias=False), bn1=nn.BatchNorm2d(_STEM), silu1=nn.SiLU()
    )
    planes, number, all_blocks = _STEM, 0, sum(blocks for _, _, blocks, _, _ in BLOCKS_OF)
    body = nn.Sequential()
    for expansion, out, blocks, kernel, stride in BLOCKS_OF:
        for index in range(blocks):
            drop = DROP_CONNECT * number / all_blocks
            body.append(InvertedResidual(planes, out, expansion, kernel, 1 if index else stride, drop))
            planes, number = out, number + 1
    layers |= {"layers": body, "pool": nn.AdaptiveAvgPool2d(1), "flatten": nn.Flatten()}
    layers |= {"dropout": nn.Dropout(DROPOUT), "linear": nn.Linear(planes, num_classes)}
    return nn.Sequential(layers)  # [N, in_channels, H, W] -> [N, num_classes]


BUILDERS = {"efficientnet_b0": efficientnet_b0}
