"""Scores: how much a weight, or a unit of a pattern, matters. Higher scores are kept."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from trials.registry import Registry
from trials.sparsity.patterns import Pattern, precise
from trials.training.strides import beside

_Named = Mapping[str, Tensor]

WeightScore = Callable[[_Named, torch.Generator], dict[str, Tensor]]
"""Maps weights by name to scores of their shapes; the generator is on the CPU."""

UnitScore = Callable[[_Named, Pattern, torch.Generator, _Named | None], dict[str, Tensor]]
"""Maps weights by name to scores of a pattern's units, of the shapes that the pattern gives them. The last argument
says which units are left (bool, by name, of these shapes); None is all of them."""


@dataclass(frozen=True)
class Score:
    """How single weights are scored, and units of several weights.

    Attributes:
        of_weights: scores of single weights.
        of_units: scores of a pattern's units, single weights among them; None takes the pattern's norm of the scores of
            their weights.
        revision: for scores from outside this package, raised when they rank otherwise than before.
    """

    of_weights: WeightScore
    of_units: UnitScore | None = None
    revision: int = 1

    def __call__(self, weights: _Named, generator: torch.Generator) -> dict[str, Tensor]:
        """Return the scores of single weights, by name, each of its weight's shape."""
        return self.of_weights(weights, generator)

    def units(
        self, weights: _Named, pattern: Pattern, generator: torch.Generator, left: _Named | None = None
    ) -> dict[str, Tensor]:
        """Return the scores of the pattern's units, by weight name, of one dtype and broadcastable to the weights.

        Args:
            generator: on the CPU.
            left: units that are left (bool, of the scores' shapes); None is all. Scores of others mean nothing.
        """
        if self.of_units is None:
            return {name: pattern.unit_scores(score) for name, score in self.of_weights(weights, generator).items()}
        return self.of_units(weights, pattern, generator, left)


def _magnitude(weights: _Named, generator: torch.Generator) -> dict[str, Tensor]:
    return {name: weight.detach().abs() for name, weight in weights.items()}


def _random(weights: _Named, generator: torch.Generator) -> dict[str, Tensor]:
    return {
        name: beside(weight, torch.rand(weight.shape, generator=generator, dtype=torch.float64))
        for name, weight in weights.items()
    }


def _random_units(
    weights: _Named, pattern: Pattern, generator: torch.Generator, left: _Named | None
) -> dict[str, Tensor]:
    """One draw for every unit, whatever its size: a norm of draws would rank units by how many weights they have."""
    if pattern.of_single_weights:  # draws in half precision would often be equal, and ties go by their place
        return _random({name: precise(weight) for name, weight in weights.items()}, generator)
    return {
        name: torch.rand(pattern.unit_shape(weight.shape), generator=generator, dtype=torch.float64).to(weight.device)
        for name, weight in weights.items()
    }


def _lamp(weights: _Named, generator: torch.Generator) -> dict[str, Tensor]:
    return {name: _lamp_of(weight.detach().double().square()) for name, weight in weights.items()}


def _lamp_units(
    weights: _Named, pattern: Pattern, generator: torch.Generator, left: _Named | None
) -> dict[str, Tensor]:
    """LAMP over the units' own squared norms; the norms are those by which magnitude ranks the same units."""
    squares = {name: pattern.unit_scores(weight.detach().abs()).double().square() for name, weight in weights.items()}
    return {
        name: _lamp_of(u, left[name] if left else torch.ones_like(u, dtype=torch.bool)) for name, u in squares.items()
    }


EMPTIED_FIRST = 0.75
"""LAMP score of a unit that must stay while others can go, in a layer whose units are all zero: below 1, the score of
other layers' largest units, and above 1/2, which no other unit exceeds."""


def _lamp_of(squares: Tensor, left: Tensor | None = None) -> Tensor:
    """LAMP scores of a layer's squares, in float64. ``left``: bool; given for units, whose layer keeps one longest."""
    flat = squares.reshape(-1)  # [n]
    ranks = flat if left is None else flat.masked_fill(~left.reshape(-1), -1.0)  # what is gone ranks lowest
    order = ranks.argsort(stable=True)  # ascending; of equal squares the later one scores higher
    ascending = flat[order]
    tails = ascending.flip(0).cumsum(0).flip(0)
    scores = torch.where(ascending > 0, ascending / tails, 0.0)
    if left is not None:
        scores[-1:] = torch.where(ascending[-1:] > 0, scores[-1:], EMPTIED_FIRST)
    return torch.empty_like(scores).scatter_(0, order, scores).view(squares.shape)


MAGNITUDE = Score(_magnitude)
"""|w| (Han et al. 2015, https://arxiv.org/abs/1506.02626); of a unit, the pattern's norm of its weights."""

RANDOM = Score(_random, _random_units)
"""Uniform draws from [0, 1), one for every weight or unit: a baseline for the other scores. Drawn on the CPU, so equal
on every device; those of units are float64."""

LAMP = Score(_lamp, _lamp_units)
"""w_i^2 / sum of w_j^2 over the layer's j with |w_j| >= |w_i| (https://arxiv.org/abs/2010.07611); of units, the same
with the units' norms in place of |w|. Within a layer it ranks as magnitude does.

Only a layer's largest weight or unit scores 1, and all others 1/2 or less. So under a global budget every layer keeps
one while the budget allows, that is, while as many are kept as there are layers. If fewer are kept, the layers that
come last in the model keep one each (of equal scores, the lower index is dropped first), and the others are empty; a
layer of zeros is emptied before those. The released code keeps every score from its threshold on, ties included, so it
never keeps fewer weights than layers.

Sums run in float64 from the largest down; the released code subtracts in float32 and can empty whole layers.
"""


def _is_score(found: Any) -> Score:
    if isinstance(found, Score):
        return found
    if not callable(found):
        raise TypeError(
            f"that is {found!r}: it must be a trials.extend.Score, or a function of weights by name and a generator "
            "that returns scores of their shapes"
        )
    return Score(found, revision=getattr(found, "revision", 1))


def _probe(score: Score) -> None:
    """Try a score from outside on two small layers."""
    generator = torch.Generator().manual_seed(0)
    weights = {
        "conv.weight": torch.randn(4, 3, 3, 3, generator=generator),
        "linear.weight": torch.randn(5, 4, generator=generator),
    }
    found: object = score.of_weights(weights, generator)
    if not isinstance(found, Mapping) or found.keys() != weights.keys():
        said = f"scores of {', '.join(map(str, found)) or 'nothing'}" if isinstance(found, Mapping) else repr(found)
        raise TypeError(f"it returned {said[:100]} for {', '.join(weights)}: it must score every weight by its name")
    for name, scores in found.items():
        if not isinstance(scores, Tensor) or scores.shape != weights[name].shape:
            shape = list(scores.shape) if isinstance(scores, Tensor) else type(scores).__name__
            raise TypeError(f"it scored a weight of shape {list(weights[name].shape)} by {shape}: shapes must be equal")


SCORES: Registry[Score] = Registry(
    "scores", {"magnitude": MAGNITUDE, "random": RANDOM, "lamp": LAMP}, _is_score, probe=_probe
)
"""Scores by name; also those of plug-ins (:mod:`trials.registry`)."""
