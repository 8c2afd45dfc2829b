"""Score: how much does a weight matter? Higher is kept. A score has its weight's shape."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

Score = Callable[[Mapping[str, Tensor], torch.Generator], dict[str, Tensor]]


def magnitude(weights: Mapping[str, Tensor], generator: torch.Generator) -> dict[str, Tensor]:
    """|w| (Han et al. 2015, https://arxiv.org/abs/1506.02626)."""
    return {name: weight.detach().abs() for name, weight in weights.items()}


def random(weights: Mapping[str, Tensor], generator: torch.Generator) -> dict[str, Tensor]:
    """Uniform on [0, 1): the control that every other score must beat. Drawn on CPU, equal on every device."""
    return {
        name: torch.rand(weight.shape, generator=generator, dtype=torch.float64).to(weight)
        for name, weight in weights.items()
    }


SCORES: dict[str, Score] = {"magnitude": magnitude, "random": random}
