"""Tensors of several layers as rows of one matrix, so that means and sums of all layers take a few operators."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from trials.training.strides import in_strides_of

WIDTH = 512
"""Entries per row. A layer fills whole rows; zeros fill its last one."""


class Rows:
    """One matrix that holds the entries of all layers.

    Attributes:
        values: [rows, WIDTH]; zero where no layer has an entry.
        filled: 1 where a layer has an entry, else 0.
        members: [layers, rows], 1 where a row belongs to a layer, else 0.
        layer_of: [rows], the layer of each row.
    """

    def __init__(self, tensors: Sequence[Tensor]) -> None:
        self.like = list(tensors)
        first, each = tensors[0], [-(-tensor.numel() // WIDTH) for tensor in tensors]
        self.layer_of = torch.arange(len(each)).repeat_interleave(torch.tensor(each)).to(first.device)
        layers = torch.arange(len(each), device=first.device)
        self.members = (self.layer_of == layers[:, None]).to(first.dtype)
        self.values, self.filled = (first.new_zeros(sum(each), WIDTH) for _ in range(2))
        torch._foreach_copy_(self.views(self.values), self.like)
        torch._foreach_copy_(self.views(self.filled), [torch.ones_like(tensor) for tensor in tensors])

    def views(self, values: Tensor) -> list[Tensor]:
        """The layers' entries in a matrix like ``values``, of the layers' shapes and strides."""
        found, start, flat = [], 0, values.view(-1)
        for tensor in self.like:
            found.append(in_strides_of(tensor, flat[start : start + tensor.numel()]))
            start += -(-tensor.numel() // WIDTH) * WIDTH
        return found

    def sums(self, values: Tensor) -> Tensor:
        """The sum of each layer's rows, [layers]."""
        return self.members @ values.sum(1)

    def spread(self, each: Tensor) -> Tensor:
        """The layers' values ``each``, [layers], by row: [rows, 1]."""
        return each.index_select(0, self.layer_of)[:, None]
