"""Exact top-k selection of scores over several tensors, without sorting them.

On a CPU, bit patterns are compared as integers, layer by layer in chunks that fit the cache. A sample brackets the
threshold; one pass over all scores then counts those below the bracket and collects those within, few of which are
left to sort. If the bracket misses, or too many scores are equal, a radix selection finds the threshold instead: most
significant digit first, one histogram per digit. Neither copies the scores: less than 1 MB is allocated beside scores
and masks (``benchmarks/selection.py`` measures this, and the time against a full sort). On other devices
:mod:`trials.sparsity.select_wide` selects in few kernel launches and without waiting for the device.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from trials.sparsity.select_wide import RowMajor, select_flat, select_rows
from trials.training import launches
from trials.training.strides import is_dense, memory_order

_CHUNK = 1 << 15
_SORTED = 1 << 13
"""Off the CPU, layers of at most this many scores are selected by one batched sort: launches would dominate."""

_DIGIT = 11
_BITS = {torch.float16: 16, torch.bfloat16: 16, torch.float32: 32, torch.float64: 64}
_INTEGER = {16: torch.int16, 32: torch.int32, 64: torch.int64}

_SAMPLED = 1 << 14
"""Number of scores in the first sample that brackets a threshold."""
_DENSER = 17
"""The second sample takes one of so many scores."""
_SIGMAS = 4.0
"""Half of the bracket's width, in standard deviations of the rank in the sample."""
_WITHIN_BYTES = 1 << 19
"""Room for the scores within a bracket; if they need more, the radix selection is used instead."""


def _step(layer: Tensor) -> int:
    """Return the number of entries per chunk, which fits the cache; whole rows if the layer is not contiguous."""
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


def _threshold(scores: Sequence[Tensor], drop: int, absolute: bool) -> tuple[int, int, int]:
    """Return the key of the ``drop``-th smallest score, how many scores equal to it to drop, and how many there are."""
    found = None
    if all(map(is_dense, scores)):
        found = _bracketed([memory_order(layer) for layer in scores], drop, absolute)
    return _by_digits(scores, drop, absolute) if found is None else found


