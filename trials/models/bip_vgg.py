"""VGGs for small images as in the BiP code: convolutions without bias, three linear layers, with or without BN.

Zhang et al., Advancing Model Pruning via Bi-level Optimization, arXiv 2210.04092; layer names as in
https://github.com/OPTML-Group/BiP, where these nets are called ``vgg2 .. vgg16_bn`` (the prefix ``bip_`` distinguishes
them from ``vgg16`` in :mod:`trials.models.vgg`). Initial values as intended there: convolutions Kaiming-normal (fan
out), linear weights N(0, 0.01), biases zero. Number of conv and linear weights with 10 classes and 3 channels, with or
without BN:

    bip_vgg2    172,224        bip_vgg6  1,474,752        bip_vgg11   9,810,112
    bip_vgg4    458,944        bip_vgg8  5,275,840        bip_vgg13   9,994,432
                                                          bip_vgg16  15,302,848

Accepts images of any size: pools round odd sizes up, and an adaptive pool brings their output to 2x2.
"""

from __future__ import annotations

from collections import OrderedDict
from functools import partial

from torch import nn

LAYERS = {  # planes of each 3x3 convolution; M: a max-pool
    2: "64 M 64 M",
    4: "64 64 M 128 128 M",
    6: "64 64 M 128 128 M 256 256 M",
    8: "64 64 M 128 128 M 256 256 M 512 512 M",
    11: "64 M 128 M 256 256 M 512 512 M 512 512",
    13: "64 64 M 128 128 M 256 256 M 512 512 M 512 512",
    16: "64 64 M 128 128 M 256 256 256 M 512 512 512 M 512 512 512",
}


def bip_vgg(layers: str, batchnorm: bool, *, num_classes: int, in_channels: int) -> nn.Sequential:
    """Build ``features``, a pool to 2x2 and ``classifier`` (256, 256, ``num_classes``)."""
    features = nn.Sequential()
    planes = in_channels
    for layer in layers.split():
        if layer == "M":
            features.append(nn.MaxPool2d(2, ceil_mode=True))
            continue
        width = int(layer)
        features.append(nn.Conv2d(planes, width, 3, padding=1, bias=False))
        features.extend([nn.BatchNorm2d(width), nn.ReLU()] if batchnorm else [nn.ReLU()])
        planes = width
    classifier = nn.Sequential(
        nn.Linear(4 * planes, 256), nn.ReLU(), nn.Linear(256, 256), nn.ReLU(), nn.Linear(256, num_classes)
    )
    model = nn.Sequential(  # [N, in_channels, H, W] -> [N, num_classes]
        OrderedDict(features=features, avgpool=nn.AdaptiveAvgPool2d(2), flatten=nn.Flatten(), classifier=classifier)
    )
    initialise(model)
    return model


def initialise(model: nn.Module) -> None:
    """Set the initial values described in the module's docstring; BN keeps torch's defaults (1 and 0)."""
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        elif isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, std=0.01)
            nn.init.zeros_(module.bias)


BUILDERS = {
    f"bip_vgg{depth}{suffix}": partial(bip_vgg, layers, batchnorm)
    for depth, layers in LAYERS.items()
    for suffix, batchnorm in (("", False), ("_bn", True))
}
