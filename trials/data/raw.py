"""Data sets in memory: uint8 images and labels, with the constants for normalisation and augmentation."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch

from trials.errors import DataError

ImageArray = npt.NDArray[np.uint8]
LabelArray = npt.NDArray[np.int64]
PadColour = Literal["black", "mean"]

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""Per channel, for pixels scaled to 0..1."""


@dataclass(frozen=True, eq=False)
class RawData:
    """A data set in memory: pixels 0..255, neither normalised nor augmented.

    ``mean`` and ``std`` are per channel for pixels scaled to 0..1. ``pad`` is the number of pixels added on each side
    of a training image before a random crop to its original size (0: no crop); ``pad_colour`` is black, or the mean
    colour, which is exactly zero after normalisation. ``flip``: training images may be mirrored left to right. Change
    fields with ``dataclasses.replace(raw, pad=0)``. ``fingerprint``, of :func:`fingerprint`, is the same for equal data
    regardless of their file format. ``notes``: lines that a user should see, such as how many files were not read.
    ``class_names``: in order of the labels; empty where the data do not name their classes.
    """

    name: str
    train_images: torch.Tensor = field(repr=False)  # uint8 [N, C, H, W]
    train_labels: torch.Tensor = field(repr=False)  # int64 [N]
    test_images: torch.Tensor = field(repr=False)  # uint8 [M, C, H, W]
    test_labels: torch.Tensor = field(repr=False)  # int64 [M]
    num_classes: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    pad: int
    flip: bool
    source: str
    fingerprint: str
    pad_colour: PadColour = "black"
    notes: tuple[str, ...] = ()
    class_names: tuple[str, ...] = ()

    @property
    def in_channels(self) -> int:
        """C: 1 for gray images, 3 for RGB."""
        return int(self.train_images.shape[1])

    @property
    def image_size(self) -> tuple[int, int]:
        """(H, W) in pixels."""
        return int(self.train_images.shape[2]), int(self.train_images.shape[3])


@dataclass(frozen=True, eq=False)
class Arrays:
    """Both splits as read from a source: images uint8 [N, C, H, W], labels int64 [N]; ``class_count`` 0 if unknown."""

    train_images: ImageArray
    train_labels: LabelArray
    test_images: ImageArray
    test_labels: LabelArray
    class_count: int = 0


def raw_data(
    name: str,
    arrays: Arrays,
    *,
    num_classes: int,
    mean: tuple[float, ...],
    std: tuple[float, ...],
    pad: int,
    flip: bool,
    source: str,
    pad_colour: PadColour = "black",
    notes: tuple[str, ...] = (),
    class_names: tuple[str, ...] = (),
) -> RawData:
    """Build a :class:`RawData` with its fingerprint.

    Raises DataError if a split is empty, the splits' images differ in shape, or a label is not in 0..C-1."""
    train, test = arrays.train_images, arrays.test_images
    if not len(train) or not len(test):
        raise DataError(f"{name} has {len(train)} training and {len(test)} test images, but must have some of each")
    if train.shape[1:] != test.shape[1:]:
        raise DataError(
            f"{name} has training images of (channels, height, width) {train.shape[1:]} and test images of "
            f"{test.shape[1:]}, but all must have the same shape: convert them, or give image_size where the data "
            "set has it"
        )
    check_labels(f"{name} training", arrays.train_labels, num_classes)
    check_labels(f"{name} test", arrays.test_labels, num_classes)
    return RawData(
        name=name,
        train_images=torch.from_numpy(train),
        train_labels=torch.from_numpy(arrays.train_labels),
        test_images=torch.from_numpy(test),
        test_labels=torch.from_numpy(arrays.test_labels),
        num_classes=num_classes,
        mean=mean,
        std=std,
        pad=pad,
        flip=flip,
        source=source,
        fingerprint=fingerprint(arrays, num_classes),
        pad_colour=pad_colour,
        notes=notes,
        class_names=class_names,
    )


def check_labels(what: str, labels: LabelArray, num_classes: int) -> None:
    """Raise DataError unless every label is in 0..num_classes-1."""
    low, high = int(labels.min()), int(labels.max())
    if low < 0 or high >= num_classes:
        raise DataError(
            f"{what} labels run from {low} to {high}, but must be in 0..{num_classes - 1} for {num_classes} classes: "
            "renumber them, or leave out the rows without a class"
        )


def fingerprint(arrays: Arrays, num_classes: int) -> str:
    """Return 16 hex digits of a sha256 over shapes, labels, all image bytes and :func:`class_count_fact`.

    It takes 0.2 s for CIFAR-10's 184 MB.
    """
    digest = hashlib.sha256()
    for array in (arrays.train_labels, arrays.test_labels, arrays.train_images, arrays.test_images):
        digest.update(f"{array.dtype.str}{array.shape}".encode())
        digest.update(np.ascontiguousarray(array).data)
    digest.update(class_count_fact(arrays.train_labels, num_classes))
    return digest.hexdigest()[:16]


def class_count_fact(train_labels: LabelArray, num_classes: int) -> bytes:
    """What a fingerprint says of the number of classes, which decides the size of the last layer.

    Empty if the largest training label says it already: such data keep the fingerprints that they always had.
    """
    return b"" if num_classes == int(train_labels.max()) + 1 else f"{num_classes} classes".encode()


def channel_statistics(images: ImageArray) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation of each channel, for pixels scaled to 0..1. ``images``: uint8 [N, C, H, W].

    Exact, from histograms. A constant channel gets a standard deviation of 1, so that it normalises to 0.
    """
    counts = np.zeros((images.shape[1], 256), dtype=np.int64)
    for start in range(0, len(images), 4096):
        for channel in range(images.shape[1]):
            counts[channel] += np.bincount(images[start : start + 4096, channel].ravel(), minlength=256)
    share = counts / counts.sum(axis=1, keepdims=True)  # [C, 256]
    values = np.arange(256) / 255
    mean = share @ values
    std = np.sqrt((share * (values - mean[:, None]) ** 2).sum(axis=1))
    std[std == 0] = 1.0
    return tuple(mean.tolist()), tuple(std.tolist())
