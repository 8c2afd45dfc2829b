"""Time to regrow 1 % of VGG-16's 14.7 M weights, and of selecting them by saliency or by a reference mask.

Goal: growing masks and weights is at least 100 times faster than a Python loop over the indices.
"""

from __future__ import annotations

import torch
from torch import Tensor

from benchmarks.timing import pair
from trials.models import MODELS
from trials.regrowth.allocation import Request, uniform
from trials.regrowth.initial import grown, write_weights
from trials.regrowth.selection import highest, referenced
from trials.sparsity import prunable

K = 147_155
DENSITY = 0.01


def main() -> None:
    model = MODELS["vgg16"](num_classes=10, in_channels=3)
    weights = {name: weight.detach() for name, weight in prunable(model).items()}
    generator = torch.Generator().manual_seed(0)
    masks = {name: torch.rand(weight.shape, generator=generator) < DENSITY for name, weight in weights.items()}
    saliency = {name: weight.square() for name, weight in weights.items()}
    capacities = [int((~mask).sum()) for mask in masks.values()]
    counts = dict(zip(masks, uniform(Request(K, capacities, [0.5] * len(masks), generator)), strict=True))
    assert sum(counts.values()) == K
    indices = {name: highest(mask, saliency[name], counts[name]) for name, mask in masks.items()}
    values = {name: weights[name].reshape(-1)[index] for name, index in indices.items()}
    sparse = {name: weight * masks[name] for name, weight in weights.items()}

    def vectorised() -> dict[str, Tensor]:
        new = grown(masks, indices)
        write_weights(sparse, indices, values)
        return new

    def one_by_one() -> dict[str, Tensor]:
        new = {name: mask.clone() for name, mask in masks.items()}
        for name, index in indices.items():
            mask, weight, given = new[name].view(-1), sparse[name].view(-1), values[name]
            for position, i in enumerate(index.tolist()):
                assert not mask[i]
                mask[i] = True
                weight[i] = given[position]
        return new

    assert all(
        torch.equal(mask, other) for mask, other in zip(vectorised().values(), one_by_one().values(), strict=True)
    )
    timed = pair(one_by_one, vectorised, rounds=3)
    print(timed.line(f"regrowing {K:,} of VGG-16's weights", "index by index", "vectorised", ">= 100"))

    every = {name: torch.ones_like(mask) for name, mask in masks.items()}

    def by_saliency() -> list[Tensor]:
        return [highest(mask, saliency[name], counts[name]) for name, mask in masks.items()]

    def by_reference() -> list[Tensor]:
        return [referenced(m, every[name], every[name], counts[name], generator)[0] for name, m in masks.items()]

    timed = pair(by_reference, by_saliency, rounds=3)
    print(timed.line(f"selecting {K:,} weights", "reference", "saliency", "none: reported"))
