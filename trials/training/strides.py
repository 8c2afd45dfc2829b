"""Memory layout: tensors that belong to a weight (masks, gradients, moments) must have the weight's strides.

Fused optimisers iterate over weight, gradient and moments in memory order. With different strides, each entry would be
updated with another entry's gradient.
"""

from __future__ import annotations

import torch
from torch import Tensor


def beside(weight: Tensor, values: Tensor) -> Tensor:
    """Return a copy of ``values`` (of the weight's shape) with the weight's dtype, device and strides."""
    return torch.empty_like(weight.detach()).copy_(values)


def lie_alike(one: Tensor, other: Tensor) -> bool:
    """Whether two tensors of equal shape have equal strides, ignoring dimensions of size 1."""
    if one.stride() == other.stride():
        return True
    sizes = zip(one.shape, one.stride(), other.stride(), strict=True)
    return all(size == 1 or left == right for size, left, right in sizes)
