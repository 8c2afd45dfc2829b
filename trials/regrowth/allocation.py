"""How much of a budget K does each layer get back? Whole numbers, none above its layer's capacity (its pruned weights).

The corrected rules spend min(K, sum of capacities) exactly. ``original`` rules are the released code's: they round as
it does, and what they leave unspent stays so. The learned allocation is in controller.py.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction

import torch

MISSING = 0.5
"""The SSIM that the released code gives to layers it cannot measure."""


@dataclass(frozen=True)
class Request:
    """What an allocation is asked for.

    Attributes:
        budget: K.
        capacities: pruned weights per layer.
        ssim: between dense and sparse features, per layer; NaN where undefined.
        generator: for what is drawn; on the CPU.
    """

    budget: int
    capacities: Sequence[int]
    ssim: Sequence[float]
    generator: torch.Generator

    def defined_ssim(self) -> list[float]:
        """With what is undefined put in the middle of the scale: neither preferred nor neglected."""
        return [MISSING if math.isnan(value) else value for value in self.ssim]


Allocation = Callable[[Request], list[int]]


def largest_remainder(weights: Sequence[float], budget: int, capacities: Sequence[int]) -> list[int]:
    """Shares of ``budget`` in proportion to ``weights``, none above its capacity, min(budget, all capacity) in all.

    What exceeds a capacity goes to the others in the same proportion; what rounding down leaves goes, one each, to the
    largest remainders (equal ones: the earlier layer). Where all weights left are 0, capacity decides.

    >>> largest_remainder([1, 1, 2], 10, [1, 9, 9])
    [1, 3, 6]
    """
    left = min(budget, sum(capacities))
    counts = [0] * len(weights)
    room = [i for i, capacity in enumerate(capacities) if capacity]
    while left:
        exact = {i: Fraction(weights[i]) for i in room}
        whole = sum(exact.values())
        if not whole:
            exact = {i: Fraction(capacities[i] - counts[i]) for i in room}
            whole = sum(exact.values())
        quotas = {i: left * part / whole for i, part in exact.items()}
        full = [i for i in room if quotas[i] >= capacities[i] - counts[i]]
        if not full:
            counts = [count + math.floor(quotas.get(i, 0)) for i, count in enumerate(counts)]
            order = sorted(room, key=lambda i: -(quotas[i] % 1))
            for i in order[: left - sum(math.floor(quota) for quota in quotas.values())]:
                counts[i] += 1
            return counts
        for i in full:
            left -= capacities[i] - counts[i]
            counts[i] = capacities[i]
        room = [i for i in room if counts[i] < capacities[i]]
    return counts


def spend_rest(counts: Sequence[int], budget: int, capacities: Sequence[int]) -> list[int]:
    """``counts``, and what they leave of the budget by what they leave of the capacities."""
    rooms = [capacity - count for capacity, count in zip(capacities, counts, strict=True)]
    more = largest_remainder(rooms, budget - sum(counts), rooms)
    return [count + extra for count, extra in zip(counts, more, strict=True)]


def greedy(request: Request) -> list[int]:
    """The layers least like their dense selves first, each filled before the next."""
    left = request.budget
    counts = [0] * len(request.capacities)
    ssim = request.defined_ssim()
    for i in sorted(range(len(ssim)), key=lambda i: ssim[i]):
        counts[i] = min(left, request.capacities[i])
        left -= counts[i]
    return counts


def dissimilarity(request: Request) -> list[float]:
    return [max(1 - value, 1e-6) for value in request.defined_ssim()]


def proportional(request: Request) -> list[int]:
    """In proportion to 1 - SSIM."""
    return largest_remainder(dissimilarity(request), request.budget, request.capacities)


def proportional_original(request: Request) -> list[int]:
    """round(K w / sum of w) each, capped; leftovers where most capacity is left. Rounding up may overspend."""
    weights = dissimilarity(request)
    shares = [request.budget * weight / sum(weights) for weight in weights]
    counts = [min(round(share), capacity) for share, capacity in zip(shares, request.capacities, strict=True)]
    left = request.budget - sum(counts)
    rooms = [capacity - count for capacity, count in zip(request.capacities, counts, strict=True)]
    for i in sorted(range(len(rooms)), key=lambda i: -rooms[i]):
        if left <= 0:
            break
        more = min(left, rooms[i])
        counts[i] += more
        left -= more
    return counts


def uniform(request: Request) -> list[int]:
    """The same share of every layer's pruned weights."""
    return largest_remainder(request.capacities, request.budget, request.capacities)


def uniform_original(request: Request) -> list[int]:
    """floor(K capacity / sum of capacities) each."""
    whole = max(sum(request.capacities), 1)
    return [min(request.budget * capacity // whole, capacity) for capacity in request.capacities]


def random(request: Request) -> list[int]:
    """A division drawn uniformly from all of them (but for the caps)."""
    draws = torch.rand(len(request.capacities), generator=request.generator, dtype=torch.float64)
    return largest_remainder(draws.log().neg().tolist(), request.budget, request.capacities)


ALLOCATIONS: dict[str, Allocation] = {
    "greedy": greedy,
    "proportional": proportional,
    "uniform": uniform,
    "random": random,
}

ORIGINAL: dict[str, Allocation] = {
    **ALLOCATIONS,
    "proportional": proportional_original,
    "uniform": uniform_original,
}
"""The same names, as the released code has them."""
