"""Batches of made-up images, and helpers to read their contents."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from trials.data import EncodedData, OnDevice, RawData, Streamed
from trials.data.raw import Arrays, raw_data


def made_up(n=50, shape=(3, 8, 8), pad=2, flip=True, seed=0) -> RawData:
    """Images whose label is their number, so that a batch shows which images it holds; no pixel is black."""
    rng = np.random.default_rng(seed)
    images = rng.integers(1, 256, (n + 7, *shape), dtype=np.uint8)
    labels = np.arange(n + 7, dtype=np.int64)
    arrays = Arrays(images[:n], labels[:n], images[n:], labels[:7].copy())
    mean, std = (0.5, 0.4, 0.3)[: shape[0]], (0.2, 0.25, 0.3)[: shape[0]]
    return raw_data("made up", arrays, num_classes=n, mean=mean, std=std, pad=pad, flip=flip, source="here")


def on_device(raw: RawData, val_fraction=0.0, split_seed=0, **options) -> OnDevice:
    return OnDevice(raw, device="cpu", val_fraction=val_fraction, split_seed=split_seed, **options)


def epoch(data: OnDevice | Streamed, batch_size=16, **options) -> list[tuple[Tensor, Tensor]]:
    """All batches of an epoch, the first one of training unless ``options`` name another."""
    return list(data.batches(batch_size=batch_size, **{"seed": 0, "epoch": 0, "stream": "train", **options}))


def labels(batches) -> list[int]:
    return torch.cat([y for _, y in batches]).tolist()


def same(left, right) -> bool:
    return len(left) == len(right) and all(
        torch.equal(a, c) and torch.equal(b, d) for (a, b), (c, d) in zip(left, right, strict=True)
    )


def pixels(x: Tensor, data: RawData | EncodedData) -> Tensor:
    """Undo the normalisation: uint8 [B, C, H, W]."""
    mean, std = torch.tensor(data.mean).view(1, -1, 1, 1), torch.tensor(data.std).view(1, -1, 1, 1)
    return ((x * std + mean) * 255).round().to(torch.uint8)
