"""Loader for data sets kept on the device as uint8: batches are cropped, mirrored and normalised there."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from trials.data.augment import crop_and_flip, outside
from trials.data.loader import Batch, FixedBatches, Loader, in_batches
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

    def fixed_batches(self, split: str, batch_size: int, *, augment: bool = False) -> FixedBatches:
        return CutOnDevice(self, split, batch_size, augment)

    def _train_batches(self, key: tuple[int, str, int], parts: list[slice], augment: bool) -> Iterator[Batch]:
        order, offsets, flips = self.draw(key)
        augment = augment and self.augments
        for part in parts:
            yield self.training_batch(order[part], (offsets[part], flips[part]) if augment else None)

    @property
    def augments(self) -> bool:
        """Whether training images can be cropped or mirrored."""
        return self.raw.pad > 0 or self.raw.flip

    def training_batch(self, index: Tensor, augmentation: tuple[Tensor, Tensor] | None) -> Batch:
        """The images ``index`` [B] of the training split, cropped and mirrored by offsets [B, 2] and flips [B]."""
        images = self._images.index_select(0, index)
        x = self._normalise(images) if augmentation is None else self._augmented(images, *augmentation)
        return x, self._labels.index_select(0, index)

    def test_batch(self, index: Tensor) -> Batch:
        """The images ``index`` [B] of the test split."""
        images, labels = self._test
        return self._normalise(images.index_select(0, index)), labels.index_select(0, index)

    def indices(self, split: str) -> Tensor:
        """The images of a split, as indices on the device: into the test images, or into all training images."""
        return torch.arange(self.test_size, device=self.device) if split == "test" else self._parts[split]

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
            yield self.training_batch(index, None)

    def draw(self, key: tuple[int, str, int]) -> tuple[Tensor, Tensor, Tensor]:
        """Draw an epoch's order int64 [N], offsets int64 [N, 2] and flips bool [N] on the CPU; copy them to the device.

        The order holds indices into all training images."""
        source = generator("batches", *key)
        size, pad = self.train_size, self.raw.pad
        order = torch.randperm(size, generator=source)
        offsets = torch.randint(0, 2 * pad + 1, (size, 2), generator=source)
        flips = torch.rand(size, generator=source) < (0.5 if self.raw.flip else 0.0)
        return self._parts["train"][self._send(order)], self._send(offsets), self._send(flips)


class CutOnDevice(FixedBatches):
    """Full batches of ``data``, cut at a position that lies on the device. See :class:`FixedBatches`."""

    def __init__(self, data: OnDevice, split: str, size: int, augment: bool) -> None:
        self.data, self.split = data, split
        self.augment = augment and data.augments
        self._order = data.indices(split).clone()
        super().__init__(len(self._order), size)
        self._offsets = torch.zeros(len(self._order), 2, dtype=torch.int64, device=data.device)
        self._flips = torch.zeros(len(self._order), dtype=torch.bool, device=data.device)
        self._within = torch.arange(size, device=data.device)
        self._position = torch.zeros((), dtype=torch.int64, device=data.device)

    def begin(self, key: tuple[int, str, int] | None = None, start: int = 0) -> None:
        if key is not None:
            for kept, drawn in zip((self._order, self._offsets, self._flips), self.data.draw(key), strict=True):
                kept.copy_(drawn)
        self._position.fill_(start * self.size)

    def cut(self) -> Batch:
        batch = self._batch(self._position + self._within)
        self._position += self.size
        return batch

    def rest(self) -> Batch | None:
        first = self.count * self.size
        if first == len(self._order):
            return None
        return self._batch(torch.arange(first, len(self._order), device=self.data.device))

    def _batch(self, at: Tensor) -> Batch:
        """The batch at positions ``at`` [B] of the pass."""
        index = self._order.index_select(0, at)
        if self.split == "test":
            return self.data.test_batch(index)
        drawn = (self._offsets.index_select(0, at), self._flips.index_select(0, at)) if self.augment else None
        return self.data.training_batch(index, drawn)


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
