"""Evaluate a network's loss and accuracy on a split, and recompute batch-norm statistics."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import islice

import torch
from torch import Tensor, nn

from trials.data import Loader
from trials.training.net import Batch, Net

EVAL_BATCH = 500
"""Images of a batch that is evaluated."""


@dataclass
class Totals:
    """Loss and number of correct images, summed on the device, so that no step synchronises with it."""

    loss: Tensor
    correct: Tensor
    count: int = 0

    @classmethod
    def zero(cls, device: torch.device) -> Totals:
        dtype = torch.float64 if device.type == "cpu" else torch.float32
        return cls(torch.zeros((), device=device, dtype=dtype), torch.zeros((), device=device, dtype=torch.int64))

    def add(self, loss: Tensor, correct: Tensor, count: int) -> None:
        """Add a batch of ``count`` images: its mean loss and its number of correct ones."""
        self.add_on_device(loss, correct, count)
        self.count += count

    def add_on_device(self, loss: Tensor, correct: Tensor, count: int) -> None:
        """Like :meth:`add`, without the number of images, which the host counts."""
        self.loss += loss.detach() * count
        self.correct += correct

    def reset(self) -> None:
        """Begin anew, in the same tensors."""
        self.loss.zero_()
        self.correct.zero_()
        self.count = 0

    def means(self) -> tuple[float, float]:
        """Return the mean loss and the accuracy in [0, 1]; waits for the device."""
        return float(self.loss) / max(self.count, 1), int(self.correct) / max(self.count, 1)


def evaluate(net: Net, data: Loader, split: str, batch_size: int = EVAL_BATCH) -> tuple[float, float]:
    """Return mean loss and accuracy in [0, 1] on a split (train, val, test), in eval mode (frozen BN statistics)."""
    totals = Totals.zero(net.device)
    net.model.eval()
    with torch.no_grad():
        for x, y in data.eval_batches(split, batch_size):
            totals.add(*net.loss(x, y), len(y))
    return totals.means()


def recalibrate_batchnorm(net: Net, batches: Iterable[Batch], count: int) -> None:
    """Recompute BN's running statistics as plain averages over the first ``count`` batches, in training mode."""
    norms = [module for module in net.model.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # None makes torch average all batches with equal weight
    net.model.train()
    with torch.no_grad():
        for x, y in islice(batches, count):
            net.loss(x, y)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
