"""Data sets too large for memory: encoded images (JPEG, PNG, ...), read and decoded one at a time by index."""

from __future__ import annotations

import os
from bisect import bisect_right
from dataclasses import dataclass, field
from itertools import accumulate
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch

from trials.data.raw import LabelArray, check_labels
from trials.errors import DataError


class Encoded(Protocol):
    """Encoded images by index. Pickled to worker processes, so it holds names and offsets but no open files."""

    def __len__(self) -> int: ...

    def read(self, index: int) -> bytes:
        """Return one image's encoded bytes. Raises DataError if it cannot be read."""

    def where(self, index: int) -> str:
        """Name of the image for messages."""


@dataclass(frozen=True, eq=False)
class FolderImages:
    """One file per image. ``names`` are paths below ``root``, as fixed-width bytes so that workers share the memory."""

    root: Path
    names: npt.NDArray[np.bytes_]

    @classmethod
    def of(cls, root: Path, names: list[str]) -> FolderImages:
        return cls(root, np.array([os.fsencode(name) for name in names]))

    def __len__(self) -> int:
        return len(self.names)

    def where(self, index: int) -> str:
        return str(self.root / os.fsdecode(self.names[index]))

    def read(self, index: int) -> bytes:
        try:
            return Path(self.where(index)).read_bytes()
        except OSError as error:
            raise DataError(f"{self.where(index)} cannot be read: restore it ({error.strerror})") from error


@dataclass(frozen=True, eq=False)
class PackedImages:
    """Images concatenated in one file: image i is the bytes ``offsets[i]`` to ``offsets[i + 1]``.

    ``shards`` and ``rows`` are the Parquet files they were unpacked from and the number of rows of each.
    """

    file: Path
    offsets: npt.NDArray[np.int64]  # [N + 1]
    shards: tuple[Path, ...]
    rows: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def where(self, index: int) -> str:
        ends = list(accumulate(self.rows))
        shard = bisect_right(ends, index)
        return f"{self.shards[shard]} row {index - (ends[shard] - self.rows[shard])}"

    def read(self, index: int) -> bytes:
        start, end = (int(offset) for offset in self.offsets[index : index + 2])
        try:
            with self.file.open("rb") as stream:
                stream.seek(start)
                return stream.read(end - start)
        except OSError as error:
            raise DataError(
                f"{self.file} cannot be read: delete it, so that it is unpacked again ({error.strerror})"
            ) from error


@dataclass(frozen=True, eq=False)
class EncodedData:
    """A data set of RGB images of any size that stays on disk.

    With augmentation, a training image is a random crop (8 to 100 % of the area, sides 3:4 to 4:3), mirrored at random.
    Without it, and in evaluation, the smaller side is resized to ``resize`` pixels and the centre is cropped. Either
    way the network sees ``crop_size`` x ``crop_size`` pixels, normalised by ``mean`` and ``std`` per channel (for
    pixels scaled to 0..1). ``fingerprint``: 16 hex digits of file names, sizes and labels, without the images' bytes.
    ``notes``: lines that a user should see, such as how many files were not read. ``class_names``: in order of the
    labels; empty where the data do not name their classes.
    """

    name: str
    train: Encoded = field(repr=False)
    train_labels: torch.Tensor = field(repr=False)  # int64 [N]
    test: Encoded = field(repr=False)
    test_labels: torch.Tensor = field(repr=False)  # int64 [M]
    num_classes: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    crop_size: int
    resize: int
    source: str
    fingerprint: str
    notes: tuple[str, ...] = ()
    class_names: tuple[str, ...] = ()

    @property
    def in_channels(self) -> int:
        """Always 3: gray images are converted to RGB."""
        return 3

    @property
    def image_size(self) -> tuple[int, int]:
        """(H, W) in pixels, as the network sees them."""
        return self.crop_size, self.crop_size


def encoded_data(
    name: str, train: tuple[Encoded, LabelArray], test: tuple[Encoded, LabelArray], num_classes: int, **fields: Any
) -> EncodedData:
    """Build an :class:`EncodedData` from its splits and its remaining ``fields``.

    Raises DataError if a split is empty or a label is not in 0..num_classes-1.
    """
    if not len(train[0]) or not len(test[0]):
        raise DataError(
            f"{name} has {len(train[0])} training and {len(test[0])} test images, but must have some of each"
        )
    check_labels(f"{name} training", train[1], num_classes)
    check_labels(f"{name} test", test[1], num_classes)
    return EncodedData(
        name=name,
        train=train[0],
        train_labels=torch.from_numpy(train[1]),
        test=test[0],
        test_labels=torch.from_numpy(test[1]),
        num_classes=num_classes,
        **fields,
    )
