"""Pattern: what goes together? A pattern turns a weight's scores into scores of its units, and masks of units back."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor


def _weight(score: Tensor) -> Tensor:
    return score


def _kernel(score: Tensor) -> Tensor:
    norms: Tensor = torch.linalg.vector_norm(score, ord=1, dim=(2, 3), keepdim=True)  # [O, I, 1, 1]
    return norms


def _kernel_mean(score: Tensor) -> Tensor:
    return score.abs().mean(dim=(2, 3), keepdim=True)  # [O, I, 1, 1]


def _filter_l1(score: Tensor) -> Tensor:
    norms: Tensor = torch.linalg.vector_norm(score, ord=1, dim=(1, 2, 3), keepdim=True)  # [O, 1, 1, 1]
    return norms


def _filter(score: Tensor) -> Tensor:
    norms: Tensor = torch.linalg.vector_norm(score, dim=(1, 2, 3), keepdim=True)  # [O, 1, 1, 1]
    return norms


def _channel(score: Tensor) -> Tensor:
    norms: Tensor = torch.linalg.vector_norm(score, dim=(0, 2, 3), keepdim=True)  # [1, I, 1, 1]
    return norms


@dataclass(frozen=True)
class Pattern:
    """What a unit is.

    Attributes:
        unit_scores: scores of a weight [O, I, kh, kw] (or [O, I]) to scores of its units, broadcastable to the weight.
            Filters and channels take the L2 norm (BiP, section 2), kernels the L1 norm (global pruning, section 0),
            filter_l1 likewise. A kernel's L1 norm grows with its area, so that in one ranking a 1x1 kernel competes
            with sums of 9 or 49 terms; kernel_mean divides by the area.
        linear: whether Linear layers are pruned too; otherwise they stay dense and are not counted.
    """

    name: str
    unit_scores: Callable[[Tensor], Tensor]
    linear: bool

    def expand(self, units: Tensor, shape: torch.Size) -> Tensor:
        """A mask of units [.., 1, ..] as a mask of weights of ``shape``."""
        return units if units.shape == shape else units.expand(shape).contiguous()


PATTERNS = {
    "weight": Pattern("weight", _weight, linear=True),
    "kernel": Pattern("kernel", _kernel, linear=False),
    "filter": Pattern("filter", _filter, linear=False),
    "channel": Pattern("channel", _channel, linear=False),
    "kernel_mean": Pattern("kernel_mean", _kernel_mean, linear=False),
    "filter_l1": Pattern("filter_l1", _filter_l1, linear=False),
}
