"""The Wide ResNet of the adaptive sparsity loss: every convolution has a bias, and a block's second one the stride.

Retsinas et al., Weight Pruning via Adaptive Sparsity Loss, arXiv 2006.02768, with the layer names of its code
(https://github.com/georgeretsi/SparsityLoss). Differences from :mod:`trials.models.wide_resnet`: the stride is on the
second 3x3 convolution of a block, so the first one runs at full resolution, and the shortcut takes the raw input.
Initial values are torch's defaults. Total parameters / conv and linear weights with 10 classes and 3 channels:

    wrn_16_8  10,965,866 / 10,954,160

Accepts images of any size; meant for 4x4 and up.
"""

from __future__ import annotations

from collections import OrderedDict
from functools import partial

from torch import Tensor, nn
from torch.nn import functional as F


def conv(in_planes: int, planes: int, size: int, stride: int = 1) -> nn.Conv2d:
    """Return a convolution of odd ``size`` with bias, padded to keep the image size at stride 1."""
    return nn.Conv2d(in_planes, planes, size, stride=stride, padding=size // 2)


class LateStrideBlock(nn.Module):
    """Pre-activation residual block: BN, ReLU, 3x3, BN, ReLU, 3x3 with the stride."""

    def __init__(self, in_planes: int, planes: int, stride: int) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(in_planes)
        self.conv1 = conv(in_planes, planes, 3)
        self.bn2 = nn.BatchNorm2d(planes)
        self.conv2 = conv(planes, planes, 3, stride)
        same = stride == 1 and in_planes == planes
        self.shortcut = nn.Sequential() if same else nn.Sequential(conv(in_planes, planes, 1, stride))

    def forward(self, x: Tensor) -> Tensor:  # [N, in_planes, H, W] -> [N, planes, H/stride, W/stride]
        out = self.conv1(F.relu(self.bn1(x)))
        out = self.conv2(F.relu(self.bn2(out)))
        return out + self.shortcut(x)  # type: ignore[no-any-return]


def late_stride_wide_resnet(depth: int, widen: int, *, num_classes: int, in_channels: int) -> nn.Sequential:
    """Build stem (16 planes), ``layer1 .. layer3`` of (depth - 4)/6 blocks, BN, ReLU, global pool, ``linear``."""
    planes = 16
    layers: OrderedDict[str, nn.Module] = OrderedDict(conv1=conv(in_channels, planes, 3))
    for stage, width in enumerate((16 * widen, 32 * widen, 64 * widen), start=1):
        blocks = nn.Sequential()
        for index in range((depth - 4) // 6):
            stride = 2 if stage > 1 and index == 0 else 1
            blocks.append(LateStrideBlock(planes, width, stride))
            planes = width
        layers[f"layer{stage}"] = blocks
    layers |= {"bn": nn.Sequential(nn.BatchNorm2d(planes), nn.ReLU()), "pool": nn.AdaptiveAvgPool2d(1)}
    layers |= {"flatten": nn.Flatten(), "linear": nn.Linear(planes, num_classes)}
    return nn.Sequential(layers)  # [N, in_channels, H, W] -> [N, num_classes]


BUILDERS = {"wrn_16_8": partial(late_stride_wide_resnet, 16, 8)}
