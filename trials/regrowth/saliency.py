"""Saliency (dL/dw)^2 w^2, an estimate of the loss increase when a weight is removed, overall or per class.

This is the score of Fisher pruning (Theis et al. 2018, https://arxiv.org/abs/1801.05787) and, per class, of FairPrune
(Wu et al. 2022, https://arxiv.org/abs/2203.02110), but with the gradient of the batch's mean loss instead of
per-sample gradients.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

from trials.training.net import Batch, Net


def squared_gradients(
    net: Net, batches: Iterable[Batch], weights: Mapping[str, Tensor], max_batches: int | None = None
) -> dict[str, Tensor]:
    """Return the mean over batches of (dL/dw)^2, with L the batch's mean cross-entropy and the model in eval mode."""
    return _mean_of_gradients(net, batches, weights, max_batches, torch.square)


def gradient_magnitudes(
    net: Net, batches: Iterable[Batch], weights: Mapping[str, Tensor], max_batches: int | None = None
) -> dict[str, Tensor]:
    """Return |mean over batches of dL/dw|, for masked weights too (RigL's score, https://arxiv.org/abs/1911.11134)."""
    return {name: mean.abs() for name, mean in batch_mean_gradients(net, batches, weights, max_batches).items()}


def batch_mean_gradients(
    net: Net, batches: Iterable[Batch], weights: Mapping[str, Tensor], max_batches: int | None = None
) -> dict[str, Tensor]:
    """Return the mean over batches of dL/dw, with the model in eval mode."""
    return _mean_of_gradients(net, batches, weights, max_batches, lambda gradient: gradient)


def _mean_of_gradients(
    net: Net,
    batches: Iterable[Batch],
    weights: Mapping[str, Tensor],
    max_batches: int | None,
    of: Callable[[Tensor], Tensor],
) -> dict[str, Tensor]:
    training = net.model.training
    net.model.eval()
    sums = {name: torch.zeros_like(weight) for name, weight in weights.items()}
    count = 0
    for x, y in islice(batches, max_batches):
        loss, _ = net.loss(x, y)
        for total, gradient in zip(sums.values(), torch.autograd.grad(loss, list(weights.values())), strict=True):
            total += of(gradient)
        count += 1
        net.work.add(len(y))
    net.model.train(training)
    if not count:
        raise ValueError("saliency is a mean over batches, but there are none")
    return {name: total / count for name, total in sums.items()}


def saliency(
    net: Net, batches: Iterable[Batch], weights: Mapping[str, Tensor], max_batches: int | None = None
) -> dict[str, Tensor]:
    """Return the mean over batches of (dL/dw)^2 w^2 in a dense network.

    Args:
        net: the network; it must have no masks.
        batches: training batches, at most ``max_batches`` of which are read.
        weights: parameters of ``net`` to score, by name.

    Raises:
        ValueError: the network has masks. Masked weights are 0, so their saliency would be 0 too: use
            :func:`sparse_saliency`.
    """
    if net.masks:
        raise ValueError("saliency needs a dense network, but this one has masks: use sparse_saliency")
    return sparse_saliency(net, batches, weights, weights, max_batches)


def sparse_saliency(
    net: Net,
    batches: Iterable[Batch],
    weights: Mapping[str, Tensor],
    dense: Mapping[str, Tensor],
    max_batches: int | None = None,
) -> dict[str, Tensor]:
    """Return the saliency with gradients of a sparse network and the weights of the dense one."""
    squares = squared_gradients(net, batches, weights, max_batches)
    return {name: square * dense[name].detach().square() for name, square in squares.items()}


def class_saliency(
    model: nn.Module,
    batches: Iterable[Batch],
    parameters: Mapping[str, Tensor],
    num_classes: int,
    order: Literal["first", "second"] = "second",
) -> dict[str, Tensor]:
    """Return the saliency of every parameter for every class, [classes, numel], in one pass over the data.

    L_c is the mean loss of a batch's samples of class c. ``second`` is the mean of (dL_c/dw)^2 w^2 over the batches
    that contain the class, ``first`` the mean of |dL_c/dw|. A class that never occurs gets a row of zeros.
    """
    training = model.training
    model.eval()
    tensors = list(parameters.values())
    sums = [tensor.new_zeros(num_classes, tensor.numel()) for tensor in tensors]
    counts = [0] * num_classes
    for x, y in batches:
        losses = nn.functional.cross_entropy(model(x), y, reduction="none")
        classes = torch.bincount(y, minlength=num_classes).nonzero().squeeze(1).tolist()
        for c in classes:
            mean = losses[y == c].mean()
            gradients = torch.autograd.grad(mean, tensors, retain_graph=c != classes[-1])
            for total, gradient in zip(sums, gradients, strict=True):
                total[c] += gradient.square().reshape(-1) if order == "second" else gradient.abs().reshape(-1)
            counts[c] += 1
    model.train(training)
    divisor = torch.tensor(counts, device=tensors[0].device).clamp_min(1)[:, None]
    scale = [tensor.detach().square().reshape(-1) if order == "second" else 1.0 for tensor in tensors]
    means = [total / divisor * factor for total, factor in zip(sums, scale, strict=True)]
    return dict(zip(parameters, means, strict=True))


@dataclass(frozen=True)
class ClassStatistics:
    """Statistics of the per-class saliency [classes, numel] of one parameter.

    Attributes:
        mean, std: per class, over the parameter's entries (population standard deviation).
        mean_range: largest minus smallest value over the classes, averaged over the entries.
        unfairness: standard deviation of the class means divided by their mean; 0 means equal class means.
    """

    mean: Tensor
    std: Tensor
    mean_range: Tensor
    unfairness: Tensor


def class_statistics(saliency: Tensor) -> ClassStatistics:
    """Compute the statistics of per-class saliency [classes, numel]."""
    means = saliency.mean(1)
    spread = means.std(correction=0) / (means.mean() + 1e-8)
    ranges = saliency.amax(0) - saliency.amin(0)
    return ClassStatistics(means, saliency.std(1, correction=0), ranges.mean(), spread)


def biased_entries(saliency: Tensor, percentile: float = 90.0) -> tuple[Tensor, Tensor, Tensor]:
    """Return the entries whose range over the classes is at or above a percentile of all ranges, widest first.

    Returns:
        Flat indices, ranges, and for each entry the class with the highest saliency.
    """
    ranges = (saliency.amax(0) - saliency.amin(0)).double()
    found = (ranges >= float(np.quantile(ranges.cpu().numpy(), percentile / 100))).nonzero().squeeze(1)
    order = found[ranges[found].argsort(descending=True, stable=True)]
    return order, ranges[order], saliency.argmax(0)[order]
