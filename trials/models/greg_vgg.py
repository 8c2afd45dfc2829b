"""VGGs for 32x32 images as in the growing-regularisation (GReg) code: four max-pools, one linear layer.

Wang et al., Neural Pruning via Growing Regularization, arXiv 2012.09243; Simonyan and Zisserman, arXiv 1409.1556,
configurations A, B, D and E without the last pool. Convolutions have no bias and are followed by BN; the remaining 2x2
pixels are averaged. Initial values are torch's defaults. The prefix ``greg_`` distinguishes them from ``vgg16`` in
:mod:`trials.models.vgg`. Total parameters / conv and linear weights with 10 classes and 3 channels:

    greg_vgg11   9,228,362 /  9,222,848        greg_vgg16  14,724,042 / 14,715,584
    greg_vgg13   9,413,066 /  9,407,168        greg_vgg19  20,035,018 / 20,024,000

Accepts images of any size; meant for 8x8 and up.
"""

from __future__ import annotations

from collections import OrderedDict
from functools import partial

from torch import nn

LAYERS = {  # planes of each 3x3 convolution; M: a max-pool
    11: "64 M 128 M 256 256 M 512 512 M 512 512",
    13: "64 64 M 128 128 M 256 256 M 512 512 M 512 512",
    16: "64 64 M 128 128 M 256 256 256 M 512 512 512 M 512 512 512",
    19: "64 64 M 128 128 M 256 256 256 256 M 512 512 512 512 M 512 512 512 512",
}


def greg_vgg(layers: str, *, num_classes: int, in_channels: int) -> nn.Sequential:
    """Build ``features``, a global pool and ``classifier`` (one linear layer)."""
    features = nn.Sequential()
    planes = in_channels
    for layer in layers.split():
        if layer == "M":
            features.append(nn.MaxPool2d(2, ceil_mode=True))
            continue
        features.append(nn.Conv2d(planes, int(layer), 3, padding=1, bias=False))
        planes = int(layer)
        features.extend((nn.BatchNorm2d(planes), nn.ReLU()))
    return nn.Sequential(  # [N, in_channels, H, W] -> [N, num_classes]
        OrderedDict(
            features=features,  # [N, 512, H/16, W/16]
            pool=nn.AdaptiveAvgPool2d(1),
            flatten=nn.Flatten(),
            classifier=nn.Linear(planes, num_classes),
        )
    )


BUILDERS = {f"greg_vgg{depth}": partial(greg_vgg, layers) for depth, layers in LAYERS.items()}
