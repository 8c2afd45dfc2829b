"""The compact form of a network: as small as it can be while it computes the same outputs."""

from __future__ import annotations

import copy

from trials.compact import cut_tensors, simplify, slices
from trials.training.net import Net


def compact_form(net: Net) -> Net:
    """Return a smaller copy of a network, with the same outputs in evaluation mode up to rounding, and its masks.

    See :mod:`trials.compact.silent` for what it leaves out. A weight that takes over what others contributed has no
    mask any more.

    Raises:
        UserError: the model cannot be traced.
    """
    model = copy.deepcopy(net.model).eval()
    kept = simplify(model)
    smaller = Net(model)
    smaller.kept = {**net.kept, **{n: net.kept[n][rows] if n in net.kept else rows for n, rows in kept.items()}}
    masks = cut_tensors(net.masks, slices(net.model, kept))
    smaller.set_masks({name: mask | (model.get_parameter(name).detach() != 0) for name, mask in masks.items()})
    return smaller
