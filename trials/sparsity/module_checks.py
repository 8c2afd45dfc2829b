"""Whether layers of any module can be pruned alone; what cannot is refused before anything is changed."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Mapping
from typing import Any

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
    """Check that layers have a weight that can be masked: real, finite, and shared with no other module.

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
        "share weights with other modules, so that one cannot be pruned alone: leave them out, or untie them",
    )
    _refuse(
        layers,
        lambda layer: not _value(layer).is_floating_point(),
        "have weights that are no real floating-point numbers, which cannot be ranked: leave them out",
    )
    _refuse(
        layers,
        lambda layer: not bool(_value(layer).isfinite().all()),
        "have weights that are NaN or infinite, which cannot be ranked: load other weights",
    )


def require_unmasked(layers: Mapping[str, nn.Module]) -> None:
    """Check that no layer has a mask. Raises ValueError if some have."""
    _refuse(layers, lambda layer: "weight_mask" in layer._buffers, "are masked: call sp.make_permanent first")


def _value(layer: nn.Module) -> Tensor:
    weight = stored_weight(layer)
    assert weight is not None
    return weight.detach()


def _refuse(layers: Mapping[str, nn.Module], wrong: Callable[[nn.Module], bool], why: str) -> None:
    named = [name or type(layer).__name__ for name, layer in layers.items() if wrong(layer)]
    if named:
        raise ValueError(f"layers {listed(named)} {why}")


def widest(tensors: Iterable[Tensor]) -> torch.dtype:
    """The dtype that holds all of theirs, and float32 at least: norms and draws in half precision have ties."""
    return functools.reduce(torch.promote_types, (tensor.dtype for tensor in tensors), torch.float32)


def comparable(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return weights as they are ranked together: of one dtype, on the device of the first."""
    device, dtype = next(iter(weights.values())).device, widest(weights.values())
    return {name: weight.to(device=device, dtype=dtype) for name, weight in weights.items()}


def require_unwrapped(model: nn.Module) -> None:
    """Check that a module is not a wrapper, whose forward pass is not the network's.

    Raises:
        ValueError: it is one; the message says what to give instead.
    """
    attributes = {"DataParallel": "module", "DistributedDataParallel": "module", "OptimizedModule": "_orig_mod"}
    kind = type(model).__name__
    if kind in attributes and isinstance(getattr(model, attributes[kind], None), nn.Module):
        raise ValueError(f"{kind} is a wrapper, which cannot be traced: give its network, .{attributes[kind]}")


def shape_of(example: object) -> tuple[int, ...]:
    """Return the shape of one input, without the batch. Raises ValueError if the example is not a tensor."""
    if not isinstance(example, Tensor):
        raise ValueError(  # noqa: TRY004  every refusal of the pieces is a ValueError
            f"example is a {type(example).__name__}, but must be a batch of the module's one input, a tensor"
        )
    return tuple(example.shape[1:])


def require_close(after: Any, before: Any) -> None:
    """Check that outputs, tensors or containers of them, are equal but for rounding. Raises AssertionError if not."""
    if isinstance(before, Tensor) and before.is_floating_point() and before.numel():
        rounding = 16 * torch.finfo(before.dtype).eps
        finite = before[before.isfinite()].abs()
        largest = float(finite.max()) if finite.numel() else 0.0  # smaller outputs are sums of terms as large
        rtol, atol = max(1e-4, rounding), max(1e-5, rounding) * largest
        torch.testing.assert_close(after, before, rtol=rtol, atol=atol, equal_nan=True)
    elif isinstance(before, Mapping):
        require_close([after[key] for key in before], list(before.values()))
    elif isinstance(before, (list, tuple)):
        for one, other in zip(after, before, strict=True):
            require_close(one, other)
    elif isinstance(before, Tensor):
        torch.testing.assert_close(after, before)
