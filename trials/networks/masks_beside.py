"""Masks beside a state dict in a file, as ``{"state_dict": ..., "masks": {weight name: tensor of 0 and 1}}``."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from trials.errors import UserError

MASKS_WAY_OUT = (
    "write them as pairs weight_orig and weight_mask, as torch.nn.utils.prune has them, or as a mapping from the "
    "weights' names to tensors of 0 and 1"
)
_DEEPEST = 3


def masks_among(beside: Mapping[str, Any], what: str) -> tuple[str, dict[str, Tensor]]:
    """The masks among what lies beside a state dict, by the weights' names in the file, and the key they have there.

    Whether names, shapes and values are those of masks for these weights is for the caller to check.

    Args:
        beside: everything but the weights, by dotted path in the file.
        what: names the file at the beginning of messages.

    Returns:
        An empty key and no masks if there are none.

    Raises:
        UserError: something is masks, but no mapping from names to tensors; or there are several of them.
    """
    found = dict(pair for key, value in beside.items() for pair in _masks(key, value, _DEEPEST))
    if not found:
        return "", {}
    if len(found) > 1:
        keys = " and ".join(ascii(key) for key in list(found)[:3])
        raise UserError(f"{what}, but holds masks under {keys}, and only one can be meant: leave the others out")
    key, value = next(iter(found.items()))
    if not isinstance(value, Mapping):
        kind = type(value).__name__
        raise UserError(f"{what}, but holds a {kind} under {key!a}, which does not say of which weights its masks "
                        f"are: {MASKS_WAY_OUT}")  # fmt: skip
    given = {name: mask for name, mask in value.items() if mask is not None}
    if not all(isinstance(name, str) and isinstance(mask, Tensor) for name, mask in given.items()):
        raise UserError(f"{what}, but holds more than tensors by name under {key!a}: {MASKS_WAY_OUT}")
    return key, given


def looks_like_masks(key: str, value: object) -> bool:
    """Whether something is masks: it holds tensors under a name with "mask", or only tensors of 0 and 1."""
    if _named_masks(key):
        return _holds_tensors(value, _DEEPEST)
    if isinstance(value, Mapping):
        value = list(value.values())
    if not isinstance(value, list | tuple):
        return False
    tensors = [one for one in value if one is not None]
    if not tensors or not all(isinstance(one, Tensor) and not one.is_meta and one.numel() for one in tensors):
        return False
    if all(one.dim() < 2 for one in tensors):
        return False
    return all(one.dtype == torch.bool for one in tensors) or _zeros_and_ones(tensors)


def _named_masks(key: str) -> bool:
    return "mask" in key.rpartition(".")[2].lower()


def _masks(key: str, value: object, depth: int) -> Iterator[tuple[str, object]]:
    """Yield what is masks at a key, or by its name below it, by its dotted path."""
    if looks_like_masks(key, value) if depth == _DEEPEST else _named_masks(key) and _holds_tensors(value, _DEEPEST):
        yield key, value
    elif isinstance(value, Mapping) and depth:
        for name, inner in value.items():
            if isinstance(inner, Mapping | list | tuple):
                yield from _masks(f"{key}.{name}", inner, depth - 1)


def _zeros_and_ones(tensors: list[Tensor]) -> bool:
    """Whether the tensors hold 0 and 1, both of them and nothing else; all zeros are as well a fresh momentum."""
    if any(one.layout is not torch.strided or not ((one == 0) | (one == 1)).all() for one in tensors):
        return False
    return any((one == 0).any() for one in tensors) and any((one == 1).any() for one in tensors)


def _holds_tensors(value: object, depth: int) -> bool:
    if isinstance(value, Tensor):
        return True
    if isinstance(value, np.ndarray):
        return value.ndim > 0
    inner = value.values() if isinstance(value, Mapping) else value if isinstance(value, list | tuple | set) else ()
    return depth > 0 and any(_holds_tensors(one, depth - 1) for one in inner)
