"""Classifiers of torchvision and timm by their own names: ``torchvision:resnet18``, ``timm:resnet18.a1_in1k``.

They are built with random weights (``source_net: pretrained`` loads the library's own), without auxiliary heads, and
with activations that do not work in place. A network is refused if the masks of its layers would not be what its
forward pass uses: it standardises weights, or passes them to functions without calling the layer.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Collection
from functools import partial
from typing import Any

from torch import nn

from trials.errors import UserError, listed
from trials.optional import require

_WITHOUT_HEADS = {"aux_logits": False, "init_weights": True}
"""GoogLeNet and Inception v3 have auxiliary classifiers, and warn unless they are told to draw initial values."""


def torchvision_model(name: str) -> Callable[..., nn.Module]:
    """Return the builder of torchvision's classifier ``name``, such as ``resnet18``.

    A number of channels other than 3 replaces its first convolution.

    Raises:
        UserError: torchvision has no classifier of this name; or, when it is built, it cannot be pruned.
    """
    from torchvision import models

    known = models.list_models(module=models)
    if name not in known:
        raise UserError(_unknown("torchvision", name, known, "torchvision.models.list_models()"))
    return partial(_torchvision, name)


def timm_model(name: str) -> Callable[..., nn.Module]:
    """Return the builder of timm's classifier ``name``, such as ``resnet18`` or, with a tag, ``resnet18.a1_in1k``.

    Raises:
        UserError: timm is not installed or has no model of this name; or, when it is built, it cannot be pruned.
    """
    timm = require("timm", "timm", f"model 'timm:{name}'")
    known = timm.list_models()
    base, _, tag = name.partition(".")
    if base not in known:
        raise UserError(_unknown("timm", name, known, "timm.list_models()"))
    tags = {each.partition(".")[2] for each in timm.list_pretrained(f"{base}.*")}
    if tag and tag not in tags:
        there = listed([f"timm:{base}", *sorted(f"timm:{base}.{each}" for each in tags if each)], 12)
        raise UserError(f"model is 'timm:{name}', but timm knows no such weights: it has {there}")
    return partial(_timm, name)


def _unknown(library: str, name: str, known: Collection[str], where: str) -> str:
    near = difflib.get_close_matches(name.lower(), known, n=3)
    hint = f"did you mean {' or '.join(f'{library}:{each}' for each in near)}?" if near else f"see {where}"
    return f"model is '{library}:{name}', but {library} has no classifier of this name: {hint}"


def _torchvision(name: str, *, num_classes: int, in_channels: int) -> nn.Module:
    from torchvision import models

    options = _WITHOUT_HEADS if name in ("googlenet", "inception_v3") else {}
    model: nn.Module = models.get_model(name, weights=None, num_classes=num_classes, **options)
    if in_channels != 3:
        _replace_first(model, in_channels)
    return _prunable(f"torchvision:{name}", model, ())


def _timm(name: str, *, num_classes: int, in_channels: int) -> nn.Module:
    timm = require("timm", "timm", f"model 'timm:{name}'")
    try:
        model: nn.Module = timm.create_model(name, pretrained=False, num_classes=num_classes, in_chans=in_channels)
    except TypeError as error:
        raise UserError(f"model is 'timm:{name}', but cannot be built for {in_channels} channels ({error})") from None
    plain = (timm.layers.Conv2dSame, timm.layers.Linear)
    return _prunable(f"timm:{name}", model, plain)


def _replace_first(model: nn.Module, in_channels: int) -> None:
    """Give a model of RGB images a first convolution for ``in_channels``, with He-normal values (fan out)."""
    name, first = next((name, module) for name, module in model.named_modules() if isinstance(module, nn.Conv2d))
    options: dict[str, Any] = {
        "stride": first.stride,
        "padding": first.padding,
        "dilation": first.dilation,
        "bias": first.bias is not None,
        "padding_mode": first.padding_mode,
    }
    kernel: Any = first.kernel_size
    new = nn.Conv2d(in_channels, first.out_channels, kernel, **options)
    nn.init.kaiming_normal_(new.weight, mode="fan_out", nonlinearity="relu")
    if new.bias is not None:
        nn.init.zeros_(new.bias)
    parent, _, attribute = name.rpartition(".")
    setattr(model.get_submodule(parent), attribute, new)


def _prunable(name: str, model: nn.Module, also: Collection[type[nn.Module]]) -> nn.Module:
    """Return the model with activations that do not work in place.

    Raises:
        UserError: it has layers whose weights are not what its forward pass multiplies with, or that it never calls.
    """
    for module in model.modules():
        if getattr(module, "inplace", False) is True:
            module.inplace = False  # type: ignore[assignment]
    layers = (module for module in model.modules() if isinstance(module, nn.Conv2d | nn.Linear))
    odd = {type(layer).__name__ for layer in layers if type(layer) not in (nn.Conv2d, nn.Linear, *also)}
    odd |= {type(module).__name__ for module in model.modules() if type(module).__name__ in _BY_FUNCTION}
    if odd:
        raise UserError(
            f"model is {name!r}, but its {listed(sorted(odd))} use weights in another way than a plain convolution or "
            "linear layer, so masks would not hold: give another, such as timm:vit_tiny_patch16_224 for a transformer "
            "or torchvision:resnet18 for a convolutional network"
        )
    return model


_BY_FUNCTION = ("MultiheadAttention", "ShiftedWindowAttention", "ShiftedWindowAttentionV2")
"""Modules that hand the weights of their linear layers to functions, so that no layer is called."""
