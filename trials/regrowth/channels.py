"""Regrowth of whole filters: their scores, and the dense filters that a narrowed layer still has.

A layer's kept filters are explicit indices into the dense layer, here the rows of its mask. Values and gradients are
looked up by these indices, never by position in the narrowed layer.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import torch
from torch import Tensor


def units(mask: Tensor, unit: Literal["weight", "filter"]) -> Tensor:
    """Return a mask of the kept units: the mask itself for weights, or a bool per filter [O]."""
    return mask if unit == "weight" else kept_filters(mask)


def kept_filters(mask: Tensor) -> Tensor:
    """Return which filters have at least one kept weight: bool [O]."""
    return mask.flatten(1).any(1)


def filter_indices(filters: Tensor, shape: torch.Size) -> Tensor:
    """Return the flat indices of all weights of ``filters`` [n], filter by filter."""
    size = shape[1:].numel()
    return (filters[:, None] * size + torch.arange(size, device=filters.device)).reshape(-1)


def taylor_scores(gradient: Tensor, dense: Tensor) -> Tensor:
    """Score the dense filters for the sparse layer: sum over a filter's weights of |mean gradient x dense weight|, [O].

    Args:
        gradient: gradients of the kept filters, [kept, I, kh, kw], aggregated over batches; their mean is over filters.
        dense: all filters of the dense layer, [O, I, kh, kw].
    """
    return (gradient.mean(0) * dense).abs().flatten(1).sum(1)


def matched_filters(narrow: Tensor, dense: Tensor) -> list[int]:
    """Return, for each filter of a narrowed layer, the dense filter that it is likest to, each dense one used once.

    For networks whose lists of kept filters are lost. Pairs are taken greedily by cosine similarity. If input channels
    are missing too, filters are compared on their first weights.
    """
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
    """Return 1 - kept filters / original filters, summed over layers."""
    return 1 - sum(kept.values()) / sum(original.values())
