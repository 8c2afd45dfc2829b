"""Sections ``waits``, ``steps_…``, ``loop`` and ``kernels``: how the time of training is spent."""

from __future__ import annotations

import io
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from benchmarks.gpu.check import Check, Result
from benchmarks.gpu.measuring import Captured, Card
from benchmarks.gpu.product import (
    Arrays,
    Batch,
    CapturedStep,
    CudaGraph,
    Loader,
    RawData,
    Totals,
    evaluate,
    raw_data,
    to_loader,
)
from benchmarks.gpu.steps import KINDS, Step, batch_size, new_step

STEPS = 5
MODEL = "resnet20s"
"""Model of every section but ``steps_…``. On a CPU, only every second kind is timed for other models."""


def waits(check: Check, result: Result) -> None:
    """Count waits for the device in five steps, by source line; on a CPU, count reads of a tensor's value."""
    count = _waits_on_cuda if check.card.is_cuda else _reads_on_cpu
    for kind in KINDS:
        check.attempt(result, kind, lambda kind=kind: count(new_step(kind, MODEL, check.device)))


def _waits_on_cuda(step: Step) -> dict[str, Any]:
    """Count torch's synchronisation warnings, which cover reads of values and copies but not every wait."""
    for _ in range(2):
        step()
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("warn")
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            for _ in range(STEPS):
                step()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    seen = [warning for warning in caught if "synchroniz" in str(warning.message)]
    lines = Counter(f"{Path(warning.filename).name}:{warning.lineno}" for warning in seen)
    return {"waits_in_5_steps": len(seen), "where": dict(lines.most_common(4))}


class _Reads(TorchDispatchMode):
    """Counts how often a tensor's value is read on the host."""

    count = 0

    def __torch_dispatch__(self, function: Any, types: Any, arguments: Any = (), named: Any = None) -> Any:
        self.count += function is torch.ops.aten._local_scalar_dense.default
        return function(*arguments, **(named or {}))


def _reads_on_cpu(step: Step) -> dict[str, Any]:
    with _Reads() as reads:
        for _ in range(STEPS):
            step()
    return {"reads_in_5_steps": reads.count}


def steps(model: str, kinds: tuple[str, ...], seconds: float) -> Callable[[Check, Result], None]:
    """Return a section that times a step of each kind, eager and as the CUDA graph that trials replay."""

    def section(check: Check, result: Result) -> None:
        for kind in kinds if check.card.is_cuda or model == MODEL else kinds[::2]:
            if check.has(25.0 if check.card.is_cuda else 2.0, result, kind):
                result[kind] = {}
                _time_kind(check, result[kind], kind, model, seconds)

    return section


def _time_kind(check: Check, result: Result, kind: str, model: str, seconds: float) -> None:
    card = check.card

    def eager() -> float:
        return card.median_ms(new_step(kind, model, card.device), seconds)

    def captured() -> float:
        return card.median_ms(replayed(new_step(kind, model, card.device)), seconds)

    check.attempt(result, "eager_ms", eager)
    if not card.is_cuda:
        return
    if not new_step(kind, model, card.device).stage.captures:
        result["graph_ms"] = "this stage is not captured"
    elif check.attempt(result, "graph_ms", captured):
        check.attempt(result, "graph_vs_eager", lambda: _difference(card, kind, model))


def replayed(step: Step) -> Callable[[], object]:
    """Return the step as trials run it on a GPU: the batch is copied, then one CUDA graph is replayed."""
    device = step.batches[0][0].device
    program = CapturedStep(step.stage, step.net, Totals.zero(device), CudaGraph(device))
    return lambda: program.step(*step.batches)


def _difference(card: Card, kind: str, model: str) -> float:
    """Return the largest difference of a parameter between eager and captured training after 13 steps.

    It is relative to the largest absolute value of the same tensor. Ten of the 13 captured steps are replayed.
    """
    step, twin = new_step(kind, model, card.device), new_step(kind, model, card.device)
    replay = replayed(twin)
    for _ in range(13):
        step()
        replay()  # the first three run eagerly too
    card.wait()
    pairs = zip(step.net.model.parameters(), twin.net.model.parameters(), strict=True)
    return max(float((a - b).abs().max() / a.abs().max().clamp(min=1e-30)) for a, b in pairs)


