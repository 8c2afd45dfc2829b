"""Whole filters that come back: what they are worth, and which dense filters a narrowed layer still has.

A layer's kept filters are an explicit list of indices into the dense layer, here the rows of its mask: values and
gradients are taken by index, never by position in the narrowed layer.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import torch
from torch import Tensor


def filter_counts(masks: Mapping[str, Tensor]) -> dict[str, int]:
    """Filters that are pruned whole, by weight name."""
    return {name: int((~kept_filters(mask)).sum()) for name, mask in masks.items()}


def units(mask: Tensor, unit: Literal["weight", "filter"]) -> Tensor:
    """A mask of the units that are there: the mask itself, or a bool per filter [O]."""
    return mask if unit == "weight" else kept_filters(mask)


def kept_filters(mask: Tensor) -> Tensor:
    """Which filters have a weight left: bool [O]."""
    return mask.flatten(1).any(1)


def filter_indices(filters: Tensor, shape: torch.Size) -> Tensor:
    """Flat indices of all weights of the filters [n], filter by filter."""
    size = shape[1:].numel()
    return (filters[:, None] * size + torch.arange(size, device=filters.device)).reshape(-1)


def taylor_scores(gradient: Tensor, dense: Tensor) -> Tensor:
    """What a dense filter is worth to the sparse layer: sum over its weights of abs(mean gradient x dense weight), [O].

    Args:
        gradient: of the filters that are left, [kept, I, kh, kw]; summed over batches.
        dense: all filters, [O, I, kh, kw].
    """
    return (gradient.mean(0) * dense).abs().flatten(1).sum(1)


def nearest_filters(narrow: Tensor, dense: Tensor) -> list[int]:
    """For each filter of a narrowed layer, the dense one nearest in L1 distance: where kept lists are lost.

    Two may share one; of input channels that are lost as well, the dense layer's first are compared.
    """
    width = min(narrow.shape[1], dense.shape[1])
    distances = torch.cdist(narrow[:, :width].flatten(1), dense[:, :width].flatten(1), p=1)
    return [int(i) for i in distances.argmin(1)]


def matched_filters(narrow: Tensor, dense: Tensor) -> list[int]:
    """Likewise by cosine similarity, the most similar pair first, each dense filter once."""
    width = min(narrow[0].numel(), dense[0].numel())
    a, b = (torch.nn.functional.normalize(w.flatten(1)[:, :width].double(), dim=1) for w in (narrow, dense))
    likeness = a @ b.T  # [narrow, dense]
    found = [-1] * len(narrow)
    for _ in range(len(narrow)):
        row, column = divmod(int(likeness.argmax()), likeness.shape[1])
        found[row] = column
        likeness[row], likeness[:, column] = -torch.inf, -torch.inf
    return found


def channel_sparsity(kept: Mapping[str, int], original: Mapping[str, int]) -> float:
    """1 - filters left over filters there were."""
    return 1 - sum(kept.values()) / sum(original.values())
