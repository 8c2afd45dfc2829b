"""Wide ResNets for small images: pre-activation blocks, 16/32/64 planes times a widening factor.

Zagoruyko and Komodakis, Wide Residual Networks, arXiv 1605.07146, without dropout, with the layer names of the BiP code
(https://github.com/OPTML-Group/BiP), but without its unused duplicate of the first stage. Convolutions start from a
normal distribution of variance 2/(kh kw O), the linear layer from torch's default with zero bias. Total parameters /
conv and linear weights with 10 classes and 3 channels:

    wrn_28_10  36,479,194 / 36,461,232        wrn_28_4   5,849,050 / 5,841,840
    wrn_34_10  46,160,474 / 46,138,032        wrn_28_1     369,498 /   367,664
                                              wrn_40_2   2,243,546 / 2,238,128

Accepts images of any size; meant for 4x4 and up.
"""

from __future__ import annotations

from collections import OrderedDict
from functools import partial

from torch import Tensor, nn
from torch.nn import functional as F

from trials.models.cifar_resnet import conv


class PreActivationBlock(nn.Module):
    """Pre-activation residual block: BN, ReLU, 3x3 with the stride, BN, ReLU, 3x3.

    If the number of planes changes, the shortcut is a 1x1 convolution of the activated input.
    """

    def __init__(self, in_planes: int, planes: int, stride: int) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(in_planes)
        self.conv1 = conv(in_planes, planes, 3, stride)
        self.bn2 = nn.BatchNorm2d(planes)
        self.conv2 = conv(planes, planes, 3)
        self.convShortcut = conv(in_planes, planes, 1, stride) if in_planes != planes else None

    def forward(self, x: Tensor) -> Tensor:  # [N, in_planes, H, W] -> [N, planes, H/stride, W/stride]
        activated = F.relu(self.bn1(x))
        shortcut = x if self.convShortcut is None else self.convShortcut(activated)
        out: Tensor = self.conv2(F.relu(self.bn2(self.conv1(activated))))
        return out + shortcut


def wide_resnet(depth: int, widen: int, *, num_classes: int, in_channels: int) -> nn.Sequential:
    """Build stem (16 planes), ``block1 .. block3`` of (depth - 4)/6 blocks, BN, ReLU, global pool, ``fc``."""
    planes = 16
    layers: OrderedDict[str, nn.Module] = OrderedDict(conv1=conv(in_channels, planes, 3))
    for stage, width in enumerate((16 * widen, 32 * widen, 64 * widen), start=1):
        blocks = nn.Sequential()
        for index in range((depth - 4) // 6):
            blocks.append(PreActivationBlock(planes, width, stride=2 if stage > 1 and index == 0 else 1))
            planes = width
        layers[f"block{stage}"] = nn.Sequential(OrderedDict(layer=blocks))
    layers |= {"bn1": nn.BatchNorm2d(planes), "relu": nn.ReLU(), "pool": nn.AdaptiveAvgPool2d(1)}
    layers |= {"flatten": nn.Flatten(), "fc": nn.Linear(planes, num_classes)}
    model = nn.Sequential(layers)  # [N, in_channels, H, W] -> [N, num_classes]
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out")
        elif isinstance(module, nn.Linear):
            nn.init.zeros_(module.bias)
    return model


SHAPES = ((28, 10), (28, 4), (28, 1), (34, 10), (40, 2))

BUILDERS = {f"wrn_{depth}_{widen}": partial(wide_resnet, depth, widen) for depth, widen in SHAPES}
