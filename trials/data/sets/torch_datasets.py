"""Data sets of ``torch.utils.data`` as data of trials.

>>> images = torch.zeros(4, 1, 8, 8, dtype=torch.uint8)
>>> pairs = [(image, label % 2) for label, image in enumerate(images)]
>>> data = from_torch("zeros", pairs, pairs)
>>> data.num_classes, data.in_channels, data.image_size
(2, 1, (8, 8))
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image

from trials.data.parquet_arrays import classes_in
from trials.data.raw import Arrays, ImageArray, LabelArray, RawData, channel_statistics, raw_data
from trials.data.room import require_memory
from trials.errors import DataError, shown

_MODES = {"1": "L", "L": "L", "RGB": "RGB", "RGBA": "RGB", "P": "RGB"}
"""By the mode of a Pillow image, the mode in which it is read."""


def from_torch(
    name: str,
    train: Any,
    test: Any,
    *,
    num_classes: int | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    pad: int = 0,
    flip: bool = False,
) -> RawData:
    """Read two torch data sets into memory, as a plug-in's data set may return them.

    Items are ``(image, label)``. An image is a Pillow image, a uint8 tensor, or a float tensor with values in 0..1,
    which is rounded to 8 bits; a tensor is [C, H, W], or [H, W] for gray, with C 1 or 3. All images have one shape.
    Each is read once, so augmentation belongs to ``pad`` and ``flip``, not into the data sets.

    Args:
        train, test: objects with ``len`` and indices, or iterables, of the images to train and to test on.
        num_classes: C; None takes the largest training label + 1, and each of the C must then occur.
        mean, std: per channel, for pixels scaled to 0..1; None takes those of the training images.
        pad: number of pixels added on each side of a training image before a random crop to its original size.
        flip: whether training images are mirrored left to right at random.

    Raises:
        DataError: an item is no such pair, images have several shapes or values out of range, or labels are no classes.
    """
    arrays = _arrays(name, train, test)
    own_mean, own_std = channel_statistics(arrays.train_images)
    channels = arrays.train_images.shape[1]
    named = getattr(train, "classes", ())  # as torchvision's data sets have them
    return raw_data(
        name,
        arrays,
        num_classes=classes_in(name, arrays.train_labels) if num_classes is None else num_classes,
        mean=own_mean if mean is None else _per_channel("mean", mean, channels),
        std=own_std if std is None else _per_channel("std", std, channels),
        pad=pad,
        flip=flip,
        source="torch",
        class_names=tuple(map(str, named)) if isinstance(named, list | tuple) else (),
    )


def _arrays(name: str, train: Any, test: Any) -> Arrays:
    """Read both splits; both are RGB if one of them is."""
    (images, labels), (others, other_labels) = _read(f"{name} training", train), _read(f"{name} test", test)
    if {images.shape[1], others.shape[1]} == {1, 3}:
        images, others = (np.repeat(split, 3, axis=1) if split.shape[1] == 1 else split for split in (images, others))
    return Arrays(images, labels, others, other_labels)


def _per_channel(field: str, values: Sequence[float], channels: int) -> tuple[float, ...]:
    found = tuple(float(value) for value in values)
    if len(found) != channels or (field == "std" and min(found) <= 0):
        above = ", all above 0" if field == "std" else ""
        raise DataError(f"{field} is {shown(values)}, but must have a number for each of {channels} channels{above}")
    return found


def _read(what: str, items: Any) -> tuple[ImageArray, LabelArray]:
    """Read all items: images uint8 [N, C, H, W], labels int64 [N]."""
    images, labels = [], []
    for index, item in enumerate(_each(items)):
        where = f"{what} item {index}"
        if not isinstance(item, tuple | list) or len(item) != 2:
            raise DataError(f"{where} is {shown(item)}, but must be a pair (image, label)")
        images.append(_pixels(item[0], where))
        labels.append(_label(item[1], where))
        if images[-1].shape != images[0].shape:
            raise DataError(
                f"{where} has an image of (channels, height, width) {images[-1].shape} and item 0 of "
                f"{images[0].shape}, but all must have the same shape: resize and convert them in a transform"
            )
        if index == 0 and hasattr(items, "__len__"):
            require_memory(f"the images of {what}", 2 * images[0].nbytes * len(items), "give fewer or smaller ones")
    if not images:
        raise DataError(f"{what} has no images, but each split must have some")
    return np.stack(images), np.array(labels, dtype=np.int64)


def _each(items: Any) -> Iterator[Any]:
    """The items: by index where there is a length, since many torch data sets never raise IndexError."""
    if hasattr(items, "__len__") and hasattr(items, "__getitem__"):
        return (items[index] for index in range(len(items)))
    return iter(items)


def _label(label: Any, where: str) -> int:
    single = isinstance(label, np.generic) or (isinstance(label, torch.Tensor) and label.numel() == 1)
    value = label.item() if single else label
    if isinstance(value, bool) or not isinstance(value, int):
        raise DataError(f"{where} has the label {shown(label)}, but must have a whole number 0..C-1")
    return value


def _pixels(image: Any, where: str) -> ImageArray:
    """An image as uint8 [C, H, W]."""
    if isinstance(image, Image.Image):
        if image.mode not in _MODES:
            raise DataError(
                f"{where} has an image of mode {image.mode!r}, but must be gray or RGB of 8 bits: convert it"
            )
        pixels = np.asarray(image.convert(_MODES[image.mode]))
        return pixels[None] if pixels.ndim == 2 else np.ascontiguousarray(pixels.transpose(2, 0, 1))
    if isinstance(image, np.ndarray):
        image = torch.from_numpy(image)
    if not isinstance(image, torch.Tensor):
        raise DataError(f"{where} has {type(image).__name__} as image, but must have a Pillow image or a tensor")
    tensor = image[None] if image.dim() == 2 else image
    if tensor.dim() != 3 or tensor.shape[0] not in (1, 3):
        raise DataError(
            f"{where} has an image of shape {list(image.shape)}, but must be [C, H, W] with C 1 or 3, or [H, W]: "
            "permute it"
        )
    return _eight_bits(tensor.detach().cpu(), where)


def _eight_bits(tensor: torch.Tensor, where: str) -> ImageArray:
    if tensor.dtype == torch.uint8:
        return np.ascontiguousarray(tensor.numpy())
    if not tensor.is_floating_point():
        raise DataError(f"{where} has pixels of {tensor.dtype}, but must be uint8, or floats in 0..1: convert them")
    low, high = float(tensor.min()), float(tensor.max())
    if not (low >= 0 and high <= 1):
        raise DataError(
            f"{where} has pixels from {low:g} to {high:g}, but floats must be in 0..1: leave out Normalize (give mean= "
            "and std= instead), or give uint8"
        )
    return np.ascontiguousarray((tensor.double() * 255).round().to(torch.uint8).numpy())
