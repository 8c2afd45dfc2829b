"""VGG-16 with BN for small images: five groups of 3x3 convolutions, one linear layer.

Simonyan and Zisserman, Very Deep Convolutional Networks for Large-Scale Image Recognition, arXiv 1409.1556,
configuration D, in the form of the bidirectional pruning-regrowth work (arXiv 2511.11675): convolutions with bias, BN
after each, a max-pool after each group, and the head Linear(512, classes). Initial values are torch's defaults. The
convolutions are ``features.0 3 7 10 14 17 20 24 27 30 34 37 40``. With 10 classes and 3 channels: 14,728,266
parameters, 14,715,584 of them conv and linear weights.

Made for 32x32 images (or other multiples of 32), but accepts any size: pools round odd sizes up, so smaller images
work, and a global average reduces the output of larger ones.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from functools import partial

from torch import nn


def vgg(groups: Sequence[Sequence[int]], *, num_classes: int, in_channels: int) -> nn.Sequential:
    """Build a convolution per width in ``groups``, a max-pool after each group, global pool, ``classifier``."""
    features = nn.Sequential()
    planes = in_channels
    for group in groups:
        for width in group:
            features.extend((nn.Conv2d(planes, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU()))
            planes = width
        features.append(nn.MaxPool2d(2, ceil_mode=True))
    return nn.Sequential(  # [N, in_channels, H, W] -> [N, num_classes]
        OrderedDict(
            features=features,  # [N, 512, H/32, W/32]
            pool=nn.AdaptiveAvgPool2d(1),
            flatten=nn.Flatten(),
            classifier=nn.Linear(planes, num_classes),
        )
    )


BUILDERS = {
    "vgg16": partial(vgg, ((64,) * 2, (128,) * 2, (256,) * 3, (512,) * 3, (512,) * 3)),
}
