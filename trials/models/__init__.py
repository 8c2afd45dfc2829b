"""The model zoo: architectures by name. To add a model, add a row to a module's ``BUILDERS`` and merge it here.

Every prunable layer is a plain ``nn.Conv2d`` or ``nn.Linear``; no activation works in place, so a hook on any layer
sees that layer's output.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import lru_cache, partial
from typing import Any, cast

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from trials.errors import UserError
from trials.models import (
    bip_vgg,
    cifar_alexnet,
    cifar_resnet,
    densenet,
    efficientnet,
    googlenet,
    greg_vgg,
    imagenet_resnet,
    late_stride_wide_resnet,
    resnet_s,
    shufflenet,
    small_nets,
    tiny,
    vgg,
    wide_resnet,
)
from trials.models.libraries import timm_model, torchvision_model
from trials.models.without_draws import built_without_draws
from trials.plugins.blaming import blaming
from trials.registry import Registry
from trials.seeding import derive_seed

__all__ = ["MODELS", "build", "without_values"]

_OURS: dict[str, Callable[..., nn.Module]] = {
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
    **cifar_alexnet.BUILDERS,
    **densenet.BUILDERS,
    **googlenet.BUILDERS,
    **shufflenet.BUILDERS,
    **efficientnet.BUILDERS,
}
"""The models of this package. Others may do anything with their initial values."""


def _is_builder(found: Any) -> Callable[..., nn.Module]:
    if not callable(found):
        raise TypeError(
            f"that is {found!r}: it must be a class or function, called with num_classes and in_channels, that returns "
            "an nn.Module"
        )
    return cast("Callable[..., nn.Module]", found)


MODELS: Registry[Callable[..., nn.Module]] = Registry(
    "models", _OURS, _is_builder, prefixes={"torchvision": torchvision_model, "timm": timm_model}
)
"""Name -> ``builder(num_classes=..., in_channels=...)``, which builds on the current device and random state. Also
knows those of plug-ins (:mod:`trials.registry`), ``torchvision:NAME`` and ``timm:NAME``."""


def build(name: str, *, num_classes: int, in_channels: int, seed: int, values: bool = True) -> nn.Module:
    """Build the model ``name`` on the CPU; its initial values depend only on (seed, name) and its shape.

    The global random state is not changed. If only shapes are needed, call ``MODELS[name]`` under
    ``torch.device("meta")`` instead. Raises UserError for a name that is not in MODELS,
    and for a builder that returns no ``nn.Module``.

    Args:
        values: whether the parameters' initial values are needed. If all of them will be overwritten, False saves the
            time of drawing them: they are NaN then. Models that are not of this package have their values all the same.
    """
    builder = partial(MODELS.require(name, "model"), num_classes=num_classes, in_channels=in_channels)
    drawn = derive_seed(seed, "init", name)
    with torch.random.fork_rng(devices=[]), torch.device("cpu"):
        # Not torch.manual_seed: that would reseed the accelerators too, which fork_rng(devices=[]) does not restore.
        torch.default_generator.manual_seed(drawn)
        if not values and _OURS.get(name) is MODELS[name]:
            model = built_without_draws(builder, torch.default_generator)
            if model is not None:
                return model
            torch.default_generator.manual_seed(drawn)
        with _blaming(name):
            return _require_module(name, builder())


def _blaming(name: str) -> AbstractContextManager[None]:
    """Say of errors in a model from outside this package that it is the model's."""
    return nullcontext() if MODELS.built_in(name) else blaming(f"model is {name!r}, whose code failed")


def _require_module(name: str, model: object) -> nn.Module:
    if not isinstance(model, nn.Module):
        raise UserError(f"model is {name!r}, which made {type(model).__name__}: it must return an nn.Module")
    return model


def without_values(name: str, *, num_classes: int, in_channels: int) -> nn.Module:
    """Return the model ``name`` on the meta device, for its names and shapes; built once. Callers must not change it.

    A model whose builder reads values, which the meta device does not have, is on the CPU instead.
    """
    builder = MODELS.require(name, "model")
    with _blaming(name):
        return _require_module(name, _without_values(builder, num_classes, in_channels))


class _NoDraws(TorchFunctionMode):
    """Leaves out normal draws. On the meta device they change nothing, but torch imports its compiler for them, which
    takes longer than all other checks before a run."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        given = kwargs or {}
        drawn = args[0] if args else given.get("tensor")
        if getattr(func, "__name__", "") == "normal_" and getattr(drawn, "is_meta", False):  # torch.nn.init's too
            return drawn
        return func(*args, **given)


@lru_cache(maxsize=128)
def _without_values(builder: Callable[..., nn.Module], num_classes: int, in_channels: int) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        try:
            with torch.device("meta"), _NoDraws():
                return builder(num_classes=num_classes, in_channels=in_channels)
        except Exception:  # noqa: BLE001  whatever the builder does with the values
            return builder(num_classes=num_classes, in_channels=in_channels)
