"""Distribution: how many units stay in each layer? Layers that compete share a pool with one exact budget."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction

from trials.sparsity.select import keep_count


@dataclass(frozen=True)
class Layer:
    """What a distribution knows of a layer.

    Attributes:
        units: how many units there are now: those that a density is a share of.
        total: how many there are in the dense layer.
        shape: its weight's, [O, I, kh, kw] or [O, I].
    """

    units: int
    total: int
    shape: tuple[int, ...]


@dataclass(frozen=True)
class Pool:
    """Layers (by position) that compete for ``keep`` units."""

    layers: tuple[int, ...]
    keep: int


Count = Callable[[float, int], int]
"""How many of n units a density keeps: ``keep_count`` or another rounding."""

Distribution = Callable[[Sequence[Layer], float, Count], list[Pool]]

LAST_LAYER = 0.2
"""Uniform+ leaves the last layer at least this share of its dense units."""


def keep_nearest(density: float, n: int) -> int:
    """density n, rounded; halves to the even count of what is kept (LAMP, released code).

    >>> keep_nearest(0.5, 5), keep_nearest(0.3, 10)
    (2, 3)
    """
    return nearest(density * n)


def drop_nearest(density: float, n: int) -> int:
    """n - (1 - density) n, rounded; halves to the even count of what is removed (torch.nn.utils.prune).

    >>> drop_nearest(0.5, 5), drop_nearest(0.7, 15)
    (3, 11)
    """
    return n - nearest((1 - density) * n)


def nearest(x: float) -> int:
    """The nearest whole number, halves to even; 4.500000000000001 is a half that float arithmetic missed."""
    return round(round(x, 6))


def global_(layers: Sequence[Layer], density: float, count: Count = keep_count) -> list[Pool]:
    """All layers compete: one ranking over the whole network."""
    return [Pool(tuple(range(len(layers))), count(density, sum(layer.units for layer in layers)))]


def uniform(layers: Sequence[Layer], density: float, count: Count = keep_count) -> list[Pool]:
    """Every layer keeps the same share of its units."""
    return [Pool((i,), count(density, layer.units)) for i, layer in enumerate(layers)]


def uniform_plus(layers: Sequence[Layer], density: float, count: Count = keep_count) -> list[Pool]:
    """Uniform, but the first convolution stays dense and the last layer keeps a fifth of its dense size.

    Gale et al. 2019 (https://arxiv.org/abs/1902.09574), as the LAMP code has it (https://arxiv.org/abs/2010.07611).

    Raises:
        ValueError: what the other layers hold is less than what must go.
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
    """The share of ``units`` that makes ``drop``: exact, so that halves are halves."""
    if drop > sum(units):
        raise ValueError(
            f"distribution uniform_plus must remove {drop} units, but {why} and the other layers have {sum(units)}: "
            "ask for a higher density or another distribution"
        )
    return Fraction(drop, sum(units)) if drop else Fraction(0)


def erk(layers: Sequence[Layer], density: float, count: Count = keep_count) -> list[Pool]:
    """What stays in a layer is in proportion to the sum of its shape (Erdos-Renyi kernel).

    Evci et al. 2020 (https://arxiv.org/abs/1911.11134), as the LAMP code has it: survivors s_l = round(T e_l / sum e),
    T = density U, e_l the sum of the weight's shape; a layer that would keep more than it has stays dense, and the
    others share what is left of T.
    """
    units = [layer.units for layer in layers]
    target = Fraction(density * sum(units)).limit_denominator(10**6)
    dense: set[int] = set()
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
