"""The paper's ResNet-20/32/44/56 for CIFAR: 16/32/64 planes, shortcuts without parameters (option A).

He et al., Deep Residual Learning for Image Recognition, arXiv 1512.03385, section 4.2. Convolutions and the linear
layer start from Kaiming-normal values (fan in). Total parameters / conv and linear weights with 10 classes and 3
channels:

    resnet20s  269,722 / 268,336        resnet44s  658,586 / 655,408
    resnet32s  464,154 / 461,872        resnet56s  853,018 / 848,944

Accepts images of any size; meant for 4x4 and up.
"""

from __future__ import annotations

from functools import partial

from torch import Tensor, nn
from torch.nn import functional as F

from trials.models.cifar_resnet import BasicBlock, resnet


class SubsampleAndPad(nn.Module):
    """Option A shortcut: keep every second pixel, and add planes/4 zero channels before and after the input's.

    ``planes`` is the number of output channels, twice the number of input channels.
    """

    def __init__(self, planes: int) -> None:
        super().__init__()
        self.pad = planes // 4

    def forward(self, x: Tensor) -> Tensor:  # [N, planes/2, H, W] -> [N, planes, ceil(H/2), ceil(W/2)]
        return F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, self.pad, self.pad))


class OptionABlock(BasicBlock):
    """Basic block whose shortcut has no parameters."""

    def make_shortcut(self, in_planes: int, planes: int, stride: int) -> nn.Module:
        return nn.Identity() if stride == 1 and in_planes == planes else SubsampleAndPad(planes)


def resnet_s(depth: int, *, num_classes: int, in_channels: int) -> nn.Sequential:
    """Build a ResNet of three stages with ``depth`` blocks each, hence 6 depth + 2 weight layers."""
    model = resnet(OptionABlock, (16, 32, 64), (depth,) * 3, num_classes=num_classes, in_channels=in_channels)
    for module in model.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            nn.init.kaiming_normal_(module.weight)
    return model


BUILDERS = {f"resnet{6 * depth + 2}s": partial(resnet_s, depth) for depth in (3, 5, 7, 9)}