def _bracketed(flat: Sequence[Tensor], drop: int, absolute: bool) -> tuple[int, int, int] | None:
    """Like :func:`_threshold`, by ever denser samples of flat scores; None if a bracket misses or too many lie within.

    Each sample brackets the threshold for the next one, of which only the scores within are kept. The last is whole.
    """
    total = sum(layer.numel() for layer in flat)
    share = drop / total
    integers = np.iinfo(f"int{_BITS[flat[0].dtype]}")
    low, high = integers.min, integers.max
    into = np.empty(_WITHIN_BYTES // integers.dtype.itemsize, integers.dtype)
    for stride in _strides(total):
        sample = [layer[::stride] for layer in flat]
        below, within = _within(sample, low, high, absolute, into)
        if within is None or stride == 1:
            return None if within is None else _at(within, drop - below)
        n = sum(layer.numel() for layer in sample)
        slack = _SIGMAS * math.sqrt(share * (1 - share) * n) + 2
        first, last = math.floor(share * n - slack) - below, math.ceil(share * n + slack) - below
        places = [place for place in (first, last) if 0 <= place < len(within)]
        within.partition(places)
        low = within[first] if first in places else low
        high = within[last] if last in places else high
    return None


def _strides(total: int) -> Iterator[int]:
    """Yield the strides of the samples of so many scores; the last is 1.

    None has a factor in common with the sizes of kernels, whose positions would be sampled unevenly.
    """
    first = total // _SAMPLED
    if first > 2 * _DENSER:
        yield next(stride for stride in range(first, 2 * first) if math.gcd(stride, 2 * 3 * 5 * 7 * 11) == 1)
    if first > 2:
        yield _DENSER
    yield 1


def _within(sample: Sequence[Tensor], low: Any, high: Any, absolute: bool, into: Any) -> tuple[int, Any]:
    """Return how many keys are below ``low``, and those from ``low`` to ``high``, or None if ``into`` cannot hold them.

    ``into``: an array whose content is replaced.
    """
    below = kept = 0
    for layer in sample:
        for keys in _keys(layer, absolute):
            values = keys.numpy()
            outside = values < low
            below += int(np.count_nonzero(outside))
            outside |= values > high
            found = values[~outside]
            if kept + len(found) > len(into):
                return below, None
            into[kept : kept + len(found)] = found
            kept += len(found)
    return below, into[:kept]


def _at(within: Any, rank: int) -> tuple[int, int, int] | None:
    """Return the ``rank``-th smallest key, how many equal to it are among so many, and how many there are."""
    if not 1 <= rank <= len(within):
        return None
    within.partition(rank - 1)
    key = within[rank - 1]
    return int(key), rank - int(np.count_nonzero(within < key)), int(np.count_nonzero(within == key))


def _by_digits(scores: Sequence[Tensor], drop: int, absolute: bool) -> tuple[int, int, int]:
    """Like :func:`_threshold`, by radix selection."""
    shift, prefix, remaining, count = _BITS[scores[0].dtype], None, drop, 0
    while shift:
        width = min(_DIGIT, shift)
        shift -= width
        bins = 1 << width
        counts = np.zeros(bins, dtype=np.int64)
        for layer in scores:
            for keys in _keys(layer, absolute):
                digits = keys.bitwise_right_shift_(shift)
                if prefix is None:
                    digits += bins // 2  # the top digit carries the sign
                else:
                    digits ^= prefix << width  # keys with another prefix fall outside the bins
                counts += np.bincount(digits.clamp_(-1, bins).add_(1).numpy(), minlength=bins + 2)[1:-1]
        below = counts.cumsum()
        digit = int(np.searchsorted(below, remaining))
        count = int(counts[digit])
        remaining -= int(below[digit]) - count
        prefix = digit - bins // 2 if prefix is None else (prefix << width) | digit
    assert prefix is not None
    return prefix, remaining, count


def select(
    scores: Sequence[Tensor], keep: int, *, absolute: bool = False, row_major: RowMajor | None = None
) -> list[Tensor]:
    """Return masks that keep exactly ``keep`` of all entries: the largest scores over all tensors together.

    Args:
        scores: tensors of any shapes, of one floating dtype and on one device, without NaN.
        keep: number of entries to keep, between 0 and their total.
        absolute: compare absolute values, without computing them.
        row_major: of these tensors' shapes and strides; without it, each that is not contiguous is copied off the CPU.

    Returns:
        A bool tensor per score tensor, of its shape; off the CPU also of its strides. Among equal scores, the lower
        flat index is dropped first.

    Raises:
        ValueError: ``keep`` is out of range.
    """
    total = sum(layer.numel() for layer in scores)
    if not 0 <= keep <= total:
        raise ValueError(f"keep is {keep}, but must be between 0 and the number of scores, {total}")
    if keep in (0, total):
        return [torch.full(layer.shape, keep > 0, dtype=torch.bool, device=layer.device) for layer in scores]
    if _by_layer(scores):
        return _select(scores, total - keep, absolute)
    return select_flat(scores, total - keep, absolute, row_major)


def _by_layer(scores: Sequence[Tensor]) -> bool:
    """Whether to process layer by layer and read values on the host: on a CPU, which has no kernel launches."""
    return not launches.few_launches(scores[0].device)


def _select(scores: Sequence[Tensor], drop: int, absolute: bool) -> list[Tensor]:
    """Return masks that switch off the ``drop`` smallest scores, 0 < ``drop`` < number of scores."""
    threshold, drop_ties, ties = _threshold(scores, drop, absolute)
    masks = []
    for layer in scores:
        mask = torch.empty(layer.numel(), dtype=torch.bool)
        for keys, part in zip(_keys(layer, absolute), torch.split(mask, _step(layer)), strict=True):
            np.greater(keys.numpy(), threshold, out=part.numpy())
        masks.append(mask.view(layer.shape))
    if drop_ties != ties:
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


def _keep_later_ties(
    scores: Sequence[Tensor], masks: Sequence[Tensor], threshold: int, drop_ties: int, absolute: bool
) -> None:
    """Switch on scores equal to the threshold, except the first ``drop_ties`` by flat index over all tensors."""
    for layer, mask in zip(scores, masks, strict=True):
        for keys, part in zip(_keys(layer, absolute), torch.split(mask.view(-1), _step(layer)), strict=True):
            ties = np.flatnonzero(keys.numpy() == threshold)
            part.numpy()[ties[drop_ties:]] = True
            drop_ties = max(drop_ties - len(ties), 0)
