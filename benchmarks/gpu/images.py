"""CIFAR-10 for sections that need images: from a folder, or noise; few on a CPU."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np

from benchmarks.gpu.check import Check, Result
from benchmarks.gpu.product import DATASETS, Arrays, RawData, load_data, raw_data

FEW = 96
"""Training images of an epoch on a CPU."""

NOISE = "noise"


def cifar10(check: Check, into: Result) -> RawData:
    """Return CIFAR-10 from the check's folder, or as many noise images; on a CPU few. Record which, and the seconds."""
    start = time.monotonic()
    if check.data is None:
        raw = noise(50_000 if check.card.is_cuda else FEW)
    else:
        raw = load_data("cifar10", str(check.data))
        raw = raw if check.card.is_cuda else few(raw, FEW)
    into["images"] = NOISE if check.data is None else "CIFAR-10"
    into["training_images"] = len(raw.train_labels)
    into["reading_s"] = round(time.monotonic() - start, 2)
    return raw


def noise(count: int) -> RawData:
    """Return ``count`` random training images of CIFAR-10's size, and a fifth as many test images."""
    random = np.random.RandomState(0)

    def split(n: int) -> tuple[Any, Any]:
        return random.randint(0, 256, (n, 3, 32, 32), dtype=np.uint8), random.randint(0, 10, n)

    arrays = Arrays(*split(count), *split(count // 5))
    norm: dict[str, Any] = {"mean": (0.49, 0.48, 0.45), "std": (0.25, 0.24, 0.26)}
    return raw_data("cifar10", arrays, num_classes=10, **norm, pad=4, flip=True, source=NOISE)


def few(raw: RawData, count: int) -> RawData:
    """Return a data set's first ``count`` training images, and a fifth as many test images."""
    train = {"train_images": raw.train_images[:count], "train_labels": raw.train_labels[:count]}
    test = {"test_images": raw.test_images[: count // 5], "test_labels": raw.test_labels[: count // 5]}
    return replace(raw, **train, **test, fingerprint=f"{count:016x}")


@contextmanager
def standing_for(name: str, raw: RawData) -> Iterator[None]:
    """Let trials read ``raw`` as the data set ``name``."""
    before = DATASETS[name]
    DATASETS[name] = lambda folder: raw
    try:
        yield
    finally:
        DATASETS[name] = before
