"""Whether layers of any module can be pruned alone; what cannot is refused before anything is changed."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy
from torch.nn.utils import parametrize

from trials.errors import listed

COMPUTED = (
    "make them plain first (sp.make_permanent ends thresholds, torch.nn.utils.parametrize.remove_parametrizations, "
    "remove_weight_norm and remove_spectral_norm end the others)"
)


def stored_weight(layer: nn.Module) -> nn.Parameter | None:
    """The parameter that a layer's weight is, or that torch.nn.utils.prune masks; None if it is computed otherwise."""
    plain = layer._parameters.get("weight")
    return layer._parameters.get("weight_orig") if plain is None and "weight_mask" in layer._buffers else plain


def require_values(model: nn.Module) -> None:
    """Check that a module's parameters have values. Raises ValueError if some are lazy or on the meta device."""
    lazy = [name for name, one in model.named_parameters() if is_lazy(one)]
    if lazy:
        raise ValueError(f"parameters {listed(lazy)} are not initialised yet: run a forward pass first")
    meta = [name for name, one in model.named_parameters() if one.is_meta]
    if meta:
        raise ValueError(f"parameters {listed(meta)} are on the meta device, without values: load them first")


def require_plain_weights(layers: Mapping[str, nn.Module]) -> None:
    """Check that the layers' weights are stored, masked or not. Raises ValueError if some are computed otherwise."""
    _refuse(layers, lambda layer: parametrize.is_parametrized(layer, "weight"), f"are parametrized: {COMPUTED}")
    _refuse(layers, lambda layer: stored_weight(layer) is None, f"have weights that a hook computes: {COMPUTED}")


def require_own_weights(model: nn.Module, layers: Mapping[str, nn.Module]) -> None:
    """Check that layers have a weight that can be masked, finite, and shared with no other module.

    Raises:
        ValueError: some have not; the message names all of them.
    """
    require_plain_weights(layers)
    users: dict[int, int] = {}
    for module in model.modules():
        for parameter in module._parameters.values():
            users[id(parameter)] = users.get(id(parameter), 0) + 1
    _refuse(
        layers,
        lambda layer: users[id(stored_weight(layer))] > 1,
        "share weights with other modules, which cannot have masks of their own: leave them out with layers",
    )
    _refuse(
        layers,
        lambda layer: not bool(_value(layer).isfinite().all()),
        "have weights that are NaN or infinite, which cannot be ranked: load other weights",
    )


def _value(layer: nn.Module) -> Tensor:
    weight = stored_weight(layer)
    assert weight is not None
    return weight.detach()


def _refuse(layers: Mapping[str, nn.Module], wrong: Callable[[nn.Module], bool], why: str) -> None:
    named = [name or type(layer).__name__ for name, layer in layers.items() if wrong(layer)]
    if named:
        raise ValueError(f"layers {listed(named)} {why}")


def comparable(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return weights as they are ranked together: of one dtype, the widest of theirs, on the device of the first."""
    tensors = list(weights.values())
    dtype = tensors[0].dtype
    for weight in tensors:
        dtype = torch.promote_types(dtype, weight.dtype)
    return {name: weight.to(device=tensors[0].device, dtype=dtype) for name, weight in weights.items()}


def require_unwrapped(model: nn.Module) -> None:
    """Check that a module is not a wrapper, whose forward pass is not the network's.

    Raises:
        ValueError: it is one; the message says what to give instead.
    """
    attributes = {"DataParallel": "module", "DistributedDataParallel": "module", "OptimizedModule": "_orig_mod"}
    kind = type(model).__name__
    if kind in attributes and isinstance(getattr(model, attributes[kind], None), nn.Module):
        raise ValueError(f"{kind} is a wrapper, which cannot be made smaller: give its network, .{attributes[kind]}")
