"""Unpack the encoded images of Parquet files once into a single file with random access.

Parquet files are read by row groups of hundreds of images: reading images in random order would read each group
hundreds of times.
"""

from __future__ import annotations

import shutil
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from trials.data.cache import cache_dir, one_at_a_time, replacing, source_key
from trials.data.encoded import PackedImages
from trials.data.parquet_file import find_columns, read_rows, row_count
from trials.data.parquet_splits import LABEL_NAMES
from trials.data.raw import LabelArray
from trials.errors import DataError


@dataclass(frozen=True)
class Packed:
    """One split; ``class_count`` is 0 if the files do not name the classes."""

    images: PackedImages
    labels: LabelArray
    class_count: int


def pack(files: Sequence[Path]) -> Packed:
    """Return the images of ``files`` from ``packed/`` in the cache directory, unpacking them there first if missing.

    One process at a time unpacks. Raises DataError for damaged files, naming file and row if possible, and if the disk
    is full.
    """
    folder, key = cache_dir() / "packed", source_key(files, "packed")
    data, index = folder / f"{key}.bin", folder / f"{key}.npz"
    columns = find_columns(files[0], LABEL_NAMES)
    try:
        with one_at_a_time(folder / f"{key}.lock"):
            if not _complete(data, index):
                _unpack(files, data, index)
        with np.load(index, allow_pickle=False) as arrays:
            offsets, labels, rows = arrays["offsets"], arrays["labels"], arrays["rows"]
    except OSError as error:
        raise DataError(
            f"{files[0].parent} cannot be unpacked into {folder}: set XDG_CACHE_HOME to a folder with room, or extract "
            f"the images into a folder per class ({error.strerror or error})"
        ) from error
    return Packed(PackedImages(data, offsets, tuple(files), tuple(rows.tolist())), labels, columns.class_count)


def _complete(data: Path, index: Path) -> bool:
    """Whether the index, which is written last, is readable and its total size is that of the data file."""
    try:
        with index.open("rb") as stream, np.load(stream, allow_pickle=False) as arrays:
            return int(arrays["offsets"][-1]) == data.stat().st_size
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return False


def _unpack(files: Sequence[Path], data: Path, index: Path) -> None:
    needed, free = sum(file.stat().st_size for file in files), shutil.disk_usage(data.parent).free
    if needed > free:
        raise OSError(f"it needs {needed / 2**30:.1f} GiB, but only {free / 2**30:.1f} GiB are free")
    sizes: list[int] = []
    labels: list[LabelArray] = []
    with replacing(data) as stream:
        for file in files:
            row = 0
            for encoded, chunk in read_rows(file, find_columns(file, LABEL_NAMES)):
                for image in encoded:
                    if not image:
                        raise DataError(f"{file} row {row} holds no image: its bytes must be in the file")
                    sizes.append(stream.write(image))
                    row += 1
                labels.append(chunk)
    rows = [row_count(file) for file in files]
    offsets = np.concatenate([[0], np.cumsum(sizes, dtype=np.int64)])
    with replacing(index) as stream:
        np.savez(stream, offsets=offsets, labels=np.concatenate([*labels, np.zeros(0, np.int64)]), rows=np.array(rows))
