"""A convolutional net for tests and the demo, small enough to train quickly on one CPU thread.

Not from a paper: three convolutions with BN and ReLU, the last two with stride 2, and a linear head. With 10 classes
and 1 channel it has 19,258 parameters, of them 19,056 conv and linear weights. Accepts images of any size; made for
8x8.
"""

from __future__ import annotations

from collections import OrderedDict

from torch import nn


def tiny(*, num_classes: int, in_channels: int) -> nn.Sequential:
    """Build the net; its prunable layers are ``conv1``, ``conv2``, ``conv3`` and ``linear``."""
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
