"""The model zoo: architectures by name. A model is one row of a file's ``BUILDERS`` and one entry here.

Every prunable layer is a plain ``nn.Conv2d`` or ``nn.Linear``; no activation works in place, so a hook on any layer
sees what that layer computed.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn

from trials.errors import UserError, unknown_name
from trials.models import (
    bip_vgg,
    cifar_resnet,
    greg_vgg,
    imagenet_resnet,
    late_stride_wide_resnet,
    resnet_s,
    small_nets,
    tiny,
    vgg,
    wide_resnet,
)
from trials.seeding import derive_seed

__all__ = ["MODELS", "build"]

MODELS: dict[str, Callable[..., nn.Module]] = {
    **cifar_resnet.BUILDERS,
    **resnet_s.BUILDERS,
    **wide_resnet.BUILDERS,
    **late_stride_wide_resnet.BUILDERS,
    **vgg.BUILDERS,
    **bip_vgg.BUILDERS,
    **imagenet_resnet.BUILDERS,
    **tiny.BUILDERS,
    **greg_vgg.BUILDERS,
    **small_nets.BUILDERS,
}
"""Name -> builder, called as ``builder(num_classes=..., in_channels=...)`` on the current device and random state."""


def build(name: str, *, num_classes: int, in_channels: int, seed: int) -> nn.Module:
    """The model ``name`` on the CPU, its initial values a function of (seed, name) and its shape alone.

    The global random state is left as it was. Shapes and counts without values: call ``MODELS[name]`` under
    ``torch.device("meta")``. Raises UserError for a name that is not in MODELS.
    """
    if name not in MODELS:
        raise UserError(unknown_name("model", name, MODELS))
    with torch.random.fork_rng(devices=[]), torch.device("cpu"):
        # Not torch.manual_seed: that would reseed the accelerators too, which fork_rng(devices=[]) does not restore.
        torch.default_generator.manual_seed(derive_seed(seed, "init", name))
        return MODELS[name](num_classes=num_classes, in_channels=in_channels)
