"""Which units stay: an exact selection of the smallest scores, at the cost of a selection and not of a sort.

The threshold is found by a radix selection on the scores' bit patterns (most significant digit first, one histogram
per digit, streamed in chunks that fit the cache), which needs no copy of the scores. Measured against a full sort in
``benchmarks/selection.py``.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

_CHUNK = 1 << 18
_DIGIT = 16
_BITS = {torch.float16: 16, torch.bfloat16: 16, torch.float32: 32, torch.float64: 64}
_INTEGER = {16: torch.int16, 32: torch.int32, 64: torch.int64}


def keep_count(density: float, n: int) -> int:
    """How many of ``n`` units a density keeps: n - int((1 - density) n), in double arithmetic (BiP, section 2).

    ``int`` truncates, so that float noise can only keep one more (0.9 of 10 keeps 10), as the published code does.

    >>> keep_count(0.2, 100), keep_count(0.9, 10), keep_count(1.0, 7)
    (20, 10, 7)
    """
    return n - int((1 - density) * n)


def _keys(scores: Tensor, absolute: bool) -> Iterator[Tensor]:
    """Chunks of integers that order as the scores do (as their absolute values, if ``absolute``)."""
    bits = _BITS[scores.dtype]
    positive = (1 << (bits - 1)) - 1
    for chunk in torch.split(scores.detach().reshape(-1), _CHUNK):
        if absolute:
            yield chunk.view(_INTEGER[bits]) & positive
        else:  # adding 0 turns -0 into 0; negative floats order backwards as integers: flip their lower bits
            keys = (chunk + 0.0).view(_INTEGER[bits])
            yield keys ^ ((keys >> (bits - 1)) & positive)


def _histogram(keys: Tensor, shift: int, prefix: Tensor | None) -> Tensor:
    """Counts of the digit above ``shift`` among the keys whose higher digits equal ``prefix``. [2^16] int64."""
    digits = keys >> shift
    top = prefix is None
    bins = 1 << _DIGIT
    if prefix is not None:
        matches = (digits >> _DIGIT) == prefix
        digits = digits & (bins - 1)
    offset = bins // 2 if top else 0  # the top digit carries the sign
    if digits.dtype == torch.int16:
        digits = digits.to(torch.int32)
    if keys.device.type == "cpu":
        if not top:
            digits = digits[matches]
        return torch.bincount(digits + offset, minlength=bins)
    # histc with fixed bounds never waits for the device; what lies outside the bounds is not counted
    digits = digits.to(torch.int32) + offset
    if not top:
        digits = torch.where(matches, digits, -1)
    return torch.histc(digits, bins=bins, min=0, max=bins - 1).to(torch.int64)


def _threshold(scores: Sequence[Tensor], drop: int, absolute: bool) -> tuple[Tensor, Tensor, Tensor]:
    """The key of the ``drop``-th smallest score, how many of the scores equal to it to drop, how many there are."""
    bits = _BITS[scores[0].dtype]
    device = scores[0].device
    prefix: Tensor | None = None
    remaining = torch.tensor(drop, device=device)
    for shift in range(bits - _DIGIT, -1, -_DIGIT):
        counts = torch.zeros(1 << _DIGIT, dtype=torch.int64, device=device)
        for layer in scores:
            for keys in _keys(layer, absolute):
                counts += _histogram(keys, shift, prefix)
        below = counts.cumsum(0)
        digit = torch.searchsorted(below, remaining)
        count = counts[digit]
        remaining = remaining - (below[digit] - count)
        if prefix is None:
            prefix = digit - (1 << (_DIGIT - 1))
        else:
            prefix = (prefix << _DIGIT) | digit
    assert prefix is not None
    return prefix.to(_INTEGER[bits]), remaining, count


def select(scores: Sequence[Tensor], keep: int, *, absolute: bool = False) -> list[Tensor]:
    """Masks that keep exactly ``keep`` of all entries: the largest scores over all tensors taken together.

    Args:
        scores: tensors of any shapes, of one floating dtype and on one device, without NaN.
        keep: how many entries to keep in all, between 0 and their number.
        absolute: compare absolute values (without computing them).

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
    threshold, drop_ties, ties = _threshold(scores, total - keep, absolute)
    masks = []
    for layer in scores:
        mask = torch.empty(layer.numel(), dtype=torch.bool, device=layer.device)
        for keys, part in zip(_keys(layer, absolute), torch.split(mask, _CHUNK), strict=True):
            torch.gt(keys, threshold, out=part)
        masks.append(mask.view(layer.shape))
    on_cpu = scores[0].device.type == "cpu"
    if on_cpu and int(drop_ties) == int(ties):
        return masks
    _keep_later_ties(scores, masks, threshold, drop_ties, absolute)
    return masks


def _keep_later_ties(
    scores: Sequence[Tensor], masks: Sequence[Tensor], threshold: Tensor, drop_ties: Tensor, absolute: bool
) -> None:
    """Switch on the scores equal to the threshold, but for the first ``drop_ties`` by flat index over all tensors."""
    seen = torch.zeros_like(drop_ties)
    for layer, mask in zip(scores, masks, strict=True):
        for keys, part in zip(_keys(layer, absolute), torch.split(mask.view(-1), _CHUNK), strict=True):
            if not keys.numel():
                continue
            equal = keys == threshold
            order = equal.cumsum(0) + seen
            part |= equal & (order > drop_ties)
            seen = order[-1]
