"""Masks: one bool tensor per prunable weight, True where it is kept; keyed by weight name, in module order."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache

import torch
from torch import Tensor, nn

from trials.sparsity.counts import Density
from trials.sparsity.distributions import Count, Distribution, Layer, Pool
from trials.sparsity.patterns import Pattern
from trials.sparsity.scores import Score
from trials.sparsity.select import select, select_each
from trials.sparsity.select_wide import RowMajor

Masks = dict[str, Tensor]


def prunable(model: nn.Module, *, linear: bool = True) -> dict[str, Tensor]:
    """Return the prunable weights, those of every Conv2d and, unless ``linear`` is false, Linear, in module order."""
    kinds = (nn.Conv2d, nn.Linear) if linear else (nn.Conv2d,)
    return {f"{name}.weight": module.weight for name, module in model.named_modules() if isinstance(module, kinds)}


def prunable_by(model: nn.Module, pattern: Pattern) -> dict[str, Tensor]:
    """Return the prunable weights that have units of ``pattern``, in module order."""
    return {name: weight for name, weight in prunable(model).items() if pattern.prunes(weight.shape)}


def build_masks(
    scores: Mapping[str, Tensor],
    *,
    density: Density,
    pattern: Pattern,
    distribution: Distribution,
    within: Mapping[str, Tensor] | None = None,
    absolute: bool = False,
    count: Count | None = None,
    row_major: RowMajor | None = None,
) -> Masks:
    """Return masks of exactly the requested density, by scores of single weights. Units are ranked by their norms.

    Args:
        scores: by weight name, each of its weight's shape; higher scores are kept.
        density: share of units to keep, in (0, 1]. With ``within``, the share of the units kept there. Patterns that
            choose their units themselves ignore it, and the distribution.
        pattern: turns scores of weights into scores of units.
        distribution: divides the kept units among the layers.
        within: current masks; masked weights stay masked, and a unit is left if any of its weights is.
        absolute: rank by absolute scores. Norms of units are the same either way.
        count: rounds as a released code does; None keeps ``nearest_count(density, units)`` of all units together.
        row_major: of the scores, for one pool of single weights (see :func:`trials.sparsity.select.select`).

    Raises:
        ValueError: ``within`` is given with ``absolute``, or the distribution has no such division.
    """
    if within is not None and absolute:
        raise ValueError("with within, scores are ranked as they are: give absolute scores, and absolute false")
    units = {name: pattern.unit_scores(score) for name, score in scores.items()}
    return _of_units(
        units,
        {name: tuple(score.shape) for name, score in scores.items()},
        pattern,
        lambda layers: _pools(distribution, layers, density, count),
        within=within,
        absolute=absolute,
        row_major=row_major,
    )


def masks_by_score(
    score: Score,
    weights: Mapping[str, Tensor],
    generator: torch.Generator,
    *,
    density: Density,
    pattern: Pattern,
    distribution: Distribution,
    within: Mapping[str, Tensor] | None = None,
    of_dense: bool = False,
    count: Count | None = None,
) -> Masks:
    """Return masks of exactly the requested density, by a score of the pattern's units.

    Arguments as for :func:`build_masks`, and:

    Args:
        weights: by name; with ``within``, masked weights are zero.
        generator: on the CPU.
        of_dense: with ``within``, ``density`` is a share of the units of whole layers, not of those that are left.

    Raises:
        ValueError: the distribution has no such division.
    """
    left = None if within is None else {name: pattern.left(within[name]) for name in weights}
    return _of_units(
        score.units(weights, pattern, generator, left),
        {name: tuple(weight.shape) for name, weight in weights.items()},
        pattern,
        lambda layers: _pools(distribution, layers, density, count),
        within=within,
        of_dense=of_dense,
    )


def _of_units(
    units: Mapping[str, Tensor],
    shapes: Mapping[str, tuple[int, ...]],
    pattern: Pattern,
    divide: Callable[[tuple[Layer, ...]], Sequence[Pool]],
    *,
    within: Mapping[str, Tensor] | None = None,
    absolute: bool = False,
    of_dense: bool = False,
    row_major: RowMajor | None = None,
) -> Masks:
    """Return masks that keep the units with the highest scores, as many as ``divide`` says of each pool of layers."""
    names, scores = list(units), list(units.values())
    sizes = [score.numel() for score in scores]
    if within is not None:
        left = [pattern.left(within[name]) for name in names]
        sizes = [int(units_left.sum()) for units_left in left]
        scores = [score.masked_fill(~here, -torch.inf) for score, here in zip(scores, left, strict=True)]
    if pattern.choose is not None:
        kept = {i: pattern.choose(score.abs() if absolute else score) for i, score in enumerate(scores)}
    else:
        layers = tuple(
            Layer(score.numel() if of_dense else size, score.numel(), shapes[name], size)
            for name, size, score in zip(names, sizes, scores, strict=True)
        )
        kept = _selected(scores, divide(layers), absolute, row_major)
    masks = {name: pattern.expand(kept[i], shapes[name]) for i, name in enumerate(names)}
    if within is None or (pattern.of_single_weights and pattern.choose is None):
        return masks
    return {name: mask & within[name] for name, mask in masks.items()}


def _selected(
    scores: Sequence[Tensor], pools: Sequence[Pool], absolute: bool, row_major: RowMajor | None
) -> dict[int, Tensor]:
    """Return the unit masks of all layers, by position."""
    alone = [pool for pool in pools if len(pool.layers) == 1]
    each = select_each([scores[pool.layers[0]] for pool in alone], [pool.keep for pool in alone], absolute=absolute)
    kept = dict(zip((pool.layers[0] for pool in alone), each, strict=True))
    for pool in pools:
        if len(pool.layers) != 1:
            among = [scores[i] for i in pool.layers]
            whole = row_major if len(among) == len(scores) else None
            kept |= zip(pool.layers, select(among, pool.keep, absolute=absolute, row_major=whole), strict=True)
    return kept


@lru_cache(maxsize=256)
def _pools(
    distribution: Distribution, layers: tuple[Layer, ...], density: Density, count: Count | None
) -> tuple[Pool, ...]:
    """What the distribution says; kept, because methods that select at every step ask for the same again."""
    return tuple(distribution(layers, density, count))


def density_of(masks: Mapping[str, Tensor]) -> float:
    """Return kept over total weights of ``masks``; 1 if there are none."""
    total = sum(mask.numel() for mask in masks.values())
    return sum(int(mask.sum()) for mask in masks.values()) / total if total else 1.0
