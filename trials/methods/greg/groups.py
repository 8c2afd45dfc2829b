"""Groups of weights that are removed together, layer by layer, as GReg scores, counts and picks them (spec, section 4).

A tensor of groups has as many dimensions as its weight: [N, 1, 1, 1] for filters, [1, C, 1, 1] for input channels (rows
and columns of linear layers alike), the weight's shape for single weights. It multiplies the weight as it is.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from trials.sparsity.select import select

GroupPattern = Literal["filter", "channel", "weight"]
Pick = Literal["min", "max", "rand"]


def group_scores(weight: Tensor, pattern: GroupPattern) -> Tensor:
    """Mean absolute weight of every group."""
    magnitude = weight.detach().abs()
    if pattern == "weight":
        return magnitude
    own = 0 if pattern == "filter" else 1
    return magnitude.mean([dim for dim in range(weight.dim()) if dim != own], keepdim=True)


def group_shape(weight: Tensor | Sequence[int], pattern: GroupPattern) -> torch.Size:
    """The shape of a tensor of groups of a weight (or of a weight of that shape)."""
    shape = weight.shape if isinstance(weight, Tensor) else torch.Size(weight)
    if pattern == "weight":
        return shape
    own = 0 if pattern == "filter" else 1
    return torch.Size(size if dim == own else 1 for dim, size in enumerate(shape))


def prune_count(ratio: float, n: int) -> int:
    """How many of ``n`` groups a ratio removes: ceil(ratio n) in double arithmetic, but never the last one.

    ``ceil`` of a float can remove one more than the decimals say (0.14 of 50 removes 8), as the published code does.

    >>> prune_count(0.5, 10), prune_count(0.14, 50), prune_count(1.0, 4), prune_count(0.5, 1)
    (5, 8, 3, 0)
    """
    return min(math.ceil(ratio * n), n - 1) if ratio > 0 else 0


def pick_groups(scores: Tensor, count: int, pick: Pick, generator: torch.Generator | None = None) -> Tensor:
    """Bool, True for the ``count`` groups to remove: the lowest scores, the highest, or any.

    Among equal scores the lower index goes first. ``rand`` draws on the CPU, so that it picks alike on every device.
    """
    if pick == "rand":
        chosen = torch.zeros(scores.numel(), dtype=torch.bool)
        chosen[torch.randperm(scores.numel(), generator=generator)[:count]] = True
        return chosen.view(scores.shape).to(scores.device)
    (kept,) = select([scores if pick == "min" else -scores], scores.numel() - count)
    return ~kept


def magnitude_ratio(scores: Tensor, pruned: Tensor) -> Tensor:
    """Mean score of the kept groups over the mean score of the pruned; a scalar on the device."""
    count = pruned.sum()
    of_pruned = (scores * pruned).sum()
    return ((scores.sum() - of_pruned) / (pruned.numel() - count)) / (of_pruned / count)


def lowest_ratio(scores: Tensor, count: int) -> Tensor:
    """:func:`magnitude_ratio` if the ``count`` lowest scores were the pruned ones."""
    ascending = scores.flatten().sort().values
    return ascending[count:].mean() / ascending[:count].mean()
