"""Decode the training and test images of Parquet files."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import numpy as np

from trials.data.cache import cached, source_key
from trials.data.images import DECODING, ImageStack
from trials.data.parquet_classes import common_class_names, number_labels
from trials.data.parquet_columns import Wanted
from trials.data.parquet_file import LabelColumn, ParquetHeader, label_column, read_header, read_labels, read_rows
from trials.data.parquet_splits import ParquetFiles, require_labels
from trials.data.raw import Arrays, LabelArray, check_labels
from trials.errors import DataError

_NUMBERING = "numbered alike"  # stands in the keys of cached arrays: change it when equal files get other labels
_WAY_OUT = "give image_size (data set 'parquet'), or resize them first"


def read_arrays(
    files: ParquetFiles, wanted: Wanted, *, class_count: int | None = None, image_size: int | None = None
) -> Arrays:
    """Decode both splits, through the cache.

    Args:
        wanted: the columns to read.
        class_count: number of classes, if it is known without the files.
        image_size: S makes every image S x S pixels: its smaller side is resized to S (bilinear, with antialiasing) and
            the centre is cropped. None leaves images as they are; they must then have the same size.

    Raises DataError, naming the file and if possible the row, for damaged files and images, missing columns and labels,
    images of different sizes, and classes that are named differently (see trials/data/parquet_classes.py).
    """
    facts = ["parquet", _NUMBERING, DECODING, *map(str, (wanted, class_count, image_size, len(files.train)))]
    key = source_key([*files.train, *files.test], *facts)
    return cached(key, partial(_decode, files, wanted, class_count, image_size))


def class_names_in(files: ParquetFiles, wanted: Wanted) -> tuple[str, ...]:
    """Names of the classes in order of their numbers; empty where the files only number them.

    Raises DataError as :func:`read_arrays` does.
    """
    train, test = ([read_header(file, wanted) for file in split] for split in (files.train, files.test))
    names = common_class_names([*train, *test])
    if names or any(header.columns.kind != "text" for header in train):
        return names
    return tuple(sorted({text for header in train for text in read_labels(header).texts}))


def _decode(files: ParquetFiles, wanted: Wanted, class_count: int | None, image_size: int | None) -> Arrays:
    require_labels(files, wanted)
    headers = [[read_header(file, wanted) for file in split] for split in (files.train, files.test)]
    common_class_names([*headers[0], *headers[1]])  # refused before anything is decoded
    beside = sum(header.rows for header in headers[1])
    train, train_labels = _decode_split(headers[0], image_size, beside)
    test, test_labels = _decode_split(headers[1], image_size)
    labels = number_labels(train_labels, test_labels, class_count)
    gray = train.gray and test.gray
    return Arrays(train.array(gray), labels.train, test.array(gray), labels.test, labels.class_count)


def _decode_split(
    headers: Sequence[ParquetHeader], image_size: int | None, beside: int = 0
) -> tuple[ImageStack, list[LabelColumn]]:
    """Decode a split. ``beside``: how many images of another one are yet to be decoded."""
    count = sum(header.rows for header in headers)
    if not count:
        raise DataError(f"{headers[0].file} holds no rows, but each split must have some")
    stack, labels = ImageStack(count, image_size, way_out=_WAY_OUT, beside=beside), []
    for header in headers:
        row, chunks = 0, []
        for encoded, chunk in read_rows(header):
            for data in encoded:
                stack.add(data, f"{header.file} row {row}")
                row += 1
            chunks.append(chunk)
        labels.append(label_column(header, chunks))
    return stack, labels


def classes_in(name: str, labels: LabelArray) -> int:
    """Return C such that the training ``labels`` are exactly 0..C-1; raises DataError if one of them never occurs."""
    present = np.unique(labels)
    check_labels(f"{name} training", labels, max(1, int(present[-1]) + 1))
    if len(present) != int(present[-1]) + 1:
        missing = np.flatnonzero(present != np.arange(len(present)))[0]
        raise DataError(
            f"{name} training labels run from {present[0]} to {present[-1]} but class {missing} never occurs: "
            "labels must be 0..C-1, or 1..C in all files; renumber them, or write the classes' names into the metadata "
            "as 'class_names'"
        )
    return len(present)
