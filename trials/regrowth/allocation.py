"""Rules that divide a regrowth budget of K weights among layers, in whole numbers.

No layer gets more than its capacity, the number of its pruned weights. The corrected rules spend exactly
min(K, sum of capacities). The ``original`` rules round as the released code does
(https://github.com/EnumaCaliber/Bidirection-Prune-Regrowth, commit b40cb9f) and may leave a part unspent. The learned
allocation is in controller.py.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction

import torch

MISSING = 0.5
"""SSIM of layers that cannot be measured, as in the released code."""


@dataclass(frozen=True)
class Request:
    """The inputs of an allocation rule.

    Attributes:
        budget: K.
        capacities: pruned weights per layer.
        ssim: structural similarity of dense and sparse features, per layer; NaN where undefined.
        generator: for random draws; on the CPU.
    """

    budget: int
    capacities: Sequence[int]
    ssim: Sequence[float]
    generator: torch.Generator

    def defined_ssim(self) -> list[float]:
        """Return the SSIM per layer, with undefined values replaced by the middle of the scale."""
        return [MISSING if math.isnan(value) else value for value in self.ssim]


Allocation = Callable[[Request], list[int]]
"""A rule: maps a request to the number of weights that each layer gets back."""


def largest_remainder(weights: Sequence[float], budget: int, capacities: Sequence[int]) -> list[int]:
    """Divide ``budget`` in proportion to ``weights``, with no share above its capacity.

    The shares sum to min(budget, sum of capacities). What exceeds a capacity is divided among the other layers in the
    same proportion. What rounding down leaves goes to the largest remainders, one each; ties go to the earlier layer.
    If all remaining weights are 0, remaining capacities replace them.

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
        # Fill layers whose quota reaches their capacity first: what they cannot take raises the others' quotas.
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
    """Add the unspent budget to ``counts``, in proportion to the remaining capacities."""
    rooms = [capacity - count for capacity, count in zip(capacities, counts, strict=True)]
    more = largest_remainder(rooms, budget - sum(counts), rooms)
    return [count + extra for count, extra in zip(counts, more, strict=True)]


def greedy(request: Request) -> list[int]:
    """Fill layers to capacity one after the other, by ascending SSIM."""
    left = request.budget
    counts = [0] * len(request.capacities)
    ssim = request.defined_ssim()
    for i in sorted(range(len(ssim)), key=lambda i: ssim[i]):
        counts[i] = min(left, request.capacities[i])
        left -= counts[i]
    return counts


def dissimilarity(request: Request) -> list[float]:
    """Return 1 - SSIM per layer, at least 1e-6."""
    return [max(1 - value, 1e-6) for value in request.defined_ssim()]


def proportional(request: Request) -> list[int]:
    """Divide in proportion to 1 - SSIM."""
    return largest_remainder(dissimilarity(request), request.budget, request.capacities)


def proportional_original(request: Request) -> list[int]:
    """Give each layer round(K w / sum w), w = 1 - SSIM, up to its capacity; the rest goes where most capacity is left.

    Rounding up may spend more than K.
    """
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
    """Give every layer the same share of its pruned weights."""
    return largest_remainder(request.capacities, request.budget, request.capacities)


def uniform_original(request: Request) -> list[int]:
    """Give each layer floor(K capacity / sum of capacities)."""
    whole = max(sum(request.capacities), 1)
    return [min(request.budget * capacity // whole, capacity) for capacity in request.capacities]


def random(request: Request) -> list[int]:
    """Draw a division of the budget uniformly from all divisions, then apply the capacities."""
    draws = torch.rand(len(request.capacities), generator=request.generator, dtype=torch.float64)
    return largest_remainder(draws.log().neg().tolist(), request.budget, request.capacities)


ALLOCATIONS: dict[str, Allocation] = {
    "greedy": greedy,
    "proportional": proportional,
    "uniform": uniform,
    "random": random,
}
"""The corrected rules, by name."""

ORIGINAL: dict[str, Allocation] = {
    **ALLOCATIONS,
    "proportional": proportional_original,
    "uniform": uniform_original,
}
"""The rules as in the released code, under the same names."""
