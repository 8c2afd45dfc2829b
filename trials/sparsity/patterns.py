"""Patterns: which weights are pruned together as one unit. Maps weight scores to unit scores, and unit masks back."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any

import torch
from torch import Tensor

from trials.registry import Registry


def _weight(score: Tensor) -> Tensor:
    return score


def precise(values: Tensor) -> Tensor:
    """Return values of half precision as float32, others as they are."""
    return values.to(torch.promote_types(values.dtype, torch.float32))


def _norm(order: float, dims: tuple[int, ...], score: Tensor) -> Tensor:
    """Norms over ``dims``, which stay with size 1. Half precision would round most norms to equal ones."""
    dtype = torch.promote_types(score.dtype, torch.float32)
    norms: Tensor = torch.linalg.vector_norm(score, ord=order, dim=dims, keepdim=True, dtype=dtype)
    return norms


def _kernel_mean(score: Tensor) -> Tensor:
    return precise(score).abs().mean(dim=(2, 3), keepdim=True)  # [O, I, 1, 1]


_kernel = partial(_norm, 1, (2, 3))  # [O, I, 1, 1]
_filter_l1 = partial(_norm, 1, (1, 2, 3))  # [O, 1, 1, 1]
_filter = partial(_norm, 2, (1, 2, 3))  # [O, 1, 1, 1]
_channel = partial(_norm, 2, (0, 2, 3))  # [1, I, 1, 1]


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
        inside: dimensions of a weight within a unit, over which ``unit_scores`` reduces; none for single weights.
        choose: for a pattern that says itself which units of a layer are kept, so that its density is implied: maps
            unit scores (-inf for units that are gone) to a bool mask of their shape. None: density and distribution
            decide.
        density: the share that ``choose`` keeps.
        multiple: layers whose number of input channels (of a group) is no multiple of this stay dense and are not
            counted.
        revision: for patterns from outside this package, raised when they choose otherwise than before.
    """

    name: str
    unit_scores: Callable[[Tensor], Tensor]
    linear: bool
    inside: tuple[int, ...] = ()
    choose: Callable[[Tensor], Tensor] | None = None
    density: float | None = None
    multiple: int = 1
    revision: int = 1

    def prunes(self, shape: Sequence[int]) -> bool:
        """Whether a weight of ``shape``, [O, I, kh, kw] or [O, I], has units of this pattern."""
        return (self.linear or len(shape) > 2) and shape[1] % self.multiple == 0

    @property
    def of_single_weights(self) -> bool:
        """Whether a unit is one weight."""
        return not self.inside

    def expand(self, units: Tensor, shape: Sequence[int]) -> Tensor:
        """Expand a mask of units [.., 1, ..] to a mask of weights of ``shape``."""
        return units if units.shape == torch.Size(shape) else units.expand(*shape).contiguous()

    def left(self, mask: Tensor) -> Tensor:
        """Return which units a mask of weights keeps: any of their weights is kept; bool, shaped as unit scores."""
        inside = [dim for dim in self.inside if dim < mask.dim()]
        return torch.any(mask, dim=inside, keepdim=True) if inside else mask

    def unit_shape(self, shape: Sequence[int]) -> tuple[int, ...]:
        """Return the shape of the unit scores of a weight of ``shape``."""
        return tuple(1 if dim in self.inside else size for dim, size in enumerate(shape))

    def units(self, shape: Sequence[int]) -> int:
        """Return the number of units of a weight of ``shape``."""
        return math.prod(self.unit_shape(shape))


def _best_of(n: int, m: int, scores: Tensor) -> Tensor:
    """Mask of the n highest of every m consecutive entries of dimension 1; of equal ones the lower is dropped first."""
    rows = scores.movedim(1, -1)  # [O, .., I]
    order = rows.reshape(*rows.shape[:-1], -1, m).argsort(dim=-1, stable=True)  # [O, .., I / m, m]
    # one value, not a tensor of them: with deterministic algorithms, CUDA scatters tensors by way of the host
    kept = torch.ones_like(order, dtype=torch.bool).scatter_(-1, order[..., : m - n], False)
    return kept.reshape(rows.shape).movedim(-1, 1).contiguous()


@lru_cache(maxsize=64, typed=True)
def n_of_m(n: int, m: int) -> Pattern:
    """Return the pattern N:M: n of every m consecutive input channels stay, for every row and kernel position.

    This is what the kernels of ``torch.sparse.to_sparse_semi_structured`` take: for n = 2 and m = 4 in half precision,
    for 1 and 2 in float32. Of a convolution [O, I, kh, kw] they take the matrix [O, kh kw I], input channels innermost.

    Raises:
        ValueError: n and m are no integers with 1 <= n < m.
    """
    if type(n) is not int or type(m) is not int or not 1 <= n < m:
        raise ValueError(
            f"n and m are {n!r} and {m!r}, but of every m weights n stay, so that 1 <= n < m: give 2 and 4"
        )
    return Pattern("nm", _weight, linear=True, choose=partial(_best_of, n, m), density=n / m, multiple=m)


def _is_pattern(found: Any) -> Pattern:
    if not isinstance(found, Pattern):
        raise TypeError(f"that is {found!r}: it must be a trials.extend.Pattern")
    return found


_BUILT_IN = {
    "weight": Pattern("weight", _weight, linear=True),
    "kernel": Pattern("kernel", _kernel, linear=False, inside=(2, 3)),
    "filter": Pattern("filter", _filter, linear=False, inside=(1, 2, 3)),
    "channel": Pattern("channel", _channel, linear=False, inside=(0, 2, 3)),
    "kernel_mean": Pattern("kernel_mean", _kernel_mean, linear=False, inside=(2, 3)),
    "filter_l1": Pattern("filter_l1", _filter_l1, linear=False, inside=(1, 2, 3)),
    "nm": n_of_m(2, 4),
}
PATTERNS: Registry[Pattern] = Registry("patterns", _BUILT_IN, _is_pattern)
"""Patterns by name; also those of plug-ins (:mod:`trials.registry`). ``nm`` is 2:4 where nothing else is said."""
