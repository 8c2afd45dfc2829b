"""Interface of all data loaders: validation split, training batches and evaluation batches on a device."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator

import torch
from torch import Tensor

from trials.data.augment import Normalise
from trials.data.encoded import EncodedData
from trials.data.raw import RawData
from trials.data.validation_split import split_indices, stratified_indices
from trials.errors import unknown_name

Batch = tuple[Tensor, Tensor]

Source = RawData | EncodedData
"""A loaded data set: pixels in memory (RawData) or the locations of encoded images on disk (EncodedData)."""


class FixedBatches(ABC):
    """The full batches of passes over a split, cut by the device alone, so that a CUDA graph can cut them.

    ``count`` batches of ``size`` images make a pass; the images that are left over belong to no full batch. A pass
    yields the same batches as :meth:`Loader.batches` or :meth:`Loader.eval_batches`.
    """

    def __init__(self, images: int, size: int) -> None:
        _check_batch_size(size)
        self.size, self.count = size, images // size

    @abstractmethod
    def begin(self, key: tuple[int, str, int] | None = None, start: int = 0) -> None:
        """Begin a pass at its batch ``start``. ``key``: (seed, stream, epoch) of a pass in random order."""

    @abstractmethod
    def cut(self) -> Batch:
        """Cut the next full batch, at a position that the device counts. Reads nothing on the host."""

    @abstractmethod
    def rest(self) -> Batch | None:
        """The smaller last batch of the pass; None if there is none."""


class Loader(ABC):
    """Yields batches of ``source`` on ``device`` and splits its training images into training and validation.

    ``val_fraction`` of the training images, rounded to whole images, are held out for validation (0: none), drawn from
    ``split_seed``: of all images or, with ``stratify_split``, the same share of every class. ``train_indices`` and
    ``val_indices`` (int64, sorted, on CPU) hold the split. Batches are ``(x, y)`` on the device: x [B, C, H, W] of
    ``dtype``, normalised, in channels-last layout if ``channels_last``; y int64 [B]. Raises DataError if val_fraction
    is not in [0, 1) or leaves a part empty.
    """

    def __init__(
        self,
        source: Source,
        *,
        device: torch.device | str,
        dtype: torch.dtype = torch.float32,
        val_fraction: float,
        split_seed: int,
        stratify_split: bool = False,
        channels_last: bool = False,
    ) -> None:
        self.device = torch.empty(0, device=device).device  # "cuda" becomes "cuda:0"
        labels = source.train_labels
        self.train_indices, self.val_indices = (
            stratified_indices(labels, val_fraction, split_seed)
            if stratify_split
            else split_indices(len(labels), val_fraction, split_seed)
        )
        self._source = source
        self._normalise = Normalise(
            source.mean, source.std, device=self.device, dtype=dtype, channels_last=channels_last
        )

    @property
    def train_size(self) -> int:
        """Number of training images, excluding those held out for validation."""
        return len(self.train_indices)

    @property
    def val_size(self) -> int:
        """Number of images held out for validation."""
        return len(self.val_indices)

    @property
    def test_size(self) -> int:
        """Number of test images."""
        return len(self._source.test_labels)

    @property
    def num_classes(self) -> int:
        """Number of classes C; labels are 0..C-1."""
        return self._source.num_classes

    @property
    def in_channels(self) -> int:
        """1 for gray images, 3 for RGB."""
        return self._source.in_channels

    @property
    def image_size(self) -> tuple[int, int]:
        """(H, W) in pixels, as the network sees them."""
        return self._source.image_size

    def pixel_range(self) -> tuple[Tensor, Tensor]:
        """Normalised values of pixels 0 and 255, on the device: two tensors [C, 1, 1]."""
        extremes = torch.tensor([0, 255], dtype=torch.uint8, device=self.device).view(2, 1, 1, 1)
        black, white = self._normalise(extremes.expand(2, self.in_channels, 1, 1).contiguous())
        return black, white

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
        """Yield the training batches of an epoch: each training image once, in random order, augmented if ``augment``.

        Order and augmentation depend only on (seed, epoch, stream) and are the same on every device; the order does not
        depend on ``augment``. ``start`` skips that many batches; the remaining ones are the same as in the whole epoch.
        The last, smaller batch is kept unless ``drop_last``.
        """
        steps = self.steps(batch_size, drop_last)
        if not 0 <= start <= steps:
            raise ValueError(f"start is {start}, but must be in [0, {steps}], the number of batches in an epoch")
        parts = [slice(step * batch_size, (step + 1) * batch_size) for step in range(start, steps)]
        return self._train_batches((seed, stream, epoch), parts, augment)

    def eval_batches(self, split: str, batch_size: int) -> Iterator[Batch]:
        """Yield the images of "train", "val" or "test" in fixed order, unaugmented; nothing for an empty "val"."""
        _check_batch_size(batch_size)
        if split not in ("train", "val", "test"):
            raise ValueError(unknown_name("split", split, ("train", "val", "test")))
        return self._eval_batches(split, batch_size)

    def fixed_batches(self, split: str, batch_size: int, *, augment: bool = False) -> FixedBatches | None:
        """The full batches of a split ("train", "val" or "test"), cut from tensors at fixed addresses.

        None if the images do not lie on the device. ``augment`` is for training batches."""
        return None

    @abstractmethod
    def _train_batches(self, key: tuple[int, str, int], parts: list[slice], augment: bool) -> Iterator[Batch]:
        """Yield the batches ``parts`` (slices of the epoch's order); ``key`` is (seed, stream, epoch)."""

    @abstractmethod
    def _eval_batches(self, split: str, batch_size: int) -> Iterator[Batch]: ...

    def _send(self, tensor: Tensor) -> Tensor:
        """Copy the tensor to the device asynchronously."""
        if self.device.type == "cuda":
            tensor = tensor.pin_memory()
        return tensor.to(self.device, non_blocking=True)


def in_batches(indices: Tensor, batch_size: int) -> list[Tensor]:
    """Split ``indices`` [N] into parts of ``batch_size``; the last may be smaller."""
    return [indices[start : start + batch_size] for start in range(0, len(indices), batch_size)]


def _check_batch_size(batch_size: int) -> None:
    if batch_size < 1:
        raise ValueError(f"batch_size is {batch_size}, but must be at least 1")
