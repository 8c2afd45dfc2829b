"""Divide the training images into training and validation: at random, or the same share of every class."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction

import torch
from torch import Tensor

from trials.errors import DataError
from trials.seeding import generator


def split_indices(size: int, val_fraction: float, split_seed: int) -> tuple[Tensor, Tensor]:
    """Divide 0..size-1 at random into training and validation indices, each int64, sorted, on CPU.

    The draw depends only on ``split_seed`` and ``size``; a larger fraction holds out a superset of a smaller one.
    Raises DataError if val_fraction is not in [0, 1) or leaves a part empty.
    """
    held_out = _held_out(size, val_fraction)
    order = _order(size, split_seed)
    return order[held_out:].sort().values, order[:held_out].sort().values


def stratified_indices(labels: Tensor, val_fraction: float, split_seed: int) -> tuple[Tensor, Tensor]:
    """Divide images into training and validation indices, each int64, sorted, on CPU, with a share of each class.

    As many images are held out as by :func:`split_indices`. Of each class it is the share ``val_fraction``, rounded by
    largest remainders (of equal ones the lower class first), but at least one image and not all, if the class has two
    images and the total allows it; a single image stays in training. Which images they are depends only on
    ``split_seed`` and ``labels`` (int64 [N]). Raises DataError if val_fraction is not in [0, 1) or leaves a part empty.
    """
    size = len(labels)
    held_out = _held_out(size, val_fraction)
    _, classes, counts = torch.unique(labels.cpu(), return_inverse=True, return_counts=True)
    quotas = _quotas(counts.tolist(), held_out, Fraction(str(val_fraction)))
    order = _order(size, split_seed)
    by_class = order[classes[order].argsort(stable=True)]  # by class, within a class in order of the draw
    ends = counts.cumsum(0)
    rank = torch.arange(size) - (ends - counts).repeat_interleave(counts)  # position within the class
    is_held = rank < torch.tensor(quotas).repeat_interleave(counts)
    return by_class[~is_held].sort().values, by_class[is_held].sort().values


def _held_out(size: int, val_fraction: float) -> int:
    """Number of images to hold out. Raises DataError if val_fraction is not in [0, 1) or leaves a part empty."""
    if not 0 <= val_fraction < 1:
        raise DataError(f"val_fraction is {val_fraction}, but must be in [0, 1)")
    held_out = round(val_fraction * size)
    if held_out == size or (val_fraction > 0 and held_out == 0):
        part = "training" if held_out else "validation"
        raise DataError(f"val_fraction is {val_fraction}, but of {size} images must leave some for {part}")
    return held_out


def _order(size: int, split_seed: int) -> Tensor:
    return torch.randperm(size, generator=generator("validation split", split_seed))


def _quotas(counts: Sequence[int], total: int, share: Fraction) -> list[int]:
    """How many of each class to hold out: ``share`` of its count, rounded so that they add up to ``total``."""
    least = [int(count > 1) for count in counts]
    most = [max(count - 1, 0) for count in counts]
    if sum(least) > total:  # not every class can be in validation
        least = [0] * len(counts)
    if sum(most) < total:  # not every class can be in training
        most = list(counts)
    parts = [count * share.numerator for count in counts]  # exact quotas, in units of 1 / share.denominator
    unit = share.denominator
    quotas = [min(max(part // unit, low), high) for part, low, high in zip(parts, least, most, strict=True)]
    while (missing := total - sum(quotas)) != 0:
        step = 1 if missing > 0 else -1
        bounds = most if step > 0 else least
        open_to = [label for label, quota in enumerate(quotas) if quota != bounds[label]]
        chosen = max(open_to, key=lambda label: step * (parts[label] - unit * quotas[label]))
        quotas[chosen] += step
    return quotas
