"""Masks: one bool tensor per prunable weight, True where it is kept; keyed by weight name, in module order."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from trials.sparsity.distributions import Count, Distribution, Layer, Pool
from trials.sparsity.patterns import Pattern
from trials.sparsity.select import keep_count, select, select_each

Masks = dict[str, Tensor]


def prunable(model: nn.Module, *, linear: bool = True) -> dict[str, Tensor]:
    """Return the prunable weights, those of every Conv2d and, unless ``linear`` is false, Linear, in module order."""
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
    """Return masks of exactly the requested density.

    Args:
        scores: by weight name, each of its weight's shape; higher scores are kept.
        density: share of units to keep, in (0, 1]. With ``within``, the share of the units kept there.
        pattern: turns scores of weights into scores of units.
        distribution: divides the kept units among the layers.
        within: current masks; masked weights stay masked (pattern ``weight`` only).
        absolute: rank by absolute scores. Norms of units are the same either way.
        count: rounds a density to a whole number of units.

    Raises:
        ValueError: ``within`` is given with a pattern whose units are more than one weight, or with ``absolute``.
    """
    names = list(scores)
    units = [pattern.unit_scores(scores[name]) for name in names]
    sizes = [unit.numel() for unit in units]
    if within is not None:
        if pattern.name != "weight" or absolute:
            raise ValueError(f"with within, pattern is {pattern.name!r}, but must be 'weight', and absolute false")
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
    """Return unit masks for pools that hold one layer each."""
    return select_each([units[pool.layers[0]] for pool in pools], [pool.keep for pool in pools], absolute=absolute)


def density_of(masks: Mapping[str, Tensor]) -> float:
    """Return kept over total weights of ``masks``; 1 if there are none."""
    total = sum(mask.numel() for mask in masks.values())
    return sum(int(mask.sum()) for mask in masks.values()) / total if total else 1.0
