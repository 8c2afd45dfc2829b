"""Distribution: how many units stay in each layer? Layers that compete share a pool with one exact budget."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from trials.sparsity.select import keep_count


@dataclass(frozen=True)
class Pool:
    """Layers (by position) that compete for ``keep`` units."""

    layers: tuple[int, ...]
    keep: int


Distribution = Callable[[Sequence[int], float], list[Pool]]


def global_(sizes: Sequence[int], density: float) -> list[Pool]:
    """All layers compete: one ranking over the whole network."""
    return [Pool(tuple(range(len(sizes))), keep_count(density, sum(sizes)))]


def uniform(sizes: Sequence[int], density: float) -> list[Pool]:
    """Every layer keeps the same share of its units."""
    return [Pool((i,), keep_count(density, n)) for i, n in enumerate(sizes)]


DISTRIBUTIONS: dict[str, Distribution] = {"global": global_, "uniform": uniform}
