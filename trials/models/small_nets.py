"""LeNet-5 and seven-layer perceptrons for 32x32 images: small networks on which tests can run every kind of pruning.

``lenet5``: LeCun et al., Gradient-based learning applied to document recognition, 1998, with ReLU and max-pools.
``mlp_7_linear`` and ``mlp_7_relu``: Wang et al., Dynamical Isometry, arXiv 2105.05916: six layers of 100 units, without
activations (orthogonal layers then compose to an isometry) and with ReLU. No net has BN. Initial values are torch's
defaults. Total parameters / conv and linear weights with 10 classes and 1 channel:

    lenet5  61,706 / 61,470        mlp_7_linear, mlp_7_relu  154,010 / 153,400

Accepts images of any size, for example MNIST's 28x28: they are resized to 32x32, which leaves 32x32 images unchanged.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from functools import partial

from torch import nn

SIDE = 32
WIDTH = 100


def lenet5(*, num_classes: int, in_channels: int) -> nn.Sequential:
    """Build LeNet-5: two convolutions (6 and 16 planes), three linear layers (120, 84, ``num_classes``)."""
    return nn.Sequential(  # [N, in_channels, H, W] -> [N, num_classes]
        OrderedDict(
            resize=_resize(),
            conv1=nn.Conv2d(in_channels, 6, 5),
            relu1=nn.ReLU(),
            pool1=nn.MaxPool2d(2),
            conv2=nn.Conv2d(6, 16, 5),
            relu2=nn.ReLU(),
            pool2=nn.MaxPool2d(2),
            flatten=nn.Flatten(),  # [N, 16 * 5 * 5]
            fc1=nn.Linear(400, 120),
            relu3=nn.ReLU(),
            fc2=nn.Linear(120, 84),
            relu4=nn.ReLU(),
            fc3=nn.Linear(84, num_classes),
        )
    )


def mlp(activation: type[nn.Module], *, num_classes: int, in_channels: int) -> nn.Sequential:
    """Build ``fc1 .. fc7`` on the flattened image, with ``activation`` after each but the last."""
    layers: OrderedDict[str, nn.Module] = OrderedDict(resize=_resize(), flatten=nn.Flatten())
    width = in_channels * SIDE * SIDE
    for index in range(1, 7):
        layers[f"fc{index}"] = nn.Linear(width, WIDTH)
        layers[f"activation{index}"] = activation()
        width = WIDTH
    layers["fc7"] = nn.Linear(WIDTH, num_classes)
    return nn.Sequential(layers)  # [N, in_channels, H, W] -> [N, num_classes]


def _resize() -> nn.Module:
    return nn.Upsample(size=(SIDE, SIDE), mode="bilinear", align_corners=False)


BUILDERS: dict[str, Callable[..., nn.Module]] = {
    "lenet5": lenet5,
    "mlp_7_linear": partial(mlp, nn.Identity),
    "mlp_7_relu": partial(mlp, nn.ReLU),
}
