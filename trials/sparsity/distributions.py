"""Distributions: how many units each layer keeps. Layers that compete for units form a pool with one exact budget."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction

from trials.sparsity.select import keep_count


@dataclass(frozen=True)
class Layer:
    """The properties of a layer that a distribution uses.

    Attributes:
        units: current number of units; a density is a share of these.
        total: number of units in the dense layer.
        shape: shape of the weight, [O, I, kh, kw] or [O, I].
    """

    units: int
    total: int
    shape: tuple[int, ...]


@dataclass(frozen=True)
class Pool:
    """Layers, given by position, that together keep ``keep`` units."""

    layers: tuple[int, ...]
    keep: int


Count = Callable[[float, int], int]
"""Number of units that a density keeps of n: ``keep_count`` or another rounding rule."""

Distribution = Callable[[Sequence[Layer], float, Count], list[Pool]]

LAST_LAYER = 0.2
"""Uniform+ leaves the last layer at least this share of its dense units."""


def keep_nearest(density: float, n: int) -> int:
    """Return density n, rounded half to even, as LAMP's code does (https://github.com/jaeho-lee/layer-adaptive-sparsity).

    >>> keep_nearest(0.5, 5), keep_nearest(0.3, 10)
    (2, 3)
    """
    return nearest(density * n)


def drop_nearest(density: float, n: int) -> int:
    """Return n minus (1 - density) n, the latter rounded half to even, as torch.nn.utils.prune does.

    >>> drop_nearest(0.5, 5), drop_nearest(0.7, 15)
    (3, 11)
    """
    return n - nearest((1 - density) * n)


def nearest(x: float) -> int:
    """Round half to even; a value within float error of a half, such as 4.500000000000001, counts as a half."""
    return round(round(x, 6))


def global_(layers: Sequence[Layer], density: float, count: Count = keep_count) -> list[Pool]:
    """Put all layers in one pool: one ranking over the whole network."""
    return [Pool(tuple(range(len(layers))), count(density, sum(layer.units for layer in layers)))]


def uniform(layers: Sequence[Layer], density: float, count: Count = keep_count) -> list[Pool]:
    """Keep the same share of units in every layer."""
    return [Pool((i,), count(density, layer.units)) for i, layer in enumerate(layers)]


def uniform_plus(layers: Sequence[Layer], density: float, count: Count = keep_count) -> list[Pool]:
    """Uniform, except that the first convolution stays dense and the last layer keeps 20 % of its dense units.

    Source: Gale et al. 2019 (https://arxiv.org/abs/1902.09574), as implemented in LAMP's released code
    (https://arxiv.org/abs/2010.07611).

    Raises:
        ValueError: more units must be removed than the other layers have.
    """
    units = sum(layer.units for layer in layers)
    drop = units - count(density, units)
    exempt = 1 if len(layers[0].shape) == 4 else 0
    others, last = range(exempt, len(layers)), len(layers) - 1
    share = _share(drop, [layers[i].units for i in others], "the first convolution stays dense")
    shares = [Fraction(0)] * exempt + [share] * len(others)
    dropped = [round(part * layer.units) for part, layer in zip(shares, layers, strict=True)]
    least = round(LAST_LAYER * layers[last].total)
    if others and round((1 - share) * layers[last].units) < least:
        dropped[last] = max(layers[last].units - least, 0)
        middle = others[:-1]
        share = _share(drop - dropped[last], [layers[i].units for i in middle], f"the last layer keeps {least}")
        for i in middle:
            dropped[i] = round(share * layers[i].units)
    return [Pool((i,), layer.units - gone) for i, (layer, gone) in enumerate(zip(layers, dropped, strict=True))]


def _share(drop: int, units: Sequence[int], why: str) -> Fraction:
    """Return ``drop`` over the sum of ``units`` as an exact fraction, so that halves round to even."""
    if drop > sum(units):
        raise ValueError(
            f"distribution uniform_plus must remove {drop} units, but {why} and the other layers have {sum(units)}: "
            "ask for a higher density or another distribution"
        )
    return Fraction(drop, sum(units)) if drop else Fraction(0)


def erk(layers: Sequence[Layer], density: float, count: Count = keep_count) -> list[Pool]:
    """Keep units in proportion to the sum of each weight's shape (Erdos-Renyi kernel).

    Source: Evci et al. 2020 (https://arxiv.org/abs/1911.11134), as implemented in LAMP's released code. Layer l keeps
    s_l = round(T e_l / sum e) units, with T = density U (U: all units) and e_l the sum of the weight's shape. A layer
    whose s_l exceeds its units stays dense, and the others share the rest of T.
    """
    units = [layer.units for layer in layers]
    target = Fraction(density * sum(units)).limit_denominator(10**6)
    dense: set[int] = set()
    # One layer per round becomes dense, the most overfull first: its surplus raises the shares of all others.
    while True:
        rest = [i for i in range(len(layers)) if i not in dense]
        left = target - sum(units[i] for i in dense)
        whole = sum(sum(layers[i].shape) for i in rest)
        kept = {i: round(left * sum(layers[i].shape) / whole) for i in rest}
        over = [i for i in rest if kept[i] > units[i]]
        if not over:
            return [Pool((i,), kept.get(i, units[i])) for i in range(len(layers))]
        dense.add(max(over, key=lambda i: kept[i] / units[i] if units[i] else math.inf))


DISTRIBUTIONS: dict[str, Distribution] = {
    "global": global_,
    "uniform": uniform,
    "uniform_plus": uniform_plus,
    "erk": erk,
}
