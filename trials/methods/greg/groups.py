"""Groups of weights (filters, input channels or single weights): GReg's scores, counts and picks per layer.

Released code: MingSun-Tse/Regularization-Pruning at a4044028, pruner/meta_pruner.py.

A tensor of groups broadcasts against its weight: its shape is [N, 1, 1, 1] for filters and [1, C, 1, 1] for input
channels of a convolution, [N, 1] and [1, C] for rows and columns of a linear layer, and the weight's own shape for
single weights.
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
    """Mean absolute weight of every group, in the shape of the groups."""
    magnitude = weight.detach().abs()
    if pattern == "weight":
        return magnitude
    own = 0 if pattern == "filter" else 1
    return magnitude.mean([dim for dim in range(weight.dim()) if dim != own], keepdim=True)


def group_shape(weight: Tensor | Sequence[int], pattern: GroupPattern) -> torch.Size:
    """The shape of the tensor of groups for a weight, or for a weight of the given shape."""
    shape = weight.shape if isinstance(weight, Tensor) else torch.Size(weight)
    if pattern == "weight":
        return shape
    own = 0 if pattern == "filter" else 1
    return torch.Size(size if dim == own else 1 for dim, size in enumerate(shape))


def prune_count(ratio: float, n: int) -> int:
    """Number of ``n`` groups that a ratio removes: min(ceil(ratio n), n - 1), in double precision.

    As in the released code, rounding of ``ratio n`` can add one: 0.14 of 50 removes 8, not 7.

    >>> prune_count(0.5, 10), prune_count(0.14, 50), prune_count(1.0, 4), prune_count(0.5, 1)
    (5, 8, 3, 0)
    """
    return min(math.ceil(ratio * n), n - 1) if ratio > 0 else 0


def pick_groups(scores: Tensor, count: int, pick: Pick, generator: torch.Generator | None = None) -> Tensor:
    """Pick ``count`` groups to remove: the lowest scores, the highest, or random ones. Bool, True is removed.

    Among equal scores the lower index is removed first. ``rand`` draws on the CPU, so all devices pick the same groups.
    """
    if pick == "rand":
        chosen = torch.zeros(scores.numel(), dtype=torch.bool)
        chosen[torch.randperm(scores.numel(), generator=generator)[:count]] = True
        return chosen.view(scores.shape).to(scores.device)
    (kept,) = select([scores if pick == "min" else -scores], scores.numel() - count)
    return ~kept


def magnitude_ratio(scores: Tensor, pruned: Tensor) -> Tensor:
    """r = mean score of the kept groups / mean score of the pruned groups; a scalar on the device."""
    count = pruned.sum()
    of_pruned = (scores * pruned).sum()
    return ((scores.sum() - of_pruned) / (pruned.numel() - count)) / (of_pruned / count)


def lowest_ratio(scores: Tensor, count: int) -> Tensor:
    """r (see :func:`magnitude_ratio`) as if the ``count`` groups with the lowest scores were pruned."""
    ascending = scores.flatten().sort().values
    return ascending[count:].mean() / ascending[:count].mean()
