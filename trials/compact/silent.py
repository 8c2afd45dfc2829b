"""Find the channels that a compact form of a masked network can leave out."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from trials.compact.graph import Channels, dependencies
from trials.compact.groups import spared, unit_rows, units_of, unread


def removable(model: nn.Module, masks: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Find filters that the masks remove entirely, or whose reading columns they all remove: int64 indices by weight.

    Filters that enter a sum or are the network's outputs are excluded, and a layer that would lose all filters keeps
    the first. Removing them gives the size that the masks imply; the outputs stay the same only if the filters are also
    :func:`silent`.
    """
    return {
        name: off.nonzero().view(-1)
        for name, channels in dependencies(model).items()
        if not channels.pinned and (off := _spare_one(_rows_off(model, channels, masks))).any()
    }


def silent(model: nn.Module) -> dict[str, Tensor]:
    """Find filters whose removal does not change the outputs in eval mode: int64 indices by weight name.

    Either all columns that read them are zero, of every layer that does, also behind a sum; or their weights, biases
    and BN scales and shifts are all zero.
    """
    units = units_of(model)
    off = unread(model, units)
    for name, channels in dependencies(model).items():
        if not channels.pinned:
            zero = _constant_zero(model, channels).cpu()
            off[units.members[name][0][zero]] = True
    return unit_rows(units, spared(units, off))


def _rows_off(model: nn.Module, channels: Channels, masks: Mapping[str, Tensor]) -> Tensor:
    weight = model.get_parameter(f"{channels.layer}.weight")
    mask = masks.get(f"{channels.layer}.weight", torch.ones_like(weight, dtype=torch.bool))
    return ~mask.flatten(1).any(1) | _unread(model, channels, masks)


def _unread(model: nn.Module, channels: Channels, masks: Mapping[str, Tensor]) -> Tensor:
    """Channels (bool [rows]) whose columns are zero, or masked if there is a mask, in every layer that reads them."""
    rows = len(model.get_parameter(f"{channels.layer}.weight"))
    unread = torch.ones(rows, dtype=torch.bool, device=next(model.parameters()).device)
    for reader in channels.readers:
        name = f"{reader}.weight"
        there = masks[name] if name in masks else model.get_parameter(name).detach() != 0  # [O, columns, ...]
        unread &= ~there.transpose(0, 1).flatten(1).any(1).view(rows, -1).any(1)
    return unread


def _constant_zero(model: nn.Module, channels: Channels) -> Tensor:
    """Channels (bool [rows]) whose filter, bias and BN scales and shifts are all zero."""
    named = dict(model.named_parameters())
    off = ~named[f"{channels.layer}.weight"].detach().flatten(1).any(1)
    if (bias := named.get(f"{channels.layer}.bias")) is not None:
        off &= bias == 0
    for norm in channels.norms:
        scale, shift = named.get(f"{norm}.weight"), named.get(f"{norm}.bias")
        off &= torch.zeros_like(off) if scale is None or shift is None else (scale == 0) & (shift == 0)
    return off


def _spare_one(off: Tensor) -> Tensor:
    if off.all():
        off = off.clone()
        off[0] = False
    return off
