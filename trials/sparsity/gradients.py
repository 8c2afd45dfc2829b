"""Scores from gradients of the training loss."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

import torch
from torch import Tensor

from trials.training.net import Batch, Net

GradientScore = Callable[[Mapping[str, Tensor], Mapping[str, Tensor]], dict[str, Tensor]]
"""Maps weights and their gradients, by name, to scores of the weights' shapes; higher scores are kept."""


def mean_gradients(net: Net, weights: Mapping[str, Tensor], batches: Iterable[Batch]) -> dict[str, Tensor]:
    """Return dL/dw by weight name, with L the mean cross-entropy over all images of ``batches``.

    The model is set to eval mode: BN uses its running statistics and does not update them. The parameters' ``grad`` is
    not touched.

    Raises:
        ValueError: ``batches`` hold no images.
    """
    net.model.eval()
    count, sums = 0, [torch.zeros_like(weight) for weight in weights.values()]
    for x, y in batches:
        loss, _ = net.loss(x, y)
        for total, gradient in zip(sums, torch.autograd.grad(loss * len(y), list(weights.values())), strict=True):
            total += gradient
        count += len(y)
        net.work.add(len(y))
    if not count:
        raise ValueError("batches hold no images, but gradients are averaged over images: give at least one batch")
    return {name: total.div_(count) for name, total in zip(weights, sums, strict=True)}


def taylor(weights: Mapping[str, Tensor], gradients: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return |w dL/dw|, the first-order change of the loss when w is removed (https://arxiv.org/abs/1906.10771)."""
    return {name: (weight.detach() * gradients[name]).abs() for name, weight in weights.items()}


def gradient(weights: Mapping[str, Tensor], gradients: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return |dL/dw|."""
    return {name: gradients[name].abs() for name in weights}


GRADIENT_SCORES: dict[str, GradientScore] = {"taylor": taylor, "gradient": gradient}
