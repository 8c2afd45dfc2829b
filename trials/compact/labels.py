"""Labels of channels, and which of them belong together: a union-find over int64 tensors.

Label 0 stands for what is no channel of a layer, such as the image's. It is never united with others.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


class Labels:
    """Labels 1, 2, ... in classes; a class may be fixed, with a reason, and may be shifted: not zero where it was."""

    def __init__(self) -> None:
        self._parent = torch.zeros(1, dtype=torch.int64)
        self._fixed: list[tuple[Tensor, str]] = []
        self._is_fixed = torch.zeros(1, dtype=torch.bool)
        self._is_shifted = torch.zeros(1, dtype=torch.bool)
        self._is_own = torch.zeros(1, dtype=torch.bool)

    @property
    def count(self) -> int:
        """Number of labels, 0 included."""
        return len(self._parent)

    def new(self, n: int, *, own: bool = False) -> Tensor:
        """Return ``n`` new labels, each a class of its own; ``own`` ones stand for values that the model stores."""
        labels = torch.arange(n) + len(self._parent)
        self._parent = torch.cat([self._parent, labels])
        more = torch.zeros(n, dtype=torch.bool)
        self._is_fixed, self._is_shifted = torch.cat([self._is_fixed, more]), torch.cat([self._is_shifted, more])
        self._is_own = torch.cat([self._is_own, more | own])
        return labels

    def find(self, labels: Tensor) -> Tensor:
        """Return the smallest label of each label's class."""
        roots = self._parent[labels]
        while not torch.equal(next_ := self._parent[roots], roots):
            roots = next_
        return roots

    def unite(self, one: Tensor, other: Tensor, reason: str, *, scales: bool = False) -> None:
        """Put each label of ``one`` into the class of its partner in ``other``; partners of 0 are fixed instead.

        Beside values that the model stores, a channel that is 0 is no longer 0 everywhere, unless they scale it.
        """
        one, other = dense(*torch.broadcast_tensors(one, other))  # type: ignore[no-untyped-call]
        alone = (one == 0) ^ (other == 0)
        if alone.any():
            self.fix((one + other)[alone], reason)
        n = len(self._parent)
        pairs = distinct((one * n + other)[(one != 0) & (other != 0)])
        one, other = pairs // n, pairs % n
        if not scales:
            self.shift(one[self._is_own[one] ^ self._is_own[other]])
        while len(one):
            one, other = self.find(one), self.find(other)
            apart = one != other
            one, other = one[apart], other[apart]
            higher, lower = torch.maximum(one, other), torch.minimum(one, other)
            self._parent.scatter_reduce_(0, higher, lower, "amin")

    def fix(self, labels: Tensor, reason: str) -> None:
        """Say that the classes of these labels must stay whole; of several reasons the first counts."""
        (labels,) = dense(labels)
        labels = distinct(labels[labels != 0])
        if len(labels):
            self._fixed.append((labels, reason))
            self._is_fixed[labels] = True

    def shift(self, labels: Tensor) -> None:
        """Say that an operation does not map 0 to 0 on the channels of these labels."""
        self._is_shifted[dense(labels)[0]] = True

    def fixed(self, labels: Tensor) -> Tensor:
        """Whether each label is 0 or its class is fixed: bool, of the labels' shape."""
        return (labels == 0) | self._among(labels, self._is_fixed)

    def shifted(self, labels: Tensor) -> Tensor:
        """Whether each label's class has been shifted: bool, of the labels' shape."""
        return self._among(labels, self._is_shifted)

    def _among(self, labels: Tensor, marked: Tensor) -> Tensor:
        roots = torch.zeros(len(self._parent), dtype=torch.bool)
        roots[self.find(marked.nonzero().flatten())] = True
        return roots[self.find(labels)]

    def reason(self, labels: Tensor) -> str:
        """Why a class of these labels is fixed; empty if none is."""
        roots = torch.zeros(len(self._parent), dtype=torch.bool)
        roots[self.find(labels)] = True
        roots[0] = False
        return next((reason for found, reason in self._fixed if roots[self.find(found)].any()), "")

    def varying(self, labels: Tensor) -> list[int]:
        """Dimensions along which the classes of some labels that are not fixed differ."""
        narrow = slim(labels)
        if not narrow.numel():
            return []
        roots = self.find(narrow)
        roots = roots.masked_fill(self.fixed(roots), 0)
        return [dim for dim, n in enumerate(narrow.shape) if n > 1 and (roots != roots.narrow(dim, 0, 1)).any()]


def dense(*labels: Tensor) -> list[Tensor]:
    """Leave out positions that repeat others by a stride of 0 in all of these tensors of one shape; flat."""
    found = list(labels)
    for dim, size in enumerate(found[0].shape):
        if size > 1 and all(one.stride(dim) == 0 for one in found):
            found = [one.narrow(dim, 0, 1) for one in found]
    return [one.reshape(-1) for one in found]


def any_channel(labels: Tensor) -> bool:
    """Whether some labels are not 0, that is, of a layer's channels."""
    return bool((dense(labels)[0] != 0).any())


def slim(labels: Tensor) -> Tensor:
    """Narrow to 1 each dimension along which labels repeat."""
    for dim, size in enumerate(labels.shape):
        if size > 1 and (labels.stride(dim) == 0 or bool((labels == labels.narrow(dim, 0, 1)).all())):
            labels = labels.narrow(dim, 0, 1)
    return labels


def distinct(labels: Tensor) -> Tensor:
    """The different ones of some integers, ascending."""
    found: Tensor = labels.unique()  # type: ignore[no-untyped-call]
    return found


def distinct_and_positions(labels: Tensor) -> tuple[Tensor, Tensor]:
    """The different ones of some integers, ascending, and the position of each among them."""
    found: tuple[Tensor, Tensor] = labels.unique(return_inverse=True)  # type: ignore[no-untyped-call]
    return found


def tensors_in(value: Any) -> list[Tensor]:
    """The tensors in nested tuples, lists and mappings."""
    if isinstance(value, Tensor):
        return [value]
    if isinstance(value, dict):
        value = list(value.values())
    return [found for part in value for found in tensors_in(part)] if isinstance(value, (list, tuple)) else []
