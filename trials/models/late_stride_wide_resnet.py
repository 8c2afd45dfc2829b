"""The Wide ResNet that the adaptive sparsity loss was published on: a bias in every convolution, and late strides.

Retsinas et al., Weight Pruning via Adaptive Sparsity Loss, arXiv 2006.02768, with the layer names of its code
(https://github.com/georgeretsi/SparsityLoss). Unlike :mod:`trials.models.wide_resnet`, the second 3x3 convolution of a
block strides, so that the first one still sees the large image, and the shortcut takes the raw input. Initial values
are torch's defaults. With 10 classes and 3 channels, parameters in all / conv and linear weights:

    wrn_16_8  10,965,866 / 10,954,160

Images of any size; 4x4 and up make sense.
"""

from __future__ import annotations

from collections import OrderedDict
from functools import partial

from torch import Tensor, nn
from torch.nn import functional as F


def conv(in_planes: int, planes: int, size: int, stride: int = 1) -> nn.Conv2d:
    """A convolution of odd ``size`` with bias that keeps the image size at stride 1."""
    return nn.Conv2d(in_planes, planes, size, stride=stride, padding=size // 2)


class LateStrideBlock(nn.Module):
    """BN, ReLU, 3x3, dropout and once more, beside a shortcut; the second 3x3 strides."""

    def __init__(self, in_planes: int, planes: int, stride: int, dropout: float) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(in_planes)
        self.conv1 = conv(in_planes, planes, 3)
        self.dropout = nn.Dropout(dropout)
        self.bn2 = nn.BatchNorm2d(planes)
        self.conv2 = conv(planes, planes, 3, stride)
        same = stride == 1 and in_planes == planes
        self.shortcut = nn.Sequential() if same else nn.Sequential(conv(in_planes, planes, 1, stride))

    def forward(self, x: Tensor) -> Tensor:  # [N, in_planes, H, W] -> [N, planes, H/stride, W/stride]
        out = self.dropout(self.conv1(F.relu(self.bn1(x))))
        out = self.conv2(F.relu(self.bn2(out)))
        return out + self.shortcut(x)  # type: ignore[no-any-return]


def late_stride_wide_resnet(
    depth: int, widen: int, dropout: float = 0.0, *, num_classes: int, in_channels: int
) -> nn.Sequential:
    """Stem of 16 planes, ``layer1 .. layer3`` of (depth - 4)/6 blocks each, BN, ReLU, global pool, ``linear``."""
    planes = 16
    layers: OrderedDict[str, nn.Module] = OrderedDict(conv1=conv(in_channels, planes, 3))
    for stage, width in enumerate((16 * widen, 32 * widen, 64 * widen), start=1):
        blocks = nn.Sequential()
        for index in range((depth - 4) // 6):
            stride = 2 if stage > 1 and index == 0 else 1
            blocks.append(LateStrideBlock(planes, width, stride, dropout))
            planes = width
        layers[f"layer{stage}"] = blocks
    layers |= {"bn": nn.Sequential(nn.BatchNorm2d(planes), nn.ReLU()), "pool": nn.AdaptiveAvgPool2d(1)}
    layers |= {"flatten": nn.Flatten(), "linear": nn.Linear(planes, num_classes)}
    return nn.Sequential(layers)  # [N, in_channels, H, W] -> [N, num_classes]


BUILDERS = {"wrn_16_8": partial(late_stride_wide_resnet, 16, 8)}
