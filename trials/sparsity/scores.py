"""Score: how much does a weight matter? Higher is kept. A score has its weight's shape."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from trials.training.strides import beside

Score = Callable[[Mapping[str, Tensor], torch.Generator], dict[str, Tensor]]


def magnitude(weights: Mapping[str, Tensor], generator: torch.Generator) -> dict[str, Tensor]:
    """|w| (Han et al. 2015, https://arxiv.org/abs/1506.02626)."""
    return {name: weight.detach().abs() for name, weight in weights.items()}


def random(weights: Mapping[str, Tensor], generator: torch.Generator) -> dict[str, Tensor]:
    """Uniform on [0, 1): the control that every other score must beat. Drawn on CPU, equal on every device."""
    return {
        name: beside(weight, torch.rand(weight.shape, generator=generator, dtype=torch.float64))
        for name, weight in weights.items()
    }


def lamp(weights: Mapping[str, Tensor], generator: torch.Generator) -> dict[str, Tensor]:
    """LAMP: w_i^2 / sum of w_j^2 over j with |w_j| >= |w_i|, within the layer (https://arxiv.org/abs/2010.07611).

    A layer's largest weight scores 1 and no other does, so that every layer keeps one while the budget allows. In
    float64 and summed from the largest down: the released code subtracts in float32 and may lose whole layers.
    """
    return {name: _lamp(weight.detach().reshape(-1).double()).view(weight.shape) for name, weight in weights.items()}


def _lamp(weights: Tensor) -> Tensor:
    squares, order = weights.square().sort(stable=True)  # [n], ascending: of equal weights, the later one matters more
    tails = squares.flip(0).cumsum(0).flip(0)
    ranked = torch.where(squares > 0, squares / tails, 0.0)
    return torch.empty_like(ranked).scatter_(0, order, ranked)


SCORES: dict[str, Score] = {"magnitude": magnitude, "random": random, "lamp": lamp}
