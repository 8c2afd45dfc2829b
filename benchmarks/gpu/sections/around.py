"""Section ``loop``: what surrounds a step: batches, evaluation and checkpoints, at CIFAR-10's size."""

from __future__ import annotations

import io
import tempfile
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves, tree_map

from benchmarks.gpu.check import Check, Result
from benchmarks.gpu.images import FEW, noise
from benchmarks.gpu.measuring import Captured, Card
from benchmarks.gpu.product import Batch, Epoch, Evaluator, Loader, RawData, Totals, files, models, to_loader
from benchmarks.gpu.sections.bare import BareLoop
from benchmarks.gpu.steps import Step, batch_size, new_step, runner

MODEL = "resnet20s"


def loop(check: Check, result: Result) -> None:
    """Time batches alone and with a step, eager and in a CUDA graph, the evaluation, and the parts of a checkpoint."""
    card = check.card
    raw = noise(50_000 if card.is_cuda else FEW)
    data: list[Loader] = []
    result["place_s"] = round(card.timed_ms(lambda: data.append(_placed(raw, card))) / 1e3, 3)
    epoch = FullBatches(card, data[0])
    step = new_step("dense", MODEL, card.device)
    work = _with_totals(step, Totals.zero(card.device))
    epoch.ms_per_batch(work, at_most=3)
    check.attempt(result, "batch_ms", lambda: epoch.ms_per_batch(lambda batch: None))
    check.attempt(result, "batch_graph_ms", lambda: _cut(epoch))
    check.attempt(result, "step_with_batch_ms", lambda: epoch.ms_per_batch(work))
    check.attempt(result, "graph_with_batch_ms", lambda: _whole_steps(epoch))
    check.attempt(result, "epoch_start_ms", lambda: round(card.timed_ms(lambda: next(epoch.batches())), 2))
    check.attempt(result, "evaluate_ms", lambda: _evaluation(card, step, data[0], capture=False))
    check.attempt(result, "evaluate_graph_ms", lambda: _evaluation(card, step, data[0], capture=True))
    check.attempt(result, "evaluate_by_hand_ms", lambda: _evaluated_by_hand(raw, card))
    step.net.model.train()
    _checkpoint(check, result, step)


class FullBatches:
    """The full batches of an epoch, at most 200, or 3 on a CPU."""

    def __init__(self, card: Card, data: Loader) -> None:
        self.card, self.data, self.size = card, data, batch_size(card.device)
        self.count = min(data.steps(self.size, drop_last=True), 200 if card.is_cuda else 3)

    def batches(self) -> Iterator[Batch]:
        """Return an iterator over the epoch's batches, starting anew."""
        return iter(self.data.batches(seed=0, epoch=0, stream="train", batch_size=self.size))

    def ms_per_batch(self, work: Callable[[Batch], object], at_most: int = 200) -> float:
        """Return the milliseconds of producing a batch and calling ``work`` with it."""
        batches = self.batches()
        return round(self.card.timed_ms(lambda: work(next(batches)), min(self.count, at_most)), 4)


def _with_totals(step: Step, totals: Totals) -> Callable[[Batch], None]:
    return lambda batch: totals.add(*step.stage.step(batch), len(batch[1]))


def _whole_steps(epoch: FullBatches) -> float:
    """Return the milliseconds of a step of an epoch as trials run it: on a GPU one graph, which cuts the batch, too."""
    step = new_step("dense", MODEL, epoch.card.device)
    running = runner(step)

    def steps(number: int) -> None:
        for _ in islice(running.epoch(Epoch(epoch.data, 0, number, ("train",), epoch.size, True)), epoch.count):
            pass

    steps(0)
    return round(epoch.card.timed_ms(lambda: steps(1)) / epoch.count, 4)


def _cut(epoch: FullBatches) -> float:
    """Return the milliseconds of cutting a batch within a graph (on a CPU without one)."""
    cutter = epoch.data.fixed_batches("train", epoch.size, augment=True)
    if cutter is None:
        raise RuntimeError("the images do not lie on the device")
    cutter.begin((0, "train", 0), 0)
    cut = Captured(cutter.cut) if epoch.card.is_cuda else cutter.cut
    cutter.begin((0, "train", 0), 0)
    return round(epoch.card.timed_ms(cut, epoch.count), 4)


def _evaluation(card: Card, step: Step, data: Loader, *, capture: bool) -> float:
    """Return the milliseconds of an evaluation of the validation images, as trials do it."""
    evaluate = Evaluator(step.net, data, capture=capture)
    for _ in range(3 if card.is_cuda else 0):  # it is captured once it has been done twice
        evaluate("val")
    return card.median_ms(lambda: evaluate("val"), 0.3)


def _evaluated_by_hand(raw: RawData, card: Card) -> float:
    """Return the milliseconds of an evaluation by the loop written by hand; on a GPU its full batches are replayed."""
    images, labels = raw.train_images.to(card.device), raw.train_labels.to(card.device)
    model = models.build(MODEL, num_classes=10, in_channels=3, seed=0)
    bare = BareLoop(model, images, labels, batch=batch_size(card.device), captured=card.is_cuda)
    bare.evaluate()
    return card.median_ms(bare.evaluate, 0.3)


def _checkpoint(check: Check, result: Result, step: Step) -> None:
    """Time the parts of a commit: the copy to the host, serialising, and the write with fsync."""
    card, content = check.card, {"net": step.net.state_dict(), "stage": step.stage.state_dict()}
    there = tree_map(lambda value: value.cpu() if isinstance(value, Tensor) else value, content)
    stored = _serialised(there)
    tensors = [value for value in tree_leaves(content) if isinstance(value, Tensor)]
    result["checkpoint_bytes"] = len(stored)
    check.attempt(result, "checkpoint_copy_ms", lambda: card.median_ms(lambda: [t.cpu() for t in tensors], 0.3))
    check.attempt(result, "checkpoint_serialise_ms", lambda: card.median_ms(lambda: _serialised(there), 0.3))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "checkpoint.pt")
        check.attempt(result, "checkpoint_write_ms", lambda: card.median_ms(lambda: files.write(path, stored), 0.3))


def _serialised(content: Any) -> bytes:
    buffer = io.BytesIO()
    torch.save(content, buffer)
    return buffer.getvalue()


def _placed(raw: RawData, card: Card) -> Loader:
    return to_loader(raw, device=card.device, val_fraction=0.1, split_seed=0, channels_last=card.is_cuda)
