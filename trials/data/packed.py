"""Unpack the encoded images of Parquet files once into a single file with random access.

Parquet files are read by row groups of hundreds of images: reading images in random order would read each group
hundreds of times.
"""

from __future__ import annotations

import json
import shutil
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from trials.data.cache import cache_dir, one_at_a_time, replacing, source_key
from trials.data.encoded import PackedImages
from trials.data.parquet_file import LabelColumn, ParquetHeader, label_column, read_rows
from trials.data.raw import LabelArray
from trials.errors import DataError


@dataclass(frozen=True)
class Packed:
    """One split: its images, and the labels of each file as they stand there."""

    images: PackedImages
    labels: tuple[LabelColumn, ...]


def pack(headers: Sequence[ParquetHeader]) -> Packed:
    """Return the images of files from ``packed/`` in the cache directory, unpacking them there first if missing.

    One process at a time unpacks. Raises DataError for damaged files, naming file and row if possible, and if the disk
    is full.
    """
    data, index = _paths(headers)
    files = [header.file for header in headers]
    try:
        with one_at_a_time(data.with_suffix(".lock")):
            if not _complete(data, index):
                _unpack(headers, data, index)
        with np.load(index, allow_pickle=False) as arrays:
            offsets, labels, rows = arrays["offsets"], arrays["labels"], arrays["rows"].tolist()
            texts = json.loads(str(arrays["texts"]))
    except OSError as error:
        raise DataError(
            f"{files[0].parent} cannot be unpacked into {data.parent}: set XDG_CACHE_HOME to a folder with room, or "
            f"extract the images into a folder per class ({error.strerror or error})"
        ) from error
    codes = np.split(labels, np.cumsum(rows)[:-1])
    labelled = zip(headers, codes, texts, strict=True)
    columns = tuple(LabelColumn(header, own, tuple(names)) for header, own, names in labelled)
    return Packed(PackedImages(data, offsets, tuple(files), tuple(rows)), columns)


def is_packed(headers: Sequence[ParquetHeader]) -> bool:
    """Whether the images of these files are unpacked already."""
    return _complete(*_paths(headers))


def _paths(headers: Sequence[ParquetHeader]) -> tuple[Path, Path]:
    """Files of the images and of their offsets and labels; their names depend on the files and the columns."""
    facts = [f"{header.columns.image} {header.columns.label}" for header in headers]
    key = source_key([header.file for header in headers], "packed", *facts)
    folder = cache_dir() / "packed"
    return folder / f"{key}.bin", folder / f"{key}.npz"


def _complete(data: Path, index: Path) -> bool:
    """Whether the index, which is written last, is readable and its total size is that of the data file."""
    try:
        with index.open("rb") as stream, np.load(stream, allow_pickle=False) as arrays:
            return int(arrays["offsets"][-1]) == data.stat().st_size
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return False


def _unpack(headers: Sequence[ParquetHeader], data: Path, index: Path) -> None:
    needed, free = sum(header.file.stat().st_size for header in headers), shutil.disk_usage(data.parent).free
    if needed > free:
        raise OSError(f"it needs {needed / 2**30:.1f} GiB, but only {free / 2**30:.1f} GiB are free")
    sizes: list[int] = []
    labels: list[LabelColumn] = []
    with replacing(data) as stream:
        for header in headers:
            row = 0
            chunks: list[Any] = []
            for encoded, chunk in read_rows(header):
                for image in encoded:
                    if not image:
                        raise DataError(f"{header.file} row {row} holds no image: its bytes must be in the file")
                    sizes.append(stream.write(image))
                    row += 1
                chunks.append(chunk)
            labels.append(label_column(header, chunks))
    offsets = np.concatenate([[0], np.cumsum(sizes, dtype=np.int64)])
    codes: LabelArray = np.concatenate([column.codes for column in labels])
    rows = np.array([len(column.codes) for column in labels])
    texts = np.array(json.dumps([column.texts for column in labels]))
    with replacing(index) as stream:
        np.savez(stream, offsets=offsets, labels=codes, rows=rows, texts=texts)
