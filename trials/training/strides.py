"""The order in which a tensor lies in memory: whatever is kept beside a weight lies as the weight does.

Fused optimisers walk weight, gradient and moments side by side through memory: in different orders, every entry would
be moved by another one's gradient.
"""

from __future__ import annotations

import torch
from torch import Tensor


def beside(weight: Tensor, values: Tensor) -> Tensor:
    """A copy of ``values`` (of the weight's shape) with the weight's dtype, device and strides."""
    return torch.empty_like(weight.detach()).copy_(values)


def lie_alike(one: Tensor, other: Tensor) -> bool:
    """Whether two tensors of one shape have equal strides, but for dimensions of one entry, where they do not count."""
    if one.stride() == other.stride():
        return True
    sizes = zip(one.shape, one.stride(), other.stride(), strict=True)
    return all(size == 1 or left == right for size, left, right in sizes)
