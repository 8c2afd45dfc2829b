"""Section ``epoch``: whole epochs of CIFAR-10 by the project's own path, against a loop written by hand."""

from __future__ import annotations

import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.gpu.check import Check, Result
from benchmarks.gpu.images import cifar10, standing_for
from benchmarks.gpu.product import RawData, TrialHost, models, parse, run
from benchmarks.gpu.sections.bare import BareLoop

MODEL = "resnet20s"
EPOCHS = {"eager": 3, "graph": 5}
"""Epochs by way; the first is not counted, and the last of a trial evaluates the test images too."""


def epoch(check: Check, result: Result) -> None:
    """Measure the seconds of an epoch with the evaluation of the validation images, and a trial's start and end.

    A dense trial of resnet20s as ``python -m trials`` runs it, eager and captured, and the same two by hand
    (:class:`BareLoop`). ``result`` is keyed by ``product`` and ``bare``, then ``eager`` and ``graph``.
    """
    raw = cifar10(check, result)
    result["product"], result["bare"] = {}, {}
    with standing_for("cifar10", raw):
        for way in EPOCHS if check.card.is_cuda else ("eager",):
            if check.has(15.0, result["product"], way):
                check.attempt(result["product"], way, lambda way=way: _product(check, way))
            if check.has(15.0, result["bare"], way):
                check.attempt(result["bare"], way, lambda way=way: _bare(check, raw, way))
    if check.data is None:
        result["CIFAR-10"] = {"skipped": "no --data DIR: these are epochs of noise images, which take as long"}


def _batch(check: Check) -> int:
    return 128 if check.card.is_cuda else 32


def _product(check: Check, way: str) -> dict[str, Any]:
    """Run a whole trial, from its config to its last commit."""
    rows: list[dict[str, Any]] = []
    fields = {"dataset": "cifar10", "model": MODEL, "device": str(check.device), "capture": way == "graph"}
    train = {"epochs": EPOCHS[way], "batch_size": _batch(check), "lr": 0.1}
    config = parse({"method": "dense", **fields, "train": train})
    with tempfile.TemporaryDirectory() as folder:
        start = time.monotonic()
        state = run(config, Path(folder, "stages", config.id), TrialHost(Path(folder, "stages"), report=rows.append))
        whole = time.monotonic() - start
    if state.error:
        raise RuntimeError(f"the trial failed: {state.error['type']}: {state.error['message'][:200]}")
    epochs = [row["seconds"] for row in rows]
    return {
        "epoch_s": round(statistics.median(epochs[1:-1]), 4),
        "first_epoch_s": round(epochs[0], 3),
        "start_and_end_s": round(whole - sum(epochs), 3),
        "val_accuracy": round(rows[-1]["val_accuracy"], 4),
    }


def _bare(check: Check, raw: RawData, way: str) -> dict[str, Any]:
    model = models.build(MODEL, num_classes=10, in_channels=3, seed=0)
    images, labels = raw.train_images.to(check.device), raw.train_labels.to(check.device)
    loop = BareLoop(model, images, labels, batch=_batch(check), captured=way == "graph")
    epochs, accuracy = [], 0.0
    for _ in range(EPOCHS[way]):
        check.card.wait()
        start = time.monotonic()
        accuracy = loop.epoch()
        epochs.append(time.monotonic() - start)
    return {
        "epoch_s": round(statistics.median(epochs[1:]), 4),
        "first_epoch_s": round(epochs[0], 3),
        "val_accuracy": round(accuracy, 4),
    }
