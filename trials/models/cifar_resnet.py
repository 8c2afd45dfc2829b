"""ResNets for small images: a 3x3 stem without max-pool, projection shortcuts, last layer ``linear``.

He et al., Deep Residual Learning for Image Recognition, arXiv 1512.03385, in the form common for CIFAR: shortcuts that
change the shape are a 1x1 convolution with BN. Initial values are torch's defaults. Total parameters / conv and linear
weights with 10 classes and 3 channels:

    resnet18   11,173,962 / 11,164,352        resnet101  42,512,970 / 42,407,616
    resnet34   21,282,122 / 21,265,088        resnet152  58,156,618 / 58,005,184
    resnet50   23,520,842 / 23,467,712        resnet20      272,474 /    270,896

``resnet20`` is the 16/32/64 net of the bidirectional pruning-regrowth work (arXiv 2511.11675); ``resnet20s`` in
:mod:`trials.models.resnet_s` has parameter-free shortcuts. Accepts images of any size; meant for 8x8 and up.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from functools import partial

from torch import Tensor, nn
from torch.nn import functional as F


def conv(in_planes: int, planes: int, size: int, stride: int = 1) -> nn.Conv2d:
    """Return a convolution of odd ``size`` without bias, padded to keep the image size at stride 1."""
    return nn.Conv2d(in_planes, planes, size, stride=stride, padding=size // 2, bias=False)


def projection(in_planes: int, planes: int, stride: int) -> nn.Module:
    """Return the identity if shapes agree, else a strided 1x1 convolution with BN (option B of the paper)."""
    if stride == 1 and in_planes == planes:
        return nn.Identity()
    return nn.Sequential(conv(in_planes, planes, 1, stride), nn.BatchNorm2d(planes))


class BasicBlock(nn.Module):
    """Residual block of two 3x3 convolutions; the first one has the stride."""

    expansion = 1
    shortcut_name = "shortcut"

    def __init__(self, in_planes: int, planes: int, stride: int) -> None:
        super().__init__()
        self.conv1 = conv(in_planes, planes, 3, stride)
        self.bn1 = nn.BatchNorm2d(planes)
        self.conv2 = conv(planes, planes, 3)
        self.bn2 = nn.BatchNorm2d(planes)
        self.add_module(self.shortcut_name, self.make_shortcut(in_planes, planes, stride))

    def make_shortcut(self, in_planes: int, planes: int, stride: int) -> nn.Module:
        return projection(in_planes, planes, stride)

    def forward(self, x: Tensor) -> Tensor:  # [N, in_planes, H, W] -> [N, planes, H/stride, W/stride]
        out = F.relu(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        return F.relu(out + getattr(self, self.shortcut_name)(x))


class Bottleneck(nn.Module):
    """Residual block of 1x1, 3x3 (with the stride) and 1x1 convolutions; outputs 4 x ``planes`` channels."""

    expansion = 4
    shortcut_name = "shortcut"

    def __init__(self, in_planes: int, planes: int, stride: int) -> None:
        super().__init__()
        out_planes = self.expansion * planes
        self.conv1 = conv(in_planes, planes, 1)
        self.bn1 = nn.BatchNorm2d(planes)
        self.conv2 = conv(planes, planes, 3, stride)
        self.bn2 = nn.BatchNorm2d(planes)
        self.conv3 = conv(planes, out_planes, 1)
        self.bn3 = nn.BatchNorm2d(out_planes)
        self.add_module(self.shortcut_name, projection(in_planes, out_planes, stride))

    def forward(self, x: Tensor) -> Tensor:  # [N, in_planes, H, W] -> [N, 4 planes, H/stride, W/stride]
        out = F.relu(self.bn1(self.conv1(x)))
        out = F.relu(self.bn2(self.conv2(out)))
        out = self.bn3(self.conv3(out))
        return F.relu(out + getattr(self, self.shortcut_name)(x))


def stages(
    block: type[BasicBlock] | type[Bottleneck], widths: Sequence[int], depths: Sequence[int]
) -> OrderedDict[str, nn.Module]:
    """Build ``layer1``, ``layer2``, ... of ``depths`` blocks with ``widths`` planes; all but the first halve the image.

    Input: ``widths[0]`` channels; output: ``block.expansion * widths[-1]`` channels.
    """
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    planes = widths[0]
    for stage, (width, depth) in enumerate(zip(widths, depths, strict=True), start=1):
        blocks = nn.Sequential()
        for index in range(depth):
            blocks.append(block(planes, width, stride=2 if stage > 1 and index == 0 else 1))
            planes = block.expansion * width
        layers[f"layer{stage}"] = blocks
    return layers


def resnet(
    block: type[BasicBlock] | type[Bottleneck],
    widths: Sequence[int],
    depths: Sequence[int],
    *,
    num_classes: int,
    in_channels: int,
) -> nn.Sequential:
    """Build a ResNet: stem, :func:`stages`, global pool, ``linear``."""
    layers: OrderedDict[str, nn.Module] = OrderedDict(
        conv1=conv(in_channels, widths[0], 3), bn1=nn.BatchNorm2d(widths[0]), relu=nn.ReLU()
    )
    layers |= stages(block, widths, depths)
    layers |= {"pool": nn.AdaptiveAvgPool2d(1), "flatten": nn.Flatten()}
    layers["linear"] = nn.Linear(block.expansion * widths[-1], num_classes)
    return nn.Sequential(layers)  # [N, in_channels, H, W] -> [N, num_classes]


WIDE = (64, 128, 256, 512)

BUILDERS = {
    "resnet18": partial(resnet, BasicBlock, WIDE, (2, 2, 2, 2)),
    "resnet34": partial(resnet, BasicBlock, WIDE, (3, 4, 6, 3)),
    "resnet50": partial(resnet, Bottleneck, WIDE, (3, 4, 6, 3)),
    "resnet101": partial(resnet, Bottleneck, WIDE, (3, 4, 23, 3)),
    "resnet152": partial(resnet, Bottleneck, WIDE, (3, 8, 36, 3)),
    "resnet20": partial(resnet, BasicBlock, (16, 32, 64), (3, 3, 3)),
}
