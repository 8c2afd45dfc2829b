"""A data set on the device: its validation split, its training batches, its evaluation batches."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator

import torch
from torch import Tensor

from trials.data.augment import Normalise, crop_and_flip
from trials.data.raw import RawData
from trials.errors import DataError, unknown_name
from trials.seeding import generator

Batch = tuple[Tensor, Tensor]

RESIDENT_SETS = 2  # data sets kept on devices between trials; the one not used for longest makes room
_resident: OrderedDict[tuple[str, str], tuple[Batch, Batch]] = OrderedDict()


class OnDevice:
    """The images and labels of ``raw`` on ``device``, put there once per process, and a split of its training images.

    ``val_fraction`` of the training images, rounded to whole images and drawn without stratification from
    ``split_seed`` alone, are held out for validation; 0 holds out none. ``train_indices`` and ``val_indices`` (int64,
    sorted, on CPU) say which. Batches are ``(x, y)``: x [B, C, H, W] of ``dtype``, normalised, in channels-last layout
    if asked; y int64 [B]; both on the device. Raises DataError if val_fraction is not in [0, 1) or leaves a part empty.
    """

    def __init__(
        self,
        raw: RawData,
        *,
        device: torch.device | str,
        dtype: torch.dtype = torch.float32,
        val_fraction: float,
        split_seed: int,
        channels_last: bool = False,
    ) -> None:
        self.raw = raw
        self.device = torch.empty(0, device=device).device  # "cuda" becomes "cuda:0"
        self.train_indices, self.val_indices = split_indices(len(raw.train_labels), val_fraction, split_seed)
        (self._images, self._labels), self._test = _put(raw, self.device)
        self._parts = {"train": self.train_indices.to(self.device), "val": self.val_indices.to(self.device)}
        self._normalise = Normalise(raw.mean, raw.std, device=self.device, dtype=dtype, channels_last=channels_last)

    @property
    def train_size(self) -> int:
        """Number of images trained on, those held out for validation not counted."""
        return len(self.train_indices)

    @property
    def val_size(self) -> int:
        """Number of images held out for validation."""
        return len(self.val_indices)

    @property
    def test_size(self) -> int:
        """Number of test images."""
        return len(self.raw.test_labels)

    @property
    def num_classes(self) -> int:
        """C; labels are 0..C-1."""
        return self.raw.num_classes

    @property
    def in_channels(self) -> int:
        """1 for gray images, 3 for RGB."""
        return self.raw.in_channels

    @property
    def image_size(self) -> tuple[int, int]:
        """(H, W) in pixels."""
        return self.raw.image_size

    def steps(self, batch_size: int, drop_last: bool = False) -> int:
        """Number of batches in an epoch."""
        _check_batch_size(batch_size)
        return self.train_size // batch_size if drop_last else -(-self.train_size // batch_size)

    def batches(
        self,
        *,
        seed: int,
        epoch: int,
        stream: str,
        batch_size: int,
        start: int = 0,
        augment: bool = True,
        drop_last: bool = False,
    ) -> Iterator[Batch]:
        """The training batches of an epoch: each training image once, in random order, cropped and mirrored.

        Order, crops and mirroring follow from (seed, epoch, stream) alone and are the same on every device; the order
        does not depend on ``augment``. ``start`` leaves out that many batches: what follows is what the whole epoch
        would have yielded. The last, smaller batch is kept unless ``drop_last``.
        """
        steps = self.steps(batch_size, drop_last)
        if not 0 <= start <= steps:
            raise ValueError(f"start is {start}, but must be in [0, {steps}], the number of batches in an epoch")
        order, offsets, flips = self._draw(generator("batches", seed, stream, epoch))
        order = self._parts["train"][order]
        augment = augment and (self.raw.pad > 0 or self.raw.flip)

        def generate() -> Iterator[Batch]:
            for step in range(start, steps):
                part = slice(step * batch_size, (step + 1) * batch_size)
                index = order[part]
                images = self._images.index_select(0, index)
                if augment:
                    images = crop_and_flip(images, offsets[part], flips[part], self.raw.pad)
                yield self._normalise(images), self._labels.index_select(0, index)

        return generate()

    def eval_batches(self, split: str, batch_size: int) -> Iterator[Batch]:
        """The images of "train", "val" or "test" in fixed order, not augmented; no batches if nothing is held out."""
        _check_batch_size(batch_size)
        if split not in ("train", "val", "test"):
            raise ValueError(unknown_name("split", split, ("train", "val", "test")))
        return self._test_batches(batch_size) if split == "test" else self._part_batches(self._parts[split], batch_size)

    def _test_batches(self, batch_size: int) -> Iterator[Batch]:
        images, labels = self._test
        for start in range(0, len(labels), batch_size):
            yield self._normalise(images[start : start + batch_size]), labels[start : start + batch_size]

    def _part_batches(self, indices: Tensor, batch_size: int) -> Iterator[Batch]:
        for start in range(0, len(indices), batch_size):
            index = indices[start : start + batch_size]
            yield self._normalise(self._images.index_select(0, index)), self._labels.index_select(0, index)

    def _draw(self, source: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
        """An epoch's order int64 [N], offsets int64 [N, 2], flips bool [N]: drawn on CPU, moved without waiting."""
        size, pad = self.train_size, self.raw.pad
        order = torch.randperm(size, generator=source)
        offsets = torch.randint(0, 2 * pad + 1, (size, 2), generator=source)
        flips = torch.rand(size, generator=source) < (0.5 if self.raw.flip else 0.0)
        return self._send(order), self._send(offsets), self._send(flips)

    def _send(self, tensor: Tensor) -> Tensor:
        if self.device.type == "cuda":
            tensor = tensor.pin_memory()
        return tensor.to(self.device, non_blocking=True)


def split_indices(size: int, val_fraction: float, split_seed: int) -> tuple[Tensor, Tensor]:
    """Divide 0..size-1 at random into training and validation indices, each int64, sorted, on CPU.

    The draw depends on ``split_seed`` and ``size`` alone, and a larger fraction holds out a superset of a smaller.
    """
    if not 0 <= val_fraction < 1:
        raise DataError(f"val_fraction is {val_fraction}, but must be in [0, 1)")
    held_out = round(val_fraction * size)
    if held_out == size or (val_fraction > 0 and held_out == 0):
        part = "training" if held_out else "validation"
        raise DataError(f"val_fraction is {val_fraction}, but of {size} images must leave some for {part}")
    order = torch.randperm(size, generator=generator("validation split", split_seed))
    return order[held_out:].sort().values, order[:held_out].sort().values


def _put(raw: RawData, device: torch.device) -> tuple[Batch, Batch]:
    """(images, labels) of training and test on the device; the same tensors for every trial of this process."""
    key = (raw.fingerprint, str(device))
    if key not in _resident:
        while len(_resident) >= RESIDENT_SETS:
            _resident.popitem(last=False)
        train = (raw.train_images.to(device), raw.train_labels.to(device))
        _resident[key] = train, (raw.test_images.to(device), raw.test_labels.to(device))
    _resident.move_to_end(key)
    return _resident[key]


def _check_batch_size(batch_size: int) -> None:
    if batch_size < 1:
        raise ValueError(f"batch_size is {batch_size}, but must be at least 1")
