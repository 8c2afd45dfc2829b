"""Operations that move, join and divide channels, applied to tensors of labels instead of activations.

A tensor of labels has the shape of an activation and says of each entry which channel it belongs to. What only moves
entries (``view``, ``permute``, ``cat``, ...) runs on labels as it is. The rule that keeps a cut network right is that
the classes of a tensor differ along one dimension at most: then removing a class removes whole slices of it. Where an
operation divides channels over several dimensions, the classes are united along all of them but one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from trials.compact.labels import Labels, any_channel, slim
from trials.compact.sizes import Computed, Size, Written


class Shaping:
    """The operations on labels that change shapes; notes what a cut must keep true beside the labels.

    Attributes:
        computed: sizes that the forward pass computes.
        written: sizes that modules store.
        owner: name and module whose forward pass is being followed.
        graph, node: number of the traced forward pass, and name of its operation, that are being followed.
    """

    def __init__(self, labels: Labels) -> None:
        self.labels = labels
        self.computed: list[Computed] = []
        self.written: list[Written] = []
        self.owner: tuple[str, Any] = ("", None)
        self.graph, self.node = 0, ""

    def along(self, labels: Tensor, dim: int) -> Tensor:
        """Return the labels along one dimension, [size]; the others must not differ."""
        index = [slice(None) if d == dim % labels.dim() else slice(0, 1) for d in range(labels.dim())]
        return labels[tuple(index)].reshape(-1)

    def size(self, labels: Tensor) -> tuple[Size, ...]:
        """Return the shape, as a forward pass would ask for it."""
        varying = self.labels.varying(labels)
        return tuple(Size(n, self.along(labels, d) if d in varying else None) for d, n in enumerate(labels.shape))

    def one_axis(self, labels: Tensor, reason: str, prefer: Sequence[int] = ()) -> Tensor:
        """Unite classes so that they differ along one dimension at most: the first of ``prefer``, or the longest."""
        narrow = slim(labels)
        varying = self.labels.varying(narrow)
        chosen = next((d for d in prefer if d in varying), max(varying, key=lambda d: labels.shape[d], default=0))
        for dim in varying:
            if dim != chosen:
                first = narrow.narrow(dim, 0, 1)
                self.labels.unite(narrow, first.expand_as(narrow), reason)
                narrow = first
        return narrow.expand(labels.shape)

    def fixed(self, labels: Tensor, reason: str) -> Tensor:
        """Fix all labels and return them."""
        self.labels.fix(labels, reason)
        return labels

    def both(self, one: Any, other: Any, reason: str, *, scales: bool = False) -> Any:
        """Return the labels of an elementwise operation on two tensors, one of which may be a number.

        What is no channel may have any values, but not one for each channel: then these stay.
        """
        if not isinstance(one, Tensor) or not isinstance(other, Tensor):
            return one if isinstance(one, Tensor) else other
        rank = max(one.dim(), other.dim())
        pair = [part[(None,) * (rank - part.dim())] for part in (one, other)]
        for i, (wide, narrow) in enumerate((pair, pair[::-1])):
            varying = self.labels.varying(wide)
            if varying and all(narrow.shape[d] == 1 for d in varying) and any(wide.shape[d] > 1 for d in varying):
                self.labels.fix(narrow, f"{reason}, one with many")
                return self.one_axis(wide.expand(_common(wide.shape, narrow.shape)), reason)
            if any(narrow.shape[d] == 1 < wide.shape[d] for d in varying) and any_channel(narrow):
                self.labels.fix(narrow, f"{reason}, one with many")
                pair[1 - i] = torch.zeros_like(narrow)
        shape = _common(pair[0].shape, pair[1].shape)
        wide_one, wide_other = pair[0].expand(shape), pair[1].expand(shape)
        self.labels.unite(wide_one, wide_other, reason, scales=scales)
        return self.one_axis(wide_one if any_channel(wide_one) else wide_other, reason)

    def multiplied(self, one: Tensor, other: Tensor, reason: str) -> Tensor:
        """Return the labels of a batched matrix product; classes may differ along a common batch dimension only."""
        shape = (*_common(one.shape[:-2], other.shape[:-2]), one.shape[-2], other.shape[-1])
        for part in (one, other):
            if any(d >= part.dim() - 2 for d in self.labels.varying(part)):
                self.labels.fix(part, reason)
        left, right = one[..., :1, :1], other[..., :1, :1]
        made: Tensor = self.both(left, right, reason).expand(shape)
        return made

    def attended(self, query: Tensor, key: Tensor, value: Tensor, added: Tensor | None, reason: str) -> Tensor:
        """Return the labels of scaled dot-product attention, [..., heads, N, D]; whole heads may go.

        Args:
            added: what is added to the scores, [..., heads or 1, N, N], if anything is.
        """
        weights = self.multiplied(query, key.transpose(-2, -1), reason)
        if added is not None:
            if _common(weights.shape, added.shape) != weights.shape:
                raise ValueError(f"{reason}, whose mask has another shape")
            weights = self.both(weights, added, reason)
        return self.multiplied(weights, value, reason)

    # Operations by name, with the arguments of torch's own.

    def reshape(self, labels: Tensor, *shape: Any, reason: str) -> Tensor:
        given = list(shape[0]) if len(shape) == 1 and isinstance(shape[0], (list, tuple, torch.Size)) else list(shape)
        new = labels.reshape([int(n) for n in given])
        heads = [d for d in range(len(given)) if self._attribute(given[d], heads=True)]
        free = [d for d, n in enumerate(given) if isinstance(n, Size) or n == -1]
        prefer = [d for d in heads if d == len(given) - 2] + free + heads[::-1]
        new = self.one_axis(new, reason, prefer)
        self._all_sized(given, new, reason)
        return new

    def _all_sized(self, given: Sequence[Any], new: Tensor, reason: str) -> None:
        """Note how each dimension of a tensor gets its size after a cut, given the sizes that a call asks for."""
        varying = self.labels.varying(new)
        for dim in varying:
            self._sized(given[dim], self.along(new, dim), dim, reason)
        for dim, size in enumerate(given):
            if dim in varying or not isinstance(size, Size) or size.labels is None:
                continue
            if varying:  # such as channels by heads, which does not change if as many of both are left
                self.computed.append(Computed(self.along(new, varying[0]), size.labels))
            else:
                self.labels.fix(size.labels, f"{reason}, which takes their number")

    def _sized(self, given: Any, counted: Tensor, dim: int, reason: str) -> None:
        """Note how a dimension along which classes differ gets its size after a cut, or fix them."""
        if isinstance(given, Size) and given.labels is not None:
            self.computed.append(Computed(counted, given.labels, given.of))
        elif isinstance(given, Size) or given != -1:
            if name := self._attribute(given):
                self.written.append(Written(name, counted, (self.graph, self.node, dim)))
            else:
                self.labels.fix(counted, f"{reason}, which writes their number out")

    def _attribute(self, size: int, *, heads: bool = False) -> str:
        """The one attribute of the current module that holds a size; empty if there is none, or several."""
        path, module = self.owner
        names = (
            [
                name
                for name, value in vars(module).items()
                if type(value) is int and value == size and not name.endswith("head_dim")
            ]
            if module is not None and not isinstance(size, Size)
            else []
        )
        if many := [name for name in names if "heads" in name]:
            names = many
        elif heads:
            return ""
        return f"{path}.{names[0]}".removeprefix(".") if len(names) == 1 else ""

    def joined(self, parts: Sequence[Tensor], join: Callable[..., Tensor], dim: int, reason: str) -> Tensor:
        """Return the labels of ``cat`` or ``stack``."""
        rank = parts[0].dim()
        stacked = join is torch.stack
        ends = range(dim % (rank + stacked) + 1 - stacked, rank)
        thin = list(parts)
        for d in ends:  # pixels that repeat others by a stride of 0 stay so
            if all(part.stride(d) == 0 for part in thin):
                thin = [part.narrow(d, 0, 1) for part in thin]
        made = join(thin, dim)
        whole = made.expand(*made.shape[: made.dim() - len(ends)], *(parts[0].shape[d] for d in ends))
        return self.one_axis(whole, reason, [] if stacked else [d for part in parts for d in self.labels.varying(part)])

    def divide(self, labels: Tensor, pieces: Sequence[Tensor], sizes: Any, dim: int, reason: str) -> tuple[Tensor, ...]:
        """Return the pieces of a tensor; equal ones lose the same channels, if their number follows the tensor's."""
        if dim % labels.dim() in self.labels.varying(labels) and len(pieces) > 1:
            first = pieces[0]
            free = sizes is None or (isinstance(sizes, Size) and sizes.labels is not None)
            if not free or any(piece.shape != first.shape for piece in pieces):
                return tuple(self.fixed(piece, f"{reason}, which divides them at a written place") for piece in pieces)
            if sizes is not None:
                self.computed.append(Computed(self.along(first, dim), sizes.labels, sizes.of))
            for piece in pieces[1:]:
                self.labels.unite(first, piece, reason)
        return tuple(pieces)

    def item(self, labels: Tensor, index: Any, reason: str) -> Tensor:
        """Return an indexed part; what is picked from a dimension along which classes differ stays whole."""
        parts = index if isinstance(index, tuple) else (index,)
        plain = all(part is None or part is Ellipsis or isinstance(part, (int, slice)) for part in parts)
        dim = 0
        varying = self.labels.varying(labels)
        whole = plain
        for part in parts if plain else ():
            if part is Ellipsis:
                dim = labels.dim() - sum(p is not None and p is not Ellipsis for p in parts[parts.index(part) + 1 :])
            elif part is not None:
                whole = whole and (dim not in varying or part == slice(None))
                dim += 1
        if not whole:
            self.labels.fix(labels, reason)
        return labels[index]

    def expand(self, labels: Tensor, *shape: Any, reason: str) -> Tensor:
        given = list(shape[0]) if len(shape) == 1 and isinstance(shape[0], (list, tuple, torch.Size)) else list(shape)
        new = labels.expand([int(n) for n in given])
        self._all_sized(given, new, reason)
        return new

    def reduced(self, labels: Tensor, dims: Any, keepdim: bool, reason: str) -> Tensor:
        """Return the labels after a mean or sum over some dimensions."""
        gone = sorted({d % labels.dim() for d in ([dims] if isinstance(dims, int) else dims or range(labels.dim()))})
        if set(gone) & set(self.labels.varying(labels)):
            self.labels.fix(labels, reason)
        for dim in gone[::-1]:
            labels = labels.narrow(dim, 0, 1) if keepdim else labels.select(dim, 0)
        return labels

    def pooled(self, labels: Tensor, size: Sequence[int], reason: str) -> Tensor:
        """Return the labels of an activation [..., H, W] after an operation that makes it [..., h, w]."""
        if any(d >= labels.dim() - 2 for d in self.labels.varying(labels)):
            self.labels.fix(labels, reason)
        return labels[..., :1, :1].expand(*labels.shape[:-2], *size)

    def padded(self, labels: Tensor, pad: Sequence[int], reason: str) -> Tensor:
        """Return the labels after padding; channels that padding adds are no layer's."""
        new = F.pad(labels, [int(n) for n in pad])
        return self.one_axis(new, reason)


MOVES: Mapping[str, Callable[..., Tensor]] = {
    name: getattr(torch.Tensor, name)
    for name in ("permute", "transpose", "squeeze", "unsqueeze", "flatten", "movedim", "swapaxes", "t", "select")
}
"""Operations that move entries and are told no sizes; they run on labels as they are."""


def _common(one: Sequence[int], other: Sequence[int]) -> torch.Size:
    """The shape that two shapes broadcast to."""
    shape: torch.Size = torch.broadcast_shapes(one, other)  # type: ignore[no-untyped-call]
    return shape
