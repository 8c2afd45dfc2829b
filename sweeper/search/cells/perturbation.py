"""Hyperparameters of a population's members: drawn at first, perturbed or redrawn when a member copies a better one.

As in Jaderberg et al. 2017 (https://arxiv.org/abs/1711.09846, section 4) and Ray Tune's PBT, a number is multiplied by
one of the factors, and a choice moves to a neighbour in its list. Values never leave their distribution.
"""

from __future__ import annotations

import functools
import math
import random
from collections.abc import Sequence

from sweeper.space.distributions import Choice, Distribution, Int, Uniform
from sweeper.space.ranges import StepGrid
from sweeper.space.values import Scalar


@functools.singledispatch
def draw_value(distribution: Distribution, draw: random.Random) -> Scalar:
    """Draw a value from ``distribution``, independent of other values."""
    raise TypeError(f"population based training cannot draw from {distribution}")


@draw_value.register
def _(distribution: Uniform, draw: random.Random) -> float:
    low, high, grid = distribution.low, distribution.high, distribution.grid
    if grid is not None:
        return grid.value(draw.randrange(grid.count))
    if distribution.log:
        return _within(low, math.exp(draw.uniform(math.log(low), math.log(high))), high)
    return _within(low, draw.uniform(low, high), high)


@draw_value.register
def _(distribution: Int, draw: random.Random) -> int:
    low, high = distribution.low, distribution.high
    if distribution.log:
        return round(_within(low, math.exp(draw.uniform(math.log(low - 0.5), math.log(high + 0.5))), high))
    return low + distribution.step * draw.randint(0, distribution.grid.count - 1)


@draw_value.register
def _(distribution: Choice, draw: random.Random) -> Scalar:
    return draw.choice(distribution.choices)


@functools.singledispatch
def perturb_value(distribution: Distribution, value: Scalar, factors: Sequence[float], draw: random.Random) -> Scalar:
    """Return a value near ``value`` that lies in ``distribution``."""
    raise TypeError(f"population based training cannot perturb {distribution}")


@perturb_value.register
def _(distribution: Uniform, value: float, factors: Sequence[float], draw: random.Random) -> float:
    product = value * draw.choice(factors)
    if distribution.grid is not None:
        return _moved(distribution.grid, value, product)
    return _within(distribution.low, product, distribution.high)


@perturb_value.register
def _(distribution: Int, value: int, factors: Sequence[float], draw: random.Random) -> int:
    """Moves by at least one step in the factor's direction, even if the product rounds to ``value``."""
    product = value * draw.choice(factors)
    if distribution.step > 1:
        return round(_moved(distribution.grid, value, product))
    step = 1 if product > value else -1
    moved = round(product) if round(product) != value or product == value else value + step
    return round(_within(distribution.low, moved, distribution.high))


@perturb_value.register
def _(distribution: Choice, value: Scalar, factors: Sequence[float], draw: random.Random) -> Scalar:
    choices = distribution.choices
    at = choices.index(value)
    neighbours = [choices[i] for i in (at - 1, at + 1) if 0 <= i < len(choices)]
    return draw.choice(neighbours or choices)


def _moved(grid: StepGrid, value: float, product: float) -> float:
    """Return the value in steps that is nearest to ``product``, at least one step from ``value`` towards it."""
    before, now = grid.index(value), grid.index(product)
    if now == before and product != value:
        now += 1 if product > value else -1
    return grid.value(now)


def _within(low: float, value: float, high: float) -> float:
    return min(max(value, low), high)
