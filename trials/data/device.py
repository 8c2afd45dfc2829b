"""Loader for data sets kept on the device as uint8: batches are cropped, mirrored and normalised there."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from trials.data.augment import crop_and_flip, outside
from trials.data.loader import Batch, Loader, in_batches
from trials.data.raw import RawData
from trials.seeding import generator

RESIDENT_SETS = 2  # data sets kept on devices between trials; beyond this, the least recently used is dropped
_resident: OrderedDict[tuple[str, str], tuple[Batch, Batch]] = OrderedDict()


class OnDevice(Loader):
    """Loader of ``raw``; images and labels are copied to the device once per process. Options: see :class:`Loader`."""

    def __init__(self, raw: RawData, **options: Any) -> None:
        super().__init__(raw, **options)
        self.raw = raw
        (self._images, self._labels), self._test = _put(raw, self.device)
        self._parts = {"train": self.train_indices.to(self.device), "val": self.val_indices.to(self.device)}

    def _train_batches(self, key: tuple[int, str, int], parts: list[slice], augment: bool) -> Iterator[Batch]:
        order, offsets, flips = self._draw(generator("batches", *key))
        order = self._parts["train"][order]
        augment = augment and (self.raw.pad > 0 or self.raw.flip)
        for part in parts:
            index = order[part]
            images = self._images.index_select(0, index)
            x = self._augmented(images, offsets[part], flips[part]) if augment else self._normalise(images)
            yield x, self._labels.index_select(0, index)

    def _augmented(self, images: Tensor, offsets: Tensor, flips: Tensor) -> Tensor:
        """Crop, mirror and normalise images [B, C, H, W]."""
        x = self._normalise(crop_and_flip(images, offsets, flips, self.raw.pad))
        if self.raw.pad and self.raw.pad_colour == "mean":
            x.masked_fill_(outside(*self.raw.image_size, offsets, flips, self.raw.pad), 0)
        return x

    def _eval_batches(self, split: str, batch_size: int) -> Iterator[Batch]:
        if split == "test":
            images, labels = self._test
            for start in range(0, len(labels), batch_size):
                yield self._normalise(images[start : start + batch_size]), labels[start : start + batch_size]
            return
        for index in in_batches(self._parts[split], batch_size):
            yield self._normalise(self._images.index_select(0, index)), self._labels.index_select(0, index)

    def _draw(self, source: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
        """Draw an epoch's order int64 [N], offsets int64 [N, 2] and flips bool [N] on CPU; copied asynchronously."""
        size, pad = self.train_size, self.raw.pad
        order = torch.randperm(size, generator=source)
        offsets = torch.randint(0, 2 * pad + 1, (size, 2), generator=source)
        flips = torch.rand(size, generator=source) < (0.5 if self.raw.flip else 0.0)
        return self._send(order), self._send(offsets), self._send(flips)


def _put(raw: RawData, device: torch.device) -> tuple[Batch, Batch]:
    """(images, labels) of training and test on the device; all trials of this process share the tensors."""
    key = (raw.fingerprint, str(device))
    if key not in _resident:
        while len(_resident) >= RESIDENT_SETS:
            _resident.popitem(last=False)
        train = (raw.train_images.to(device), raw.train_labels.to(device))
        _resident[key] = train, (raw.test_images.to(device), raw.test_labels.to(device))
    _resident.move_to_end(key)
    return _resident[key]
