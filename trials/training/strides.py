"""Memory layout: tensors that belong to a weight (masks, gradients, moments) must have the weight's strides.

Fused optimisers iterate over weight, gradient and moments in memory order. With different strides, each entry would be
updated with another entry's gradient.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

_CHUNK = 1 << 15
"""Entries of a stretch of memory that fits the cache."""


def beside(weight: Tensor, values: Tensor) -> Tensor:
    """Return a copy of ``values`` (of the weight's shape) with the weight's dtype, device and strides."""
    return torch.empty_like(weight.detach()).copy_(values)


def lie_alike(one: Tensor, other: Tensor) -> bool:
    """Whether two tensors of equal shape have equal strides, ignoring dimensions of size 1."""
    if one.stride() == other.stride():
        return True
    sizes = zip(one.shape, one.stride(), other.stride(), strict=True)
    return all(size == 1 or left == right for size, left, right in sizes)


def is_dense(tensor: Tensor) -> bool:
    """Whether a tensor's entries fill their stretch of memory without gaps or overlaps, in any order."""
    expected = 1
    for stride, size in sorted(zip(tensor.stride(), tensor.shape, strict=True)):
        if size != 1:
            if stride != expected:
                return False
            expected *= size
    return True


def memory_order(tensor: Tensor) -> Tensor:
    """Return the entries of a dense tensor in memory order, [n], without copying them.

    A copy by flat index if the tensor is not dense.
    """
    tensor = tensor.detach()
    if not is_dense(tensor):
        return tensor.reshape(-1)
    return tensor.as_strided((tensor.numel(),), (1,), tensor.storage_offset())


def in_strides_of(tensor: Tensor, entries: Tensor) -> Tensor:
    """Return the inverse of :func:`memory_order`: a view of ``entries``, [n], of a dense tensor's shape and strides."""
    return entries.as_strided(tensor.shape, tensor.stride(), entries.storage_offset())


def stretches(*tensors: Tensor) -> Iterator[tuple[Tensor, ...]]:
    """Yield tensors of equal shape part by part, as flat views of memory that fit the cache together.

    Several elementwise operations in a row then pass through memory once. Tensors with other strides than the first
    one's are yielded whole.
    """
    first = tensors[0]
    if first.numel() > _CHUNK and is_dense(first) and all(lie_alike(first, other) for other in tensors):
        yield from zip(*(torch.split(memory_order(tensor), _CHUNK) for tensor in tensors), strict=True)
    else:
        yield tensors
