"""Exact top-k selection in few operators, for devices whose kernel launches cost more than copies of the scores.

The number of operators does not grow with the number of layers, and none waits for the device.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from trials.training.strides import in_strides_of, memory_order


@dataclass(frozen=True)
class RowMajor:
    """Maps the places of entries by flat index over several tensors to their places in memory order, and back.

    Attributes:
        to_memory: by flat index, the place in memory order; int64, of all tensors' entries.
        to_index: the inverse.
    """

    to_memory: Tensor
    to_index: Tensor

    @classmethod
    def of(cls, tensors: Sequence[Tensor]) -> RowMajor | None:
        """The map of tensors whose entries lie densely in memory; None if flat index and memory order are the same."""
        if all(tensor.is_contiguous() for tensor in tensors):
            return None
        to_memory, start = [], 0
        for tensor in tensors:
            places = torch.arange(start, start + tensor.numel(), device=tensor.device)
            to_memory.append(in_strides_of(tensor, places).reshape(-1))
            start += tensor.numel()
        places = torch.cat(to_memory)
        return cls(places, places.argsort())


def select_flat(scores: Sequence[Tensor], drop: int, absolute: bool, row_major: RowMajor | None = None) -> list[Tensor]:
    """Return masks that switch off the ``drop`` smallest scores, 0 < ``drop`` < number of scores.

    Of equal scores, those of lower flat index go first. Masks have the strides of their scores if ``row_major`` maps
    these tensors; without it, scores that are not contiguous are copied, and masks are contiguous.
    """
    if row_major is None:
        flat = torch.cat([layer.detach().reshape(-1) for layer in scores])
    else:
        flat = torch.cat([memory_order(layer) for layer in scores])
    if absolute:
        flat = flat.abs_()
    mask = _drop_smallest(flat, drop, row_major)
    parts = torch.split(mask, [layer.numel() for layer in scores])
    if row_major is None:
        return [part.view(layer.shape) for part, layer in zip(parts, scores, strict=True)]
    return [in_strides_of(layer, part) for part, layer in zip(parts, scores, strict=True)]


def _drop_smallest(flat: Tensor, drop: int, row_major: RowMajor | None) -> Tensor:
    """Return the mask of all entries of ``flat``, [n], but the ``drop`` smallest."""
    keep = flat.numel() - drop
    if drop < keep:  # topk of fewer entries is faster; it does not wait for the device
        threshold = flat.topk(drop, largest=False, sorted=False).values.amax()
    else:
        threshold = flat.topk(keep, sorted=False).values.amin()
    mask, ties = flat >= threshold, flat == threshold
    if row_major is None:
        order = ties.cumsum(0, dtype=torch.int32)
    else:
        order = ties.index_select(0, row_major.to_memory).cumsum(0, dtype=torch.int32)
        order = order.index_select(0, row_major.to_index)
    return mask.bitwise_xor_(ties.logical_and_(order <= mask.sum() - keep))


def select_rows(scores: Sequence[Tensor], keep: Sequence[int], absolute: bool) -> list[Tensor]:
    """Return masks that keep exactly ``keep[i]`` entries of the i-th tensor, by one stable sort of padded rows.

    All rows drop the same number of entries, that of the row that drops most. The others are padded in front with as
    many entries of -inf as they drop fewer; inf pads every row at the end to a common length.

    Raises:
        ValueError: a number is out of range.
    """
    sizes = [layer.numel() for layer in scores]
    for count, size in zip(keep, sizes, strict=True):
        if not 0 <= count <= size:
            raise ValueError(f"keep is {count}, but must be between 0 and the number of scores, {size}")
    drop = max(size - count for size, count in zip(sizes, keep, strict=True))
    leads = [drop - (size - count) for size, count in zip(sizes, keep, strict=True)]
    width = max(map(sum, zip(leads, sizes, strict=True)))
    entries = [layer.detach().reshape(-1) for layer in scores]
    least, most = (scores[0].new_full((width,), sign * torch.inf) for sign in (-1, 1))
    pieces: list[Tensor] = []
    for values, lead, size in zip(torch._foreach_abs(entries) if absolute else entries, leads, sizes, strict=True):
        pieces += [least[:lead], values, most[: width - lead - size]]
    rows = torch.cat(pieces).view(len(sizes), width)
    order = rows.argsort(dim=1, stable=True)
    # one value, not a tensor of them: with deterministic algorithms, CUDA scatters tensors by way of the host
    masks = torch.ones_like(order, dtype=torch.bool).scatter_(1, order[:, :drop], False)
    each = zip(masks, scores, leads, sizes, strict=True)
    return [mask[lead : lead + size].view(layer.shape) for mask, layer, lead, size in each]
