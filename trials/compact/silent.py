"""Decide what a network can lose without changing an output in evaluation mode, and take it out.

This is the one place that decides: ``python -m trials profile``, the exports ``compact`` and ``onnx`` and the columns
``compact_*`` all show what :func:`simplify` leaves. A filter can go if

- no layer reads it: all columns that would are zero;
- it emits zeros: its weights are zero, and so is what bias, batch norm and activation make of that;
- it emits another constant, and every layer that reads it can add what that contributes to its own bias, or to the mean
  of the batch norm behind it. A convolution that pads its input with zeros cannot, since a constant channel is smaller
  at the border: there, one filter of a layer stays for all its constant ones, and the columns of the others are added
  to its own. The result is the same up to rounding.

Of channels that :mod:`trials.compact.graph` pins (those of a sum, for example) only units go that no layer reads
(:mod:`trials.compact.groups`), over all layers that make them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from trials.compact.constants import Constants, constants, pads_with_zeros
from trials.compact.cut import Kept, kept_rows, shrink
from trials.compact.graph import Channels, dependencies
from trials.compact.groups import spared, unit_rows, units_of, unread


def simplify(model: nn.Module) -> Kept:
    """Make a model smaller in place, as far as its outputs in evaluation mode stay the same.

    Returns:
        The rows that are left of each layer that lost some, as indices into what the model had.

    Raises:
        UserError: the model cannot be traced.
    """
    left: Kept = {}
    while removed := _freed(model):
        kept = kept_rows(model, removed, "filter")
        shrink(model, kept)
        left |= {name: left[name][rows] if name in left else rows for name, rows in kept.items()}
    return left


def silent(model: nn.Module) -> dict[str, Tensor]:
    """Find filters whose removal alone does not change the outputs in evaluation mode: int64 indices by weight name.

    No layer reads them, or they emit zeros.

    Raises:
        UserError: the model cannot be traced.
    """
    graph = dependencies(model)
    found = constants(model)
    return _whole(
        model,
        {
            name: _idle(model, channels, _read(model, found, channels))
            for name, channels in graph.items()
            if not channels.pinned
        },
    )


@torch.no_grad()
def _freed(model: nn.Module) -> dict[str, Tensor]:
    """Find filters that can go, once what their constants contribute stands elsewhere, and write it there."""
    graph = dependencies(model)
    found = constants(model)
    modules: dict[str, Any] = dict(model.named_modules())
    off: dict[str, Tensor] = {}
    for name, channels in graph.items():
        if channels.pinned:
            continue
        read = _read(model, found, channels)
        off[name] = _idle(model, channels, read)
        other = ~off[name] & ~read.isnan().any(0)
        if (off[name] | other).all() and other.any():  # one must stay, with what it contributes
            other[other.nonzero()[0]] = False
        if other.any():
            off[name] |= _moved(modules, found, channels, read, other)
    return _whole(model, off)


def _read(model: nn.Module, found: Constants, channels: Channels) -> Tensor:
    """The constants of channels as their readers see them: float64 [readers, channels], NaN where they vary."""
    weight = model.get_parameter(f"{channels.layer}.weight")
    known = [found.read[reader] for reader in channels.readers if reader in found.read]
    if not known or len(known) < len(channels.readers):
        return torch.full((1, len(weight)), torch.nan, device=weight.device)
    columns = [one.view(len(weight), -1) for one in known]  # of each channel, its pixels at the flattening
    same = [(one == one[:, :1]).all(1) for one in columns]
    return torch.stack([one[:, 0].masked_fill(~equal, torch.nan) for one, equal in zip(columns, same, strict=True)])


def _moved(modules: Mapping[str, Any], found: Constants, channels: Channels, read: Tensor, constant: Tensor) -> Tensor:
    """Move what constant channels contribute to where it can stay; returns those that are then free (bool [rows])."""
    readers = [modules[reader] for reader in channels.readers]
    norms = [modules[found.norms[reader]] if reader in found.norms else None for reader in channels.readers]
    shared = _shared(modules.values())
    takes = [
        not pads_with_zeros(layer) and (norm is not None if layer.bias is None else id(layer.bias) not in shared)
        for layer, norm in zip(readers, norms, strict=True)
    ]
    if all(takes):
        for layer, norm, numbers in zip(readers, norms, read, strict=True):
            _add(layer, norm, torch.where(constant, numbers, 0.0))
        return constant
    least = read.abs().amin(0).masked_fill(~constant, -1)
    stays = int(least.argmax())
    if least[stays] <= 0:
        return torch.zeros_like(constant)
    free = constant.clone()
    free[stays] = False
    for layer, numbers in zip(readers, read, strict=True):
        columns = _columns(layer.weight, len(free))
        share = torch.where(free, numbers / numbers[stays], 0.0)
        columns[:, stays] += torch.einsum("oc...,c->o...", columns.double(), share).to(columns.dtype)
    return free


def _shared(modules: Iterable[nn.Module]) -> set[int]:
    """What several modules have in common, by ``id``: a number added to it would show elsewhere."""
    counts = Counter(id(tensor) for module in modules for tensor in module.parameters(recurse=False))
    return {one for one, count in counts.items() if count > 1}


def _add(layer: Any, norm: Any, numbers: Tensor) -> None:
    """Add what constants (float64 [channels]) contribute to a layer's outputs to its bias, or to its norm's mean."""
    sums = _columns(layer.weight, len(numbers)).double().flatten(2).sum(2) @ numbers
    if layer.bias is not None:
        layer.bias.copy_(layer.bias.double() + sums)
    else:
        norm.running_mean.copy_(norm.running_mean.double() - sums)


def _columns(weight: Tensor, channels: int) -> Tensor:
    """A view [rows, channels, columns per channel, ...] of a layer's weight."""
    weight = weight.detach()
    return weight.view(len(weight), channels, weight.shape[1] // channels, *weight.shape[2:])


def _idle(model: nn.Module, channels: Channels, read: Tensor) -> Tensor:
    """Channels (bool [rows]) that no layer reads, or that are zero for every layer that does."""
    return _unread(model, channels) | _constant_zero(model, channels) | (read == 0).all(0)


def _unread(model: nn.Module, channels: Channels) -> Tensor:
    """Channels (bool [rows]) whose columns are zero in every layer that reads them."""
    rows = len(model.get_parameter(f"{channels.layer}.weight"))
    unread = torch.ones(rows, dtype=torch.bool, device=next(model.parameters()).device)
    for reader in channels.readers:
        there = model.get_parameter(f"{reader}.weight").detach() != 0  # [O, columns, ...]
        unread &= ~there.transpose(0, 1).flatten(1).any(1).view(rows, -1).any(1)
    return unread


def _constant_zero(model: nn.Module, channels: Channels) -> Tensor:
    """Channels (bool [rows]) whose filter, bias and BN scales and shifts are all zero."""
    named = dict(model.named_parameters(remove_duplicate=False))
    off = ~named[f"{channels.layer}.weight"].detach().flatten(1).any(1)
    if (bias := named.get(f"{channels.layer}.bias")) is not None:
        off &= bias == 0
    for norm in channels.norms:
        scale, shift = named.get(f"{norm}.weight"), named.get(f"{norm}.bias")
        off &= torch.zeros_like(off) if scale is None or shift is None else (scale == 0) & (shift == 0)
    return off


def _whole(model: nn.Module, off: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Indices of the rows that go: of the channels that are off, and of units that no layer reads.

    A tensor that would lose all of a dimension keeps the first.
    """
    units = units_of(model)
    gone = unread(model, units)
    for name, rows in off.items():
        gone[units.members[name][0][rows.cpu()]] = True
    return unit_rows(units, spared(units, gone))
