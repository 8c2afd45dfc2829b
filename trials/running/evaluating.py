"""Evaluate a trial's network after each epoch; full batches are replayed as a CUDA graph. Not yet run on a GPU."""

from __future__ import annotations

from collections.abc import Callable

import torch

from trials.data.loader import FixedBatches, Loader
from trials.training import graphs
from trials.training.evaluation import EVAL_BATCH, Totals, evaluate
from trials.training.net import Net

EAGER = 2
"""Evaluations of a split that run eagerly before one is captured: a capture costs as much time as some of them."""


class Evaluator:
    """Evaluates ``net`` on the splits of ``data``, with the results of :func:`trials.training.evaluation.evaluate`.

    On CUDA, and unless ``capture`` is False, the work on a full batch is captured after :data:`EAGER` evaluations of a
    split, and replayed as long as the network's tensors stay where they are.
    """

    def __init__(
        self, net: Net, data: Loader, *, capture: bool = True, warn: Callable[[str], None] = lambda text: None
    ) -> None:
        self.net, self.data, self.capture, self.warn = net, data, capture, warn
        self._eager: dict[str, int] = {}
        self._passes: dict[str, _Pass] = {}

    def __call__(self, split: str) -> tuple[float, float]:
        """Return mean loss and accuracy in [0, 1] on a split (train, val, test); waits for the device."""
        if split in self._passes and self._passes[split].places != _places(self.net):
            self._passes.pop(split).program.close()
            self._eager[split] = 0
        if self.capture and split not in self._passes and self._eager.get(split, 0) >= EAGER:
            self._make(split)
        if split in self._passes:
            return self._passes[split].run()
        self._eager[split] = self._eager.get(split, 0) + 1
        return evaluate(self.net, self.data, split)

    def _make(self, split: str) -> None:
        graph, batches = graphs.graph_for(self.net.device), self.data.fixed_batches(split, EVAL_BATCH)
        self.capture = graph is not None and batches is not None
        if graph is not None and batches is not None and batches.count:
            self._passes[split] = _Pass(self.net, batches, graph, f"the evaluation on {split}", self.warn)


class _Pass:
    """A pass over a split whose full batches are added to sums at fixed addresses."""

    def __init__(
        self, net: Net, batches: FixedBatches, graph: graphs.Graph, name: str, warn: Callable[[str], None]
    ) -> None:
        self.net, self.batches = net, batches
        self.totals = Totals.zero(net.device)
        self.places = _places(net)
        self.program = graphs.Program(self.add_full, graph, name, warm_up=1, recording=net.recorded, warn=warn)

    def add_full(self) -> None:
        """Cut the next full batch and add to the sums on the device."""
        x, y = self.batches.cut()
        self.totals.add_on_device(*self.net.loss(x, y), len(y))

    @torch.no_grad()
    def run(self) -> tuple[float, float]:
        """Evaluate the split."""
        self.net.model.eval()
        self.totals.reset()
        self.batches.begin()
        for _ in range(self.batches.count):
            self.program.run()
            self.totals.count += self.batches.size
        rest = self.batches.rest()
        if rest is not None:
            self.totals.add(*self.net.loss(*rest), len(rest[1]))
        return self.totals.means()


def _places(net: Net) -> tuple[tuple[int, torch.Size], ...]:
    """Where the network's parameters and buffers lie, and their shapes."""
    tensors = (*net.model.parameters(), *net.model.buffers())
    return tuple((tensor.data_ptr(), tensor.shape) for tensor in tensors)
