"""A data set too large for memory: encoded images (JPEG, PNG, ...) that are read and decoded one by one, by index."""

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
    """Encoded images by index. Pickled to worker processes: holds names and offsets, no open files."""

    def __len__(self) -> int: ...

    def read(self, index: int) -> bytes:
        """One image as its file holds it. Raises DataError when it cannot be read."""

    def where(self, index: int) -> str:
        """What to call the image in a message."""


@dataclass(frozen=True, eq=False)
class FolderImages:
    """A file an image. ``names`` are paths below ``root``, as fixed-width bytes so that workers share the memory."""

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
    """Images one after the other in one file: image i is the bytes ``offsets[i]`` to ``offsets[i + 1]``.

    ``shards`` and ``rows`` say where they came from: the Parquet files and how many rows each has.
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

    A training image is a random part (8 to 100 % of the area, sides 3:4 to 4:3), mirrored or not; without augmentation,
    and in evaluation, its smaller side becomes ``resize`` pixels and the centre is cut out. Either way the network sees
    ``crop_size`` x ``crop_size`` pixels, normalised by ``mean`` and ``std`` per channel (for pixels scaled to 0..1).
    ``fingerprint``: 16 hex digits from files' names, their sizes and labels; the images' bytes are not read for it.
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

    @property
    def in_channels(self) -> int:
        """3: gray images become RGB."""
        return 3

    @property
    def image_size(self) -> tuple[int, int]:
        """(H, W) in pixels, as the network sees them."""
        return self.crop_size, self.crop_size


def encoded_data(
    name: str, train: tuple[Encoded, LabelArray], test: tuple[Encoded, LabelArray], num_classes: int, **fields: Any
) -> EncodedData:
    """Check that labels are 0..num_classes-1 and no split is empty. ``fields``: the others of :class:`EncodedData`."""
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