def loop(check: Check, result: Result) -> None:
    """Time the work around a step at CIFAR-10's size: batches, augmentation, totals, evaluation and a checkpoint."""
    card = check.card
    raw = _noise(50_000 if card.is_cuda else 1_000)
    data: list[Loader] = []
    result["place_s"] = round(card.timed_ms(lambda: data.append(_placed(raw, card))) / 1e3, 3)
    epoch = Epoch(card, data[0])
    step = new_step("dense", MODEL, card.device)
    work = _with_totals(step, Totals.zero(card.device))
    epoch.ms_per_batch(work, at_most=3)
    check.attempt(result, "batch_only_ms", lambda: epoch.ms_per_batch(lambda batch: None))
    check.attempt(result, "step_with_batch_ms", lambda: epoch.ms_per_batch(work))
    check.attempt(result, "epoch_start_ms", lambda: round(card.timed_ms(lambda: next(epoch.batches())), 2))
    check.attempt(result, "evaluate_val_ms", lambda: card.median_ms(lambda: evaluate(step.net, data[0], "val"), 0.3))
    step.net.model.train()
    result["checkpoint_bytes"] = _checkpoint(step)
    check.attempt(result, "checkpoint_ms", lambda: card.median_ms(lambda: _checkpoint(step), 0.3))
    if card.is_cuda:
        check.attempt(result, "graph_with_batch_ms", lambda: _replayed(epoch))
        with _cudnn_benchmark():
            check.attempt(result, "eager_cudnn_benchmark_ms", lambda: card.median_ms(_dense(card)))
            check.attempt(result, "graph_cudnn_benchmark_ms", lambda: card.median_ms(Captured(_dense(card))))


class Epoch:
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


def _dense(card: Card) -> Step:
    return new_step("dense", MODEL, card.device)


def _with_totals(step: Step, totals: Totals) -> Callable[[Batch], None]:
    return lambda batch: totals.add(*step.stage.step(batch), len(batch[1]))


def _replayed(epoch: Epoch) -> float:
    step = _dense(epoch.card)
    images, labels = step.batches[0]
    replay = Captured(step)

    def work(batch: Batch) -> None:
        images.copy_(batch[0])
        labels.copy_(batch[1])
        replay()

    return epoch.ms_per_batch(work)


def _checkpoint(step: Step) -> int:
    """Serialise the main content of a trial's checkpoint; return its size in bytes."""
    buffer = io.BytesIO()
    torch.save({"net": step.net.state_dict(), "stage": step.stage.state_dict()}, buffer)
    return len(buffer.getvalue())


def _placed(raw: RawData, card: Card) -> Loader:
    return to_loader(raw, device=card.device, val_fraction=0.1, split_seed=0, channels_last=card.is_cuda)


def _noise(count: int) -> RawData:
    """Return ``count`` random training images of CIFAR-10's size, and a fifth as many test images."""
    random = np.random.RandomState(0)

    def split(n: int) -> tuple[Any, Any]:
        return random.randint(0, 256, (n, 3, 32, 32), dtype=np.uint8), random.randint(0, 10, n)

    arrays = Arrays(*split(count), *split(count // 5))
    norm: dict[str, Any] = {"mean": (0.49, 0.48, 0.45), "std": (0.25, 0.24, 0.26)}
    return raw_data("cifar10", arrays, num_classes=10, **norm, pad=4, flip=True, source="noise")


@contextmanager
def _cudnn_benchmark() -> Iterator[None]:
    torch.backends.cudnn.benchmark = True
    try:
        yield
    finally:
        torch.backends.cudnn.benchmark = False


def kernels(check: Check, result: Result) -> None:
    """Record the kernels of one step of each kind. Runs last: the profiler may slow down later launches."""
    for kind in KINDS:
        if check.has(5.0, result, kind):
            check.attempt(result, kind, lambda kind=kind: _kernels(check.card, new_step(kind, MODEL, check.device)))


def _kernels(card: Card, step: Step) -> dict[str, Any]:
    for _ in range(2):
        step()
    return card.kernels(step)
