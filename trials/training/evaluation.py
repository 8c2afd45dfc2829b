"""Loss and accuracy of a network over a split, and batch-norm statistics measured anew."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import islice

import torch
from torch import Tensor, nn

from trials.data import Loader
from trials.training.net import Batch, Net


@dataclass
class Totals:
    """Loss and hits of an epoch, summed on the device: nothing waits for it before the epoch ends."""

    loss: Tensor
    correct: Tensor
    count: int = 0

    @classmethod
    def zero(cls, device: torch.device) -> Totals:
        dtype = torch.float64 if device.type == "cpu" else torch.float32
        return cls(torch.zeros((), device=device, dtype=dtype), torch.zeros((), device=device, dtype=torch.int64))

    def add(self, loss: Tensor, correct: Tensor, count: int) -> None:
        self.loss += loss.detach() * count
        self.correct += correct
        self.count += count

    def means(self) -> tuple[float, float]:
        """Mean loss, and accuracy in [0, 1]."""
        return float(self.loss) / max(self.count, 1), int(self.correct) / max(self.count, 1)


def evaluate(net: Net, data: Loader, split: str, batch_size: int = 500) -> tuple[float, float]:
    """Mean loss, and accuracy in [0, 1], of a split (train, val, test) in its order, with BN statistics frozen."""
    totals = Totals.zero(net.device)
    net.model.eval()
    with torch.no_grad():
        for x, y in data.eval_batches(split, batch_size):
            totals.add(*net.loss(x, y), len(y))
    return totals.means()


def recalibrate_batchnorm(net: Net, batches: Iterable[Batch], count: int) -> None:
    """Measure BN's statistics anew: plain averages over ``count`` batches, in training mode."""
    norms = [module for module in net.model.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None
    net.model.train()
    with torch.no_grad():
        for x, y in islice(batches, count):
            net.loss(x, y)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
