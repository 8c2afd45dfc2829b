"""Mask: which weights are there. Bool, one per prunable weight, by the weight's name, in module order."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from trials.sparsity.distributions import Count, Distribution, Layer, Pool
from trials.sparsity.patterns import Pattern
from trials.sparsity.select import keep_count, select, select_each

Masks = dict[str, Tensor]


def prunable(model: nn.Module, *, linear: bool = True) -> dict[str, Tensor]:
    """The weights that may be pruned: of every Conv2d and (unless ``linear`` is false) Linear, in module order."""
    kinds = (nn.Conv2d, nn.Linear) if linear else (nn.Conv2d,)
    return {f"{name}.weight": module.weight for name, module in model.named_modules() if isinstance(module, kinds)}


def build_masks(
    scores: Mapping[str, Tensor],
    *,
    density: float,
    pattern: Pattern,
    distribution: Distribution,
    within: Mapping[str, Tensor] | None = None,
    absolute: bool = False,
    count: Count = keep_count,
) -> Masks:
    """Masks of exactly the density asked for: score, pooled by ``distribution``, cut into ``pattern``.

    Args:
        scores: per weight name, its scores, of its shape; higher is kept.
        density: share of units to keep, in (0, 1]. With ``within``, the share of those that are there now.
        within: masks of now. What is masked stays masked (pattern weight only).
        absolute: rank by the scores' absolute values (norms of groups are the same either way).
        count: how a density becomes a whole number of units.

    Raises:
        ValueError: ``within`` is given with a pattern whose units are more than one weight, or with ``absolute``.
    """
    names = list(scores)
    units = [pattern.unit_scores(scores[name]) for name in names]
    sizes = [unit.numel() for unit in units]
    if within is not None:
        if pattern.name != "weight" or absolute:
            raise ValueError(f"within masks, pattern is {pattern.name!r}, but must be 'weight', and scores signed")
        sizes = [int(within[name].sum()) for name in names]
        units = [unit.masked_fill(~within[name], -torch.inf) for name, unit in zip(names, units, strict=True)]
    layers = [
        Layer(size, unit.numel(), tuple(scores[name].shape))
        for name, size, unit in zip(names, sizes, units, strict=True)
    ]
    pools = distribution(layers, density, count)
    alone = [pool for pool in pools if len(pool.layers) == 1]
    kept = dict(zip((pool.layers[0] for pool in alone), _each(units, alone, absolute), strict=True))
    for pool in pools:
        if len(pool.layers) != 1:
            kept |= zip(pool.layers, select([units[i] for i in pool.layers], pool.keep, absolute=absolute), strict=True)
    return {name: pattern.expand(kept[i], scores[name].shape) for i, name in enumerate(names)}


def _each(units: Sequence[Tensor], pools: Sequence[Pool], absolute: bool) -> list[Tensor]:
    """Masks of the units of pools of one layer each."""
    return select_each([units[pool.layers[0]] for pool in pools], [pool.keep for pool in pools], absolute=absolute)


def density_of(masks: Mapping[str, Tensor]) -> float:
    """Kept over total, from the masks themselves; 1 where there are none."""
    total = sum(mask.numel() for mask in masks.values())
    return sum(int(mask.sum()) for mask in masks.values()) / total if total else 1.0
