"""Masked weights are computed anew before every forward pass that may read them.

:mod:`torch.nn.utils.prune` computes ``weight`` from ``weight_orig`` and ``weight_mask`` when the layer
itself is called. Some modules read the weight of a layer that they do not call: ``nn.MultiheadAttention`` reads
``out_proj.weight``, the attention of torchvision's Swin reads ``qkv.weight`` and ``proj.weight``. They would read the
weight of an earlier step, whose graph is gone. So every module around a masked layer renews the weights within it
before its own forward pass.
"""

from __future__ import annotations

from torch import nn
from torch.nn.utils.prune import BasePruningMethod


def renew(module: nn.Module, inputs: object) -> None:
    """Compute the masked weights within a module anew; a forward pre-hook, which copies and pickles as it is."""
    for layer in module.modules():
        for hook in list(layer._forward_pre_hooks.values()):
            if isinstance(hook, BasePruningMethod):
                hook(layer, inputs)


def renew_within(model: nn.Module) -> None:
    """Let every module of ``model`` that holds masked layers, and may read their weights, renew them."""
    for module in model.modules():
        if _may_read(module) and not _renews(module) and any(map(_masked, module.children())):
            module.register_forward_pre_hook(renew, prepend=True)


def stop_renewing(model: nn.Module) -> None:
    """Undo :func:`renew_within`."""
    for module in model.modules():
        for key in [key for key, hook in module._forward_pre_hooks.items() if hook is renew]:
            del module._forward_pre_hooks[key]


def _may_read(module: nn.Module) -> bool:
    """Whether a forward pass may read a weight within; a container's calls its layers, or there is none."""
    return type(module).forward not in (nn.Sequential.forward, nn.Module.forward)


def _renews(module: nn.Module) -> bool:
    return any(hook is renew for hook in module._forward_pre_hooks.values())


def _masked(module: nn.Module) -> bool:
    """Whether a module masks a weight, or one within it does."""
    hooks = (hook for each in module.modules() for hook in each._forward_pre_hooks.values())
    return any(isinstance(hook, BasePruningMethod) for hook in hooks)
