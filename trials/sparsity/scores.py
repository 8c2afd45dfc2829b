"""Scores: how much each weight matters. A score has its weight's shape; higher scores are kept."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from trials.training.strides import beside

Score = Callable[[Mapping[str, Tensor], torch.Generator], dict[str, Tensor]]
"""Maps weights by name to their scores; the generator is on the CPU."""


def magnitude(weights: Mapping[str, Tensor], generator: torch.Generator) -> dict[str, Tensor]:
    """Return |w| (Han et al. 2015, https://arxiv.org/abs/1506.02626)."""
    return {name: weight.detach().abs() for name, weight in weights.items()}


def random(weights: Mapping[str, Tensor], generator: torch.Generator) -> dict[str, Tensor]:
    """Return uniform draws from [0, 1), a baseline for the other scores. Drawn on the CPU: equal on every device."""
    return {
        name: beside(weight, torch.rand(weight.shape, generator=generator, dtype=torch.float64))
        for name, weight in weights.items()
    }


def lamp(weights: Mapping[str, Tensor], generator: torch.Generator) -> dict[str, Tensor]:
    """Return LAMP scores, w_i^2 / sum of w_j^2 over the layer's j with |w_j| >= |w_i| (https://arxiv.org/abs/2010.07611).

    Only a layer's largest weight scores 1, so every layer keeps a weight while the budget allows. Sums run in float64
    from the largest weight down; the released code subtracts in float32 and can empty whole layers.
    """
    return {name: _lamp(weight.detach().reshape(-1).double()).view(weight.shape) for name, weight in weights.items()}


def _lamp(weights: Tensor) -> Tensor:
    squares, order = weights.square().sort(stable=True)  # [n], ascending; of equal weights the later one scores higher
    tails = squares.flip(0).cumsum(0).flip(0)
    ranked = torch.where(squares > 0, squares / tails, 0.0)
    return torch.empty_like(ranked).scatter_(0, order, ranked)


SCORES: dict[str, Score] = {"magnitude": magnitude, "random": random, "lamp": lamp}
