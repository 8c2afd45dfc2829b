"""ResNets for large images, with torchvision's state-dict names: state dicts are interchangeable with torchvision's.

He et al., Deep Residual Learning for Image Recognition, arXiv 1512.03385: a strided 7x7 stem with max-pool, projection
shortcuts (``downsample``), stride on the 3x3 in bottlenecks, last layer ``fc``. Convolutions start from Kaiming-normal
values (fan out), ``fc`` from torch's default. Total parameters / conv and linear weights with 1000 classes and 3
channels:

    ResNet18   11,689,512 / 11,678,912        ResNet50   25,557,032 / 25,502,912
    ResNet34   21,797,672 / 21,779,648

Capitalised names are for large images; the lower-case ``resnet18`` etc. in :mod:`trials.models.cifar_resnet` are for
small ones. Accepts images of any size from 32x32 up; made for 224x224.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from functools import partial

from torch import nn

from trials.models import cifar_resnet
from trials.models.cifar_resnet import WIDE, stages


class BasicBlock(cifar_resnet.BasicBlock):
    """A basic block with torchvision's names."""

    shortcut_name = "downsample"


class Bottleneck(cifar_resnet.Bottleneck):
    """A bottleneck with torchvision's names."""

    shortcut_name = "downsample"


def imagenet_resnet(
    block: type[BasicBlock] | type[Bottleneck], depths: Sequence[int], *, num_classes: int, in_channels: int
) -> nn.Sequential:
    """Build a ResNet: stem and max-pool (each side shrinks to a quarter), four stages, global pool, ``fc``."""
    layers: OrderedDict[str, nn.Module] = OrderedDict(
        conv1=nn.Conv2d(in_channels, WIDE[0], 7, stride=2, padding=3, bias=False),
        bn1=nn.BatchNorm2d(WIDE[0]),
        relu=nn.ReLU(),
        maxpool=nn.MaxPool2d(3, stride=2, padding=1),
    )
    layers |= stages(block, WIDE, depths)
    layers |= {"avgpool": nn.AdaptiveAvgPool2d(1), "flatten": nn.Flatten()}
    layers["fc"] = nn.Linear(block.expansion * WIDE[-1], num_classes)
    model = nn.Sequential(layers)  # [N, in_channels, H, W] -> [N, num_classes]
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
    return model


TORCHVISION = {f"ResNet{depth}": f"ResNet{depth}_Weights.IMAGENET1K_V1" for depth in (18, 34, 50)}
"""Model name -> name of torchvision's pretrained weights (1000 classes, 3 channels)."""

BUILDERS = {
    "ResNet18": partial(imagenet_resnet, BasicBlock, (2, 2, 2, 2)),
    "ResNet34": partial(imagenet_resnet, BasicBlock, (3, 4, 6, 3)),
    "ResNet50": partial(imagenet_resnet, Bottleneck, (3, 4, 6, 3)),
}
