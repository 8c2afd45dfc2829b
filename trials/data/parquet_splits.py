"""Training and test images in Parquet files, in Hugging Face's layout: finds the files and decodes them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from trials.data.cache import cached, source_key
from trials.data.images import ImageStack
from trials.data.parquet_file import find_columns, read_rows, row_count
from trials.data.raw import Arrays, LabelArray, check_labels
from trials.errors import DataError

LABEL_NAMES = ("label", "labels", "fine_label")
TEST_SPLITS = ("test", "validation", "valid")


def layout(test_splits: Sequence[str] = TEST_SPLITS) -> str:
    """File names to expect, for messages: ``train-*.parquet and test-*.parquet (or validation-*, ...)``."""
    others = ", ".join(f"{name}-*" for name in test_splits[1:])
    return f"train-*.parquet and {test_splits[0]}-*.parquet (or {others})"


@dataclass(frozen=True)
class ParquetFiles:
    """The files of both splits, each in shard order."""

    train: tuple[Path, ...]
    test: tuple[Path, ...]


def find_files(data_dir: Path, test_splits: Sequence[str] = TEST_SPLITS) -> ParquetFiles | None:
    """Find the files of a training and a test split in ``data_dir`` or its ``data/``; None if there are none.

    The test split is the first of ``test_splits`` that has files. Raises DataError if only one of both splits exists.
    """
    for folder in (data_dir, data_dir / "data"):
        train = shards(folder, "train")
        test = next(filter(None, (shards(folder, name) for name in test_splits)), ())
        if train and test:
            return ParquetFiles(train, test)
        if train or test:
            only = "training" if train else "test"
            raise DataError(f"{folder} has only the {only} split, but must have {layout(test_splits)}")
    return None


def shards(folder: Path, split: str) -> tuple[Path, ...]:
    """Files of one split in ``folder``, in shard order; empty if there are none.

    Raises DataError if their number is not the one in their names (``-00000-of-00005``).
    """
    files = tuple(sorted([*folder.glob(f"{split}-*.parquet"), *folder.glob(f"{split}.parquet")]))
    found = {f.name: re.search(r"-(\d+)-of-(\d+)", f.name) for f in files}
    totals = {int(match[2]) for match in found.values() if match}
    if totals and (len(totals) > 1 or totals != {len(files)}):
        raise DataError(
            f"{folder} has {len(files)} {split} files ({', '.join(found)}), but their names promise "
            f"{' or '.join(map(str, sorted(totals)))}: fetch the missing ones, or remove those that do not belong"
        )
    return files


def read_arrays(files: ParquetFiles, label_names: Sequence[str]) -> Arrays:
    """Decode both splits, through the cache. ``label_names``: label columns to look for; the first one found is used.

    Raises DataError, naming the file and if possible the row, for damaged files and images, missing columns and labels,
    and images of different sizes.
    """
    key = source_key([*files.train, *files.test], "parquet", *label_names, str(len(files.train)))
    return cached(key, partial(_decode, files, label_names))


def _decode(files: ParquetFiles, label_names: Sequence[str]) -> Arrays:
    class_count = find_columns(files.train[0], label_names).class_count
    train, train_labels = _decode_split(files.train, label_names)
    test, test_labels = _decode_split(files.test, label_names)
    gray = train.gray and test.gray
    return Arrays(train.array(gray), train_labels, test.array(gray), test_labels, class_count)


def _decode_split(files: Sequence[Path], label_names: Sequence[str]) -> tuple[ImageStack, LabelArray]:
    stack = ImageStack(sum(row_count(file) for file in files))
    labels: list[LabelArray] = []
    for file in files:
        row = 0
        for encoded, chunk in read_rows(file, find_columns(file, label_names)):
            for data in encoded:
                stack.add(data, f"{file} row {row}")
                row += 1
            labels.append(chunk)
    if not labels:
        raise DataError(f"{files[0]} holds no rows, but each split must have some")
    return stack, np.concatenate(labels)


def classes_in(name: str, labels: LabelArray) -> int:
    """Return C such that the training ``labels`` are exactly 0..C-1; raises DataError if one of them never occurs."""
    present = np.unique(labels)
    check_labels(f"{name} training", labels, max(1, int(present[-1]) + 1))
    if len(present) != int(present[-1]) + 1:
        missing = np.setdiff1d(np.arange(present[-1]), present)[0]
        raise DataError(
            f"{name} training labels run from {present[0]} to {present[-1]} but class {missing} never occurs: "
            "labels must be 0..C-1; renumber them, or write the classes' names into the metadata as 'class_names'"
        )
    return len(present)
