"""ImageNet and data sets in its form, streamed from disk: from one folder per class or from Parquet files."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from trials.data.encoded import EncodedData, FolderImages, encoded_data
from trials.data.folders import class_folders, folder_digest, list_split, must_agree, notes_on
from trials.data.packed import Packed, pack
from trials.data.parquet_splits import classes_in, find_files, layout, shards
from trials.data.raw import IMAGENET_MEAN, IMAGENET_STD
from trials.errors import DataError

TEST_SPLITS = ("validation", "valid", "val")  # the official test images have no labels
LAYOUT = f"train/<class>/ and val/<class>/ with image files, or {layout(TEST_SPLITS)}, itself or in data/"


def load_imagenet(data_dir: Path | None, *, crop_size: int = 224, resize: int = 256) -> EncodedData:
    """Load ImageNet; the official validation images are the test images. Classes are numbered in order of their names.

    Nothing is decoded here. Images in Parquet files are unpacked once into the cache directory, because they cannot be
    read individually from Parquet; image files are not copied. Raises DataError if the data are absent or incomplete.
    """
    if data_dir is None:
        raise DataError(f"data set 'imagenet' has no data_dir, but needs one: name a folder with {LAYOUT}")
    fixed = {"mean": IMAGENET_MEAN, "std": IMAGENET_STD, "crop_size": crop_size, "resize": resize}
    if (files := find_files(data_dir, TEST_SPLITS)) is not None:
        train, test = pack(files.train), pack(files.test)
        return encoded_data(
            "imagenet",
            (train.images, train.labels),
            (test.images, test.labels),
            train.class_count or classes_in("imagenet", train.labels),
            source="parquet",
            fingerprint=_fingerprint(train, test),
            **fixed,
        )
    folders, test_folders = (class_folders(data_dir / split) for split in ("train", "val"))
    if not folders or not test_folders:
        raise DataError(f"{data_dir} holds no imagenet: it must have {LAYOUT}")
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
        **fixed,
    )


def load_validation(data_dir: Path, *, crop_size: int = 224, resize: int = 256) -> EncodedData:
    """Load only the official validation images, for evaluating pretrained networks without the training images.

    Layout as for :func:`load_imagenet`, or one folder per class in ``data_dir`` itself. Both splits of the result are
    the validation images. Raises DataError if they are absent.
    """
    fixed: dict[str, Any] = {"mean": IMAGENET_MEAN, "std": IMAGENET_STD, "crop_size": crop_size, "resize": resize}
    places = [(folder, split) for folder in (data_dir, data_dir / "data") for split in TEST_SPLITS]
    if files := next(filter(None, (shards(*place) for place in places)), ()):
        packed = pack(files)
        images = (packed.images, packed.labels)
        count = packed.class_count or classes_in("imagenet", packed.labels)
        fixed |= {"source": "parquet", "fingerprint": _fingerprint(packed)}
        return encoded_data("imagenet", images, images, count, **fixed)
    folder = data_dir / "val"
    if not folder.is_dir() and not (data_dir / "train").is_dir():
        folder = data_dir
    classes = {name: label for label, name in enumerate(class_folders(folder))}
    if not classes:
        wanted = f"val/<class>/ or <class>/ with image files, or {TEST_SPLITS[0]}-*.parquet, itself or in data/"
        raise DataError(f"{data_dir} holds no validation images of imagenet: it must have {wanted}")
    listing = list_split(folder, data_dir, classes)
    named = (FolderImages.of(data_dir, listing.names), listing.labels)
    fixed |= {"source": "folder", "fingerprint": folder_digest(listing), "notes": notes_on(data_dir, listing)}
    return encoded_data("imagenet", named, named, len(classes), **fixed)


def _fingerprint(*splits: Packed) -> str:
    """Return 16 hex digits of a sha256 over the file names, the images' sizes and the labels."""
    total = hashlib.sha256()
    for split in splits:
        total.update(json.dumps([shard.name for shard in split.images.shards]).encode())
        total.update(split.images.offsets.tobytes())
        total.update(split.labels.tobytes())
    return total.hexdigest()[:16]
