"""Exact top-k selection of scores over several tensors, without sorting them.

A radix selection on the scores' bit patterns finds the threshold: most significant digit first, one histogram per
digit, layer by layer in chunks that fit the cache. On a CPU it copies no scores and allocates less than 1 MB beside
scores and masks, for any number of scores (``benchmarks/selection.py`` measures this, and the time against a full
sort). On other devices all layers are flattened into one chunk, so that kernel launches do not dominate, and nothing
synchronises with the device.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

_CHUNK = 1 << 15
_SORTED = 1 << 13
"""Off the CPU, layers of at most this many scores are selected by one batched sort: launches would dominate."""

_DIGIT = 11
_BITS = {torch.float16: 16, torch.bfloat16: 16, torch.float32: 32, torch.float64: 64}
_INTEGER = {16: torch.int16, 32: torch.int32, 64: torch.int64}


def _step(layer: Tensor) -> int:
    """Return the number of entries per chunk.

    On a CPU a chunk fits the cache, and holds whole rows if the layer is not contiguous; on other devices it is the
    whole layer.
    """
    if layer.device.type != "cpu":
        return max(layer.numel(), 1)
    chunk = max(_CHUNK // max(layer.element_size() // 4, 1), 1)
    if layer.is_contiguous():
        return chunk
    row = layer[0].numel()
    return max(chunk // row, 1) * row


def _chunks(layer: Tensor) -> Iterator[Tensor]:
    """Yield a layer's entries by flat index in chunks of :func:`_step`: views, or copies of one chunk at a time."""
    layer, step = layer.detach(), _step(layer)
    if layer.is_contiguous():
        yield from torch.split(layer.view(-1), step)
    else:
        for rows in torch.split(layer, step // layer[0].numel()):
            yield rows.reshape(-1)


def _keys(scores: Tensor, absolute: bool) -> Iterator[Tensor]:
    """Yield chunks of integers that order as the scores, or as their absolute values; they may be overwritten."""
    bits = _BITS[scores.dtype]
    positive = (1 << (bits - 1)) - 1
    for chunk in _chunks(scores):
        if absolute:
            yield chunk.view(_INTEGER[bits]) & positive
        else:  # adding 0 turns -0 into 0; as integers, negative floats order backwards: flip their lower bits
            keys = (chunk + 0.0).view(_INTEGER[bits])
            yield (keys >> (bits - 1)).bitwise_and_(positive).bitwise_xor_(keys)


def _histogram(digits: Tensor, bins: int) -> Tensor:
    """Return the counts of 0..bins-1 in ``digits``, [bins] int64; other values are ignored. Overwrites ``digits``."""
    if digits.device.type == "cpu":
        return torch.bincount(digits.clamp_(-1, bins).add_(1), minlength=bins + 2)[1:-1]
    # histc with fixed bounds does not synchronise with the device
    return torch.histc(digits.to(torch.int32).clamp_(-1, bins), bins=bins, min=0, max=bins - 1).to(torch.int64)


def _threshold(scores: Sequence[Tensor], drop: int, absolute: bool) -> tuple[Tensor, Tensor, Tensor]:
    """Return the key of the ``drop``-th smallest score, how many scores equal to it to drop, and how many there are.

    All three are scalars on the device. ``gather`` takes its index there, whereas indexing would read it on the host.
    """
    bits = shift = _BITS[scores[0].dtype]
    device = scores[0].device
    prefix: Tensor | None = None  # the digits found so far
    remaining = torch.full((), drop, dtype=torch.int64, device=device)
    while shift:
        width = min(_DIGIT, shift)
        shift -= width
        bins = 1 << width
        counts = torch.zeros(bins, dtype=torch.int64, device=device)
        for layer in scores:
            for keys in _keys(layer, absolute):
                digits = keys.bitwise_right_shift_(shift)
                if prefix is None:
                    digits += bins // 2  # the top digit carries the sign
                else:
                    digits ^= prefix << width  # keys with another prefix fall outside the bins
                counts += _histogram(digits, bins)
        below = counts.cumsum(0)
        digit = torch.searchsorted(below, remaining)
        count = counts.gather(0, digit)
        remaining = remaining - (below.gather(0, digit) - count)
        prefix = digit - bins // 2 if prefix is None else (prefix << width) | digit
    assert prefix is not None
    return prefix.to(_INTEGER[bits]), remaining, count


def select(scores: Sequence[Tensor], keep: int, *, absolute: bool = False) -> list[Tensor]:
    """Return masks that keep exactly ``keep`` of all entries: the largest scores over all tensors together.

    Args:
        scores: tensors of any shapes, of one floating dtype and on one device, without NaN.
        keep: number of entries to keep, between 0 and their total.
        absolute: compare absolute values, without computing them.

    Returns:
        A bool tensor per score tensor, of its shape. Among equal scores, the lower flat index is dropped first.

    Raises:
        ValueError: ``keep`` is out of range.
    """
    total = sum(layer.numel() for layer in scores)
    if not 0 <= keep <= total:
        raise ValueError(f"keep is {keep}, but must be between 0 and the number of scores, {total}")
    if keep in (0, total):
        return [torch.full(layer.shape, keep > 0, dtype=torch.bool, device=layer.device) for layer in scores]
    return (_select if _by_layer(scores) else select_flat)(scores, total - keep, absolute)


def _by_layer(scores: Sequence[Tensor]) -> bool:
    """Whether to process layer by layer and read values on the host: on a CPU, which has no kernel launches."""
    return scores[0].device.type == "cpu"


def select_flat(scores: Sequence[Tensor], drop: int, absolute: bool) -> list[Tensor]:
    """Like :func:`select`, in few kernel launches but with a copy of the scores; 0 < ``drop`` < number of scores."""
    flat = torch.cat([layer.detach().reshape(-1) for layer in scores])
    (mask,) = _select([flat], drop, absolute)
    parts = torch.split(mask, [layer.numel() for layer in scores])
    return [part.view(layer.shape) for part, layer in zip(parts, scores, strict=True)]


def _select(scores: Sequence[Tensor], drop: int, absolute: bool) -> list[Tensor]:
    """Return masks that switch off the ``drop`` smallest scores, 0 < ``drop`` < number of scores."""
    threshold, drop_ties, ties = _threshold(scores, drop, absolute)
    masks = []
    for layer in scores:
        mask = torch.empty(layer.numel(), dtype=torch.bool, device=layer.device)
        for keys, part in zip(_keys(layer, absolute), torch.split(mask.view(-1), _step(layer)), strict=True):
            torch.gt(keys, threshold, out=part)
        masks.append(mask.view(layer.shape))
    if not _by_layer(scores) or int(drop_ties) != int(ties):
        _keep_later_ties(scores, masks, threshold, drop_ties, absolute)
    return masks


def select_each(scores: Sequence[Tensor], keep: Sequence[int], *, absolute: bool = False) -> list[Tensor]:
    """Return masks that keep exactly ``keep[i]`` entries of the i-th tensor, each chosen as by :func:`select`.

    Args:
        scores: tensors of any shapes, of one floating dtype and on one device, without NaN.
        keep: one number per tensor, between 0 and the number of its entries.
        absolute: compare absolute values.

    Raises:
        ValueError: a number is out of range.
    """
    few = bool(scores) and max(layer.numel() for layer in scores) <= _SORTED
    if few and not _by_layer(scores):
        return select_rows(scores, keep, absolute)
    return [select([layer], count, absolute=absolute)[0] for layer, count in zip(scores, keep, strict=True)]


def select_rows(scores: Sequence[Tensor], keep: Sequence[int], absolute: bool) -> list[Tensor]:
    """Like :func:`select_each`, by one stable sort of rows that does not synchronise with the device.

    All rows drop the same number of entries, that of the row that drops most. The others are padded in front with as
    many entries of -inf as they drop fewer; inf pads every row at the end to a common length.
    """
    sizes = [layer.numel() for layer in scores]
    for count, size in zip(keep, sizes, strict=True):
        if not 0 <= count <= size:
            raise ValueError(f"keep is {count}, but must be between 0 and the number of scores, {size}")
    drop = max(size - count for size, count in zip(sizes, keep, strict=True))
    leads = [drop - (size - count) for size, count in zip(sizes, keep, strict=True)]
    rows = scores[0].new_full((len(sizes), max(map(sum, zip(leads, sizes, strict=True)))), torch.inf)
    for row, layer, lead, size in zip(rows, scores, leads, sizes, strict=True):
        values = layer.detach().reshape(-1)
        row[:lead].fill_(-torch.inf)
        row[lead : lead + size].copy_(values.abs() if absolute else values)
    order = rows.argsort(dim=1, stable=True)
    stays = (torch.arange(rows.shape[1], device=rows.device) >= drop).expand_as(order)
    masks = torch.empty_like(order, dtype=torch.bool).scatter_(1, order, stays)
    each = zip(masks, scores, leads, sizes, strict=True)
    return [mask[lead : lead + size].view(layer.shape) for mask, layer, lead, size in each]


def _keep_later_ties(
    scores: Sequence[Tensor], masks: Sequence[Tensor], threshold: Tensor, drop_ties: Tensor, absolute: bool
) -> None:
    """Switch on scores equal to the threshold, except the first ``drop_ties`` by flat index over all tensors."""
    seen = torch.zeros_like(drop_ties)
    for layer, mask in zip(scores, masks, strict=True):
        for keys, part in zip(_keys(layer, absolute), torch.split(mask.view(-1), _step(layer)), strict=True):
            if keys.numel():
                seen = seen + _switch_on_later(part, keys == threshold, drop_ties - seen)


def _switch_on_later(mask: Tensor, ties: Tensor, drop: Tensor) -> Tensor:
    """Switch on all ``ties`` but the first ``drop``; return the number of ties."""
    order = ties.cumsum(0, dtype=torch.int32)
    mask |= ties.logical_and_(order > drop)
    return order[-1].to(drop.dtype)
