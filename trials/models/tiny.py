"""A convolutional net small enough that tests and the demo train it in a blink on one CPU thread.

No paper: three convolutions with BN and ReLU, the last two striding, and a linear head. With 10 classes and 1 channel:
19,258 parameters, 19,056 of them conv and linear weights. Images of any size; it is made for 8x8.
"""

from __future__ import annotations

from collections import OrderedDict

from torch import nn


def tiny(*, num_classes: int, in_channels: int) -> nn.Sequential:
    """The net; its prunable layers are ``conv1``, ``conv2``, ``conv3`` and ``linear``."""
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    planes = in_channels
    for index, (width, stride) in enumerate(((16, 1), (32, 2), (48, 2)), start=1):
        layers[f"conv{index}"] = nn.Conv2d(planes, width, 3, stride=stride, padding=1, bias=False)
        layers[f"bn{index}"] = nn.BatchNorm2d(width)
        layers[f"relu{index}"] = nn.ReLU()
        planes = width
    layers |= {"pool": nn.AdaptiveAvgPool2d(1), "flatten": nn.Flatten(), "linear": nn.Linear(planes, num_classes)}
    return nn.Sequential(layers)  # [N, in_channels, H, W] -> [N, num_classes]


BUILDERS = {"tiny": tiny}
