"""ImageNet and data sets in its form, streamed from disk: from one folder per class, Parquet or LMDB files."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np

from trials.data.encoded import EncodedData, FolderImages, PackedImages, encoded_data
from trials.data.folders import class_folders, folder_digest, list_split, must_agree, notes_on
from trials.data.lmdb.images import LmdbImages, lmdb_files, lmdb_of, read_lmdb
from trials.data.packed import is_packed, pack
from trials.data.parquet_arrays import classes_in
from trials.data.parquet_classes import common_class_names, number_labels
from trials.data.parquet_columns import Wanted
from trials.data.parquet_file import ParquetHeader, read_header, read_labels
from trials.data.parquet_splits import ParquetFiles, find_labelled, find_test_files, layout, require_labels
from trials.data.raw import IMAGENET_MEAN, IMAGENET_STD, LabelArray, class_count_fact
from trials.data_header import DataHeader
from trials.errors import AbsentData, DataError

TEST_SPLITS = ("validation", "valid", "val")  # the official test images have no labels
LAYOUT = (
    f"train/<class>/ and val/<class>/ with image files, or {layout(TEST_SPLITS)}, itself or in data/, or train.lmdb "
    "and val.lmdb"
)


def load_imagenet(data_dir: Path | None, *, crop_size: int = 224, resize: int = 256) -> EncodedData:
    """Load ImageNet; the official validation images are the test images. Classes are numbered in order of their names.

    Nothing is decoded here. Images in Parquet files are unpacked once into the cache directory, because they cannot be
    read individually from Parquet; image files are not copied. Raises DataError if the data are absent or incomplete.
    """
    if data_dir is None:
        raise AbsentData(f"data set 'imagenet' has no data_dir, but needs one: name a folder with {LAYOUT}")
    fixed: dict[str, Any] = {"mean": IMAGENET_MEAN, "std": IMAGENET_STD, "crop_size": crop_size, "resize": resize}
    if (files := find_labelled(data_dir, Wanted(), TEST_SPLITS)) is not None:
        train, test = (pack(headers) for headers in _headers(files))
        labels = number_labels(train.labels, test.labels)
        splits = (train.images, labels.train), (test.images, labels.test)
        count = labels.class_count or classes_in("imagenet", labels.train)
        fixed |= {"source": "parquet", "fingerprint": _fingerprint(count, *splits), "notes": files.notes}
        fixed["class_names"] = labels.names
        return encoded_data("imagenet", *splits, count, **fixed)
    folders, test_folders = (class_folders(data_dir / split) for split in ("train", "val"))
    if not (folders and test_folders) and (lmdb := lmdb_files(data_dir)) is not None:
        train_images, test_images = (read_lmdb(file) for file in lmdb)
        count = _classes(lmdb[0], train_images[1])
        fixed |= {"source": "lmdb", "fingerprint": _fingerprint_of_lmdb(count, train_images, test_images)}
        return encoded_data("imagenet", train_images, test_images, count, **fixed)
    if not folders or not test_folders:
        raise AbsentData(f"{data_dir} holds no imagenet: it must have {LAYOUT}")
    classes = {name: label for label, name in enumerate(folders)}
    must_agree(data_dir / "val", test_folders, classes)
    listed = [list_split(data_dir / split, data_dir, classes) for split in ("train", "val")]
    images = [(FolderImages.of(data_dir, listing.names), listing.labels) for listing in listed]
    return encoded_data(
        "imagenet",
        images[0],
        images[1],
        len(classes),
        source="folder",
        fingerprint=folder_digest(*listed),
        notes=notes_on(data_dir, *listed),
        class_names=tuple(classes),
        **fixed,
    )


def peek_imagenet(data_dir: Path, *, crop_size: int = 224, **_: int) -> DataHeader | None:
    """The header of ImageNet in Parquet files that are not unpacked yet, from the files' footers; None otherwise.

    The labels are read too if the footers do not name the classes. There is no fingerprint: it needs the images. Raises
    DataError for damaged files and for classes that are named differently.
    """
    if (files := find_labelled(data_dir, Wanted(), TEST_SPLITS)) is None:
        return None
    train, test = _headers(files)
    if is_packed(train) and is_packed(test):
        return None
    count = len(common_class_names([*train, *test]))
    if not count:
        labels = number_labels([read_labels(header) for header in train], [read_labels(header) for header in test])
        count = labels.class_count or classes_in("imagenet", labels.train)
    size = sum(header.rows for header in train)
    return DataHeader("imagenet", count, 3, (crop_size, crop_size), size, notes=files.notes)


def load_validation(data_dir: Path, *, crop_size: int = 224, resize: int = 256) -> EncodedData:
    """Load only the official validation images, for evaluating pretrained networks without the training images.

    Layout as for :func:`load_imagenet`, or one folder per class in ``data_dir`` itself. Both splits of the result are
    the validation images, whose classes are numbered as :func:`load_imagenet` numbers them: Parquet files of training
    images beside them are asked for names and labels. Raises DataError if the validation images are absent, or if there
    are training images of other classes.
    """
    fixed: dict[str, Any] = {"mean": IMAGENET_MEAN, "std": IMAGENET_STD, "crop_size": crop_size, "resize": resize}
    if (files := find_test_files(data_dir, TEST_SPLITS)) is not None:
        beside, headers = _headers(files)
        packed = pack(headers)
        labels = number_labels([read_labels(header) for header in beside] or packed.labels, packed.labels)
        images = (packed.images, labels.test)
        count = labels.class_count or classes_in("imagenet", labels.train)
        fixed |= {"source": "parquet", "fingerprint": _fingerprint(count, images)}
        return encoded_data("imagenet", images, images, count, **fixed)
    if not (data_dir / "val").is_dir() and (file := lmdb_of(data_dir, "val")) is not None:
        images_and_labels = read_lmdb(file)
        count = _classes(file, images_and_labels[1])
        fixed |= {"source": "lmdb", "fingerprint": _fingerprint_of_lmdb(count, images_and_labels)}
        return encoded_data("imagenet", images_and_labels, images_and_labels, count, **fixed)
    folder = data_dir / "val"
    if not folder.is_dir() and not (data_dir / "train").is_dir():
        folder = data_dir
    classes = {name: label for label, name in enumerate(class_folders(folder))}
    if not classes:
        wanted = (
            f"val/<class>/ or <class>/ with image files, or {TEST_SPLITS[0]}-*.parquet, itself or in data/, or val.lmdb"
        )
        raise DataError(f"{data_dir} holds no validation images of imagenet: it must have {wanted}")
    if train := {name: label for label, name in enumerate(class_folders(data_dir / "train"))}:
        must_agree(folder, classes, train)  # or the classes after a missing one would have other numbers
    listing = list_split(folder, data_dir, classes)
    named = (FolderImages.of(data_dir, listing.names), listing.labels)
    fixed |= {"source": "folder", "fingerprint": folder_digest(listing), "notes": notes_on(data_dir, listing)}
    return encoded_data("imagenet", named, named, len(classes), **fixed)


def _headers(files: ParquetFiles) -> tuple[list[ParquetHeader], list[ParquetHeader]]:
    """The footers of both splits. Raises DataError if they name the classes differently or the test split no label."""
    if files.train:
        require_labels(files, Wanted())
    train, test = ([read_header(file, Wanted()) for file in split] for split in (files.train, files.test))
    common_class_names([*train, *test])
    return train, test


def _classes(file: Path, labels: LabelArray) -> int:
    """Return C such that the labels of an LMDB file are exactly 0..C-1; raises DataError if one of them is missing."""
    present = np.unique(labels)
    if len(present) != int(present[-1]) + 1:
        missing = int(np.flatnonzero(present != np.arange(len(present)))[0])
        raise DataError(
            f"{file} has labels from {present[0]} to {present[-1]}, but none is {missing}, and labels must count the "
            "classes 0..C-1: write the file anew"
        )
    return len(present)


def _fingerprint_of_lmdb(num_classes: int, *splits: tuple[LmdbImages, LabelArray]) -> str:
    """Return 16 hex digits of a sha256 over the images' sizes and labels and :func:`class_count_fact`."""
    total = hashlib.sha256(b"lmdb")
    for images, labels in splits:
        total.update(images.lengths.tobytes())
        total.update(labels.tobytes())
    total.update(class_count_fact(splits[0][1], num_classes))
    return total.hexdigest()[:16]


def _fingerprint(num_classes: int, *splits: tuple[PackedImages, LabelArray]) -> str:
    """Return 16 hex digits of a sha256 over the file names, the images' sizes, labels and :func:`class_count_fact`."""
    total = hashlib.sha256()
    for images, labels in splits:
        total.update(json.dumps([shard.name for shard in images.shards]).encode())
        total.update(images.offsets.tobytes())
        total.update(labels.tobytes())
    total.update(class_count_fact(splits[0][1], num_classes))
    return total.hexdigest()[:16]
