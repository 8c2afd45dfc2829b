"""Which modules make, read and pass channels, and the labels of their tensors."""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import Tensor, nn

LAYERS = (nn.Conv2d, nn.Linear)
NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.InstanceNorm2d)
NORM_PARTS = ("weight", "bias", "running_mean", "running_var")


@dataclass
class Entries:
    """The labels of a model's tensors.

    Attributes:
        of: by tensor name and dimension, a label for each entry; 0 where it is no channel of a layer.
        readers: names of the weights whose dimension 1 reads channels, each with how many calls read.
        makers: names of the weights whose dimension 0 makes channels.
        passes: modules that channels pass: norms and depthwise convolutions, in forward order.
        calls: by weight name, how often its module is called.
        grouped: names of grouped convolutions that are not depthwise.
        used: names of tensors of layers and norms that the forward pass takes without calling their module.
    """

    of: dict[str, dict[int, Tensor]] = field(default_factory=dict)
    readers: list[str] = field(default_factory=list)
    makers: list[str] = field(default_factory=list)
    passes: list[str] = field(default_factory=list)
    calls: dict[str, int] = field(default_factory=dict)
    grouped: list[str] = field(default_factory=list)
    used: list[str] = field(default_factory=list)

    @property
    def layers(self) -> set[str]:
        """Names of the convolutions and linear layers that are called."""
        return {weight.removesuffix(".weight") for weight in self.calls}


def owns_weight(module: nn.Module) -> bool:
    """Whether a layer's weight is its own parameter, which can be cut, and not computed from others at each call."""
    return "weight" in module._parameters


def is_grouped(module: nn.Conv2d) -> bool:
    """Whether a convolution has groups, or had some before all but one were cut."""
    return module.groups > 1 or getattr(module, "was_grouped", False)
