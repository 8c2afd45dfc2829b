"""Distributions: how many units each layer keeps. Layers that compete for units form a pool with one exact budget.

Two rules turn shares into whole units. By the rule of this project all layers together keep ``nearest_count(density,
units)``, and what each layer's share leaves over goes to the layers with the largest remainders (:func:`apportioned`).
The released codes round in each layer by itself (a ``Count``), so that the sum may miss the density's.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, cast

from trials.registry import Registry
from trials.sparsity.counts import Density, exact_share, nearest_count


@dataclass(frozen=True)
class Layer:
    """The properties of a layer that a distribution uses.

    Attributes:
        units: number of units of which a density is a share: those that are left, or those of the dense layer.
        total: number of units in the dense layer.
        shape: shape of the weight, [O, I, kh, kw] or [O, I].
        left: number of units that can be kept, if not ``units``.
    """

    units: int
    total: int
    shape: tuple[int, ...]
    left: int | None = None

    @property
    def most(self) -> int:
        """Largest number of units that it can keep."""
        return self.units if self.left is None else self.left


@dataclass(frozen=True)
class Pool:
    """Layers, given by position, that together keep ``keep`` units."""

    layers: tuple[int, ...]
    keep: int


Count = Callable[[float, int], int]
"""Number of units that a density keeps of n, as a released code rounds: ``keep_count``, ``keep_nearest`` or others."""

Distribution = Callable[[Sequence[Layer], Density, Count | None], list[Pool]]
"""Maps layers and a density to pools. With a ``Count``, shares are rounded as in released code; with None, the layers
keep ``nearest_count(density, units)`` together."""

LAST_LAYER = Fraction(1, 5)
"""Uniform+ leaves the last layer at least this share of its dense units."""


def apportioned(shares: Sequence[Fraction], layers: Sequence[Layer], keep: int) -> list[int]:
    """Divide ``keep`` units in proportion to ``shares``, by largest remainders (Hamilton's method).

    Each layer keeps the whole units of its share, and those with the largest remainders one more. Of equal remainders
    the later layer keeps the unit, as of equal scores the lower index is dropped first. No layer keeps more than it
    has; what it cannot keep goes to the next in the same order.

    Args:
        shares: units that each layer would keep if they could be divided; their sum is ``keep`` before rounding.

    Raises:
        ValueError: the layers have fewer than ``keep`` units.
    """
    most = [layer.most for layer in layers]
    if sum(most) < keep:
        raise ValueError(f"{keep} units must be kept, but the layers have {sum(most)}: ask for a lower density")
    kept = [min(math.floor(share), limit) for share, limit in zip(shares, most, strict=True)]
    order = sorted(range(len(layers)), key=lambda i: (shares[i] - math.floor(shares[i]), i), reverse=True)
    left = keep - sum(kept)
    while left > 0:
        for i in order:
            if left and kept[i] < most[i]:
                kept[i], left = kept[i] + 1, left - 1
    return kept


def global_(layers: Sequence[Layer], density: Density, count: Count | None = None) -> list[Pool]:
    """Put all layers in one pool: one ranking over the whole network."""
    return [Pool(tuple(range(len(layers))), _total(layers, density, count))]


def uniform(layers: Sequence[Layer], density: Density, count: Count | None = None) -> list[Pool]:
    """Keep the same share of units in every layer."""
    if count is not None:
        return _alone([min(count(float(density), layer.units), layer.most) for layer in layers])
    share = exact_share(density)
    return _alone(apportioned([share * layer.units for layer in layers], layers, _total(layers, density, None)))


def uniform_plus(layers: Sequence[Layer], density: Density, count: Count | None = None) -> list[Pool]:
    """Uniform, except that the first convolution stays dense and the last layer keeps 20 % of its dense units.

    Source: Gale et al. 2019 (https://arxiv.org/abs/1902.09574), as implemented in LAMP's released code
    (https://arxiv.org/abs/2010.07611).

    Raises:
        ValueError: more units must be removed than the other layers have.
    """
    if not layers:
        return []
    units = [layer.units for layer in layers]
    drop = sum(units) - _total(layers, density, count)
    exempt = 1 if len(layers[0].shape) == 4 else 0
    others, last = range(exempt, len(layers)), len(layers) - 1
    share = _share(drop, [units[i] for i in others], "the first convolution stays dense")
    least = round(LAST_LAYER * layers[last].total)
    left = (1 - share) * units[last]
    dropped = {i: share * units[i] for i in others}
    if others and (left if count is None else round(left)) < least:
        dropped[last] = Fraction(max(units[last] - least, 0))
        middle = others[:-1]
        share = _share(drop - int(dropped[last]), [units[i] for i in middle], f"the last layer keeps {least}")
        dropped |= {i: share * units[i] for i in middle}
    if count is not None:
        return _alone([min(units[i] - round(dropped.get(i, 0)), layer.most) for i, layer in enumerate(layers)])
    kept = [units[i] - dropped.get(i, Fraction(0)) for i in range(len(layers))]
    return _alone(apportioned(kept, layers, sum(units) - drop))


def _share(drop: int, units: Sequence[int], why: str) -> Fraction:
    """Return ``drop`` over the sum of ``units`` as an exact fraction, so that halves round to even."""
    if drop > sum(units):
        raise ValueError(
            f"distribution uniform_plus must remove {drop} units, but {why} and the other layers have {sum(units)}: "
            "ask for a higher density or another distribution"
        )
    return Fraction(drop, sum(units)) if drop else Fraction(0)


def erk(layers: Sequence[Layer], density: Density, count: Count | None = None) -> list[Pool]:
    """Keep units in proportion to the sum of each weight's shape (Erdos-Renyi kernel).

    Source: Evci et al. 2020 (https://arxiv.org/abs/1911.11134), as implemented in LAMP's released code. Layer l has the
    share s_l = T e_l / sum e, with T = density U (U: all units) and e_l the sum of the weight's shape. A layer whose
    s_l exceeds its units stays dense, and the others share the rest of T. As released, every s_l is rounded, and T is
    not.
    """
    units = [layer.units for layer in layers]
    if count is None:
        keep = _total(layers, density, None)
        return _alone(apportioned(_proportional(layers, keep), layers, keep))
    target = Fraction(float(density) * sum(units)).limit_denominator(10**6)
    dense: set[int] = set()
    # One layer per round becomes dense, the most overfull first: its surplus raises the shares of all others.
    while True:
        rest = [i for i in range(len(layers)) if i not in dense]
        left = target - sum(units[i] for i in dense)
        whole = sum(sum(layers[i].shape) for i in rest)
        kept = {i: round(left * sum(layers[i].shape) / whole) for i in rest}
        over = [i for i in rest if kept[i] > units[i]]
        if not over:
            return _alone([min(kept.get(i, units[i]), layer.most) for i, layer in enumerate(layers)])
        dense.add(max(over, key=lambda i: kept[i] / units[i] if units[i] else math.inf))


def _proportional(layers: Sequence[Layer], keep: int) -> list[Fraction]:
    """Shares of ``keep`` in proportion to the sums of shapes, none above a layer's units. They add up to ``keep``."""
    shares = [Fraction(layer.units) for layer in layers]
    rest = list(range(len(layers)))
    while rest:
        left = keep - sum(layer.units for i, layer in enumerate(layers) if i not in rest)
        each = Fraction(left, sum(sum(layers[i].shape) for i in rest))
        over = [i for i in rest if each * sum(layers[i].shape) > layers[i].units]
        if not over:  # layers that become dense only raise the shares of others, so all of them may at once
            return [each * sum(layer.shape) if i in rest else shares[i] for i, layer in enumerate(layers)]
        rest = [i for i in rest if i not in over]
    return shares


def _total(layers: Sequence[Layer], density: Density, count: Count | None) -> int:
    """Units that all layers keep together."""
    units = sum(layer.units for layer in layers)
    return nearest_count(density, units) if count is None else count(float(density), units)


def _alone(kept: Sequence[int]) -> list[Pool]:
    """One pool for each layer."""
    return [Pool((i,), keep) for i, keep in enumerate(kept)]


def _is_distribution(found: Any) -> Distribution:
    if not callable(found):
        raise TypeError(
            f"that is {found!r}: it must be a function of layers, a density and a count (or None) that returns pools"
        )
    return cast("Distribution", found)


def _probe(distribution: Distribution) -> None:
    """Try a distribution from outside on three layers at half of their units."""
    layers = [Layer(n, n, shape) for n, shape in ((108, (12, 1, 3, 3)), (1152, (16, 12, 3, 2)), (160, (10, 16)))]
    pools = distribution(layers, Fraction(1, 2), None)
    held = sorted(layer for pool in pools for layer in pool.layers)
    if held != list(range(len(layers))):
        raise ValueError(f"of 3 layers its pools hold {held}: they must hold each layer once")
    for pool in pools:
        most = sum(layers[layer].most for layer in pool.layers)
        if not 0 <= pool.keep <= most:
            raise ValueError(f"a pool of {most} units keeps {pool.keep}: it must keep 0 to all of them")


DISTRIBUTIONS: Registry[Distribution] = Registry(
    "distributions",
    {"global": global_, "uniform": uniform, "uniform_plus": uniform_plus, "erk": erk},
    _is_distribution,
    probe=_probe,
)
"""Distributions by name; also those of plug-ins (:mod:`trials.registry`)."""
