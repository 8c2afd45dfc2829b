"""AlexNet for 32x32 images: five 3x3 convolutions without BN, dropout, one linear layer.

After Krizhevsky et al., ImageNet classification with deep convolutional neural networks, 2012, in the form of the
bidirectional pruning-regrowth work (arXiv 2511.11675): the convolutions ``features.0 3 6 8 10``, the first of stride 2,
max-pools after the first, second and fifth, and ``classifier.1``. Initial values are torch's defaults. With 10 classes
and 3 channels: 2,261,834 parameters, 2,260,672 of them conv and linear weights.

Made for 32x32 images, but accepts any size: pools round odd sizes up, so smaller images work, and an average over 2x2
areas, which leaves 32x32 images unchanged, reduces larger ones.
"""

from __future__ import annotations

from collections import OrderedDict

from torch import nn


def alexnet(*, num_classes: int, in_channels: int) -> nn.Sequential:
    """Build the net; the head reads 256 maps of 2x2."""
    features = nn.Sequential(
        nn.Conv2d(in_channels, 64, 3, stride=2, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2, ceil_mode=True),
        nn.Conv2d(64, 192, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2, ceil_mode=True),
        nn.Conv2d(192, 384, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(384, 256, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(256, 256, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2, ceil_mode=True),
    )
    return nn.Sequential(  # [N, in_channels, H, W] -> [N, num_classes]
        OrderedDict(
            features=features,  # [N, 256, H/16, W/16]
            pool=nn.AdaptiveAvgPool2d(2),
            flatten=nn.Flatten(),  # [N, 1024]
            classifier=nn.Sequential(nn.Dropout(0.5), nn.Linear(1024, num_classes)),
        )
    )


BUILDERS = {"alexnet": alexnet}
