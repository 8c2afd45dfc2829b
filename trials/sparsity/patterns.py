"""Patterns: which weights are pruned together as one unit. Maps weight scores to unit scores, and unit masks back."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

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
    """Defines the units of a weight.

    Filters and channels take the L2 norm, as in BiP's released code (https://github.com/OPTML-Group/BiP, commit
    c51fc35); kernel and filter_l1 take the L1 norm, as in https://github.com/zeyuanyin/Network-Pruning, commit
    be32233. A kernel's L1 norm grows with its area, so a 1x1 kernel competes in one ranking with sums of 9 or 49 terms;
    kernel_mean divides by the area.

    Attributes:
        unit_scores: maps scores of a weight, [O, I, kh, kw] or [O, I], to scores of its units, broadcastable to the
            weight.
        linear: whether Linear layers are pruned too; otherwise they stay dense and are not counted.
    """

    name: str
    unit_scores: Callable[[Tensor], Tensor]
    linear: bool

    def expand(self, units: Tensor, shape: torch.Size) -> Tensor:
        """Expand a mask of units [.., 1, ..] to a mask of weights of ``shape``."""
        return units if units.shape == shape else units.expand(shape).contiguous()

    def units(self, shape: tuple[int, ...]) -> int:
        """Return the number of units of a weight of ``shape``."""
        return _units(self.unit_scores, tuple(shape))


@lru_cache(maxsize=4096)
def _units(unit_scores: Callable[[Tensor], Tensor], shape: tuple[int, ...]) -> int:
    return unit_scores(torch.empty(shape, device="meta")).numel()


PATTERNS = {
    "weight": Pattern("weight", _weight, linear=True),
    "kernel": Pattern("kernel", _kernel, linear=False),
    "filter": Pattern("filter", _filter, linear=False),
    "channel": Pattern("channel", _channel, linear=False),
    "kernel_mean": Pattern("kernel_mean", _kernel_mean, linear=False),
    "filter_l1": Pattern("filter_l1", _filter_l1, linear=False),
}
