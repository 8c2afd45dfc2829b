"""Any image-classification data in one folder per class, as torchvision's ``ImageFolder`` has them, in memory."""

from __future__ import annotations

import os
from collections.abc import Mapping
from functools import partial
from pathlib import Path

from PIL import Image

from trials.data.cache import cached, source_key
from trials.data.decoded import decode_all
from trials.data.encoded import FolderImages
from trials.data.folders import (
    SUFFIXES,
    Listing,
    class_folders,
    folder_digest,
    list_split,
    must_agree,
    notes_on,
    require_whole_links,
)
from trials.data.images import DECODING, ImageStack
from trials.data.raw import Arrays, RawData, channel_statistics, raw_data
from trials.data.room import require_memory
from trials.errors import AbsentData, DataError, one_line

TEST_SPLITS = ("test", "val", "valid", "validation")
LAYOUT = "train/<class>/ and test/<class>/ (or val/, valid/ or validation/) with image files"
MOST_BYTES = 16 * 2**30
"""Largest size of all images together, in memory."""
_WAY_OUT = "give a smaller image_size, or dataset: imagenet, which reads train/ and val/ while it trains"


def load_folder(data_dir: Path | None, image_size: int | None = None) -> RawData:
    """Load any images in class folders: gray if all are gray, else RGB. Classes are numbered in order of their names.

    The test images are those of the first of ``TEST_SPLITS`` that has class folders; other splits are not read, which a
    note says. With ``image_size`` S the smaller side of each image is resized to S pixels (bilinear, with antialiasing)
    and the centre S x S is cropped; without it all images must have one size. Mean, standard deviation and augmentation
    are as for Parquet files: those of the training images; crops from a padding of an eighth of the smaller side,
    mirroring for RGB only.

    Raises:
        DataError: the data are absent, damaged, too large or of several sizes, or the splits' classes differ.
    """
    if data_dir is None:
        raise AbsentData(f"data set 'folder' has no data_dir, but needs one: name a folder with {LAYOUT}")
    classes = {name: label for label, name in enumerate(_training_classes(data_dir))}
    split, notes = _test_split(data_dir, classes)
    way_out = f"name them alike, or move {split}/ away if its images have no classes"
    must_agree(data_dir / split, class_folders(data_dir / split), classes, way_out)
    train, test = (list_split(data_dir / name, data_dir, classes) for name in ("train", split))
    require_memory(f"the images of {data_dir}", _bytes_of(data_dir, train, test, image_size), _WAY_OUT, MOST_BYTES)
    key = source_key([], "folder", DECODING, str(image_size), folder_digest(train, test, places=True))
    arrays = cached(key, partial(_decode, data_dir, train, test, len(classes), image_size))
    mean, std = channel_statistics(arrays.train_images)
    return raw_data(
        "folder",
        arrays,
        num_classes=len(classes),
        mean=mean,
        std=std,
        pad=min(arrays.train_images.shape[2:]) // 8,
        flip=arrays.train_images.shape[1] == 3,
        source="folder",
        notes=(*notes, *notes_on(data_dir, train, test, beside=_images_in(data_dir))),
        class_names=tuple(classes),
    )


def _training_classes(data_dir: Path) -> Mapping[str, Path]:
    """The class folders of train/. Raises DataError, saying what is there instead, if there are none."""
    require_whole_links([data_dir / "train"])
    if folders := class_folders(data_dir / "train"):
        return folders
    if (data_dir / "train").is_dir():
        found = f"has a folder train/ without class folders{_inside(data_dir / 'train')}"
    elif inner := next((path for path in class_folders(data_dir).values() if (path / "train").is_dir()), None):
        raise AbsentData(f"{data_dir} has no folder train/, but {inner} has: give that as data_dir")
    else:
        found = f"has no folder train/{_inside(data_dir)}"
    raise AbsentData(f"{data_dir} {found}: it must have {LAYOUT}, so move each image into the folder of its class")


def _inside(folder: Path) -> str:
    """What ``folder`` holds, in brackets; empty if it has neither images nor folders."""
    names = [name for name in sorted(path.name for path in folder.iterdir()) if not name.startswith(".")]
    folders = [f"{name}/" for name in names if (folder / name).is_dir()]
    images = [name for name in names if name.lower().endswith(SUFFIXES) and f"{name}/" not in folders]
    shown = [f"images: {len(images)}"] if images else []
    shown += [f"folders: {', '.join(folders[:3])}{', ...' if folders[3:] else ''}"] if folders else []
    return f" ({'; '.join(shown)})" if shown else ""


def _test_split(data_dir: Path, classes: Mapping[str, int]) -> tuple[str, tuple[str, ...]]:
    """The folder of the test images, and a note on the folders of other splits, which are not read.

    Raises DataError if no split has class folders, or one is a link that leads nowhere.
    """
    require_whole_links(data_dir / name for name in TEST_SPLITS)
    present = [name for name in TEST_SPLITS if (data_dir / name).is_dir()]
    with_classes = [name for name in present if class_folders(data_dir / name)]
    if not with_classes:
        found = f"{present[0]}/ has no class folders" if present else "there is no folder test/"
        raise DataError(
            f"{data_dir} has no test images: {found}, but it must have {LAYOUT}; move some images of each class there"
        )
    split = with_classes[0]
    unknown = [path.name for path in class_folders(data_dir).values() if _is_split(path, classes)]
    others = [f"{name}/" for name in (*present, *unknown) if name != split]
    if not others:
        return split, ()
    note = f"not read in {data_dir}: {' and '.join(others)}; the test images are those of {split}/"
    return split, (one_line(note),)


def _is_split(path: Path, classes: Mapping[str, int]) -> bool:
    """Whether a folder of another name is like a split: it has images, or folders of ``classes``."""
    if path.name in ("train", *TEST_SPLITS) or not os.access(path, os.R_OK | os.X_OK):
        return False
    return bool(_images_in(path)) or any((path / name).is_dir() for name in classes)


def _images_in(folder: Path) -> list[str]:
    """Names of the images right in a folder, without hidden ones."""
    names = sorted(path.name for path in folder.iterdir() if path.is_file())
    return [name for name in names if name.lower().endswith(SUFFIXES) and not name.startswith(".")]


def _bytes_of(data_dir: Path, train: Listing, test: Listing, image_size: int | None) -> int:
    """Size of all images in memory; without ``image_size``, if all are as large as the first one."""
    height = width = image_size or 0
    if image_size is None:
        try:
            with Image.open(data_dir / train.files[0].name) as image:
                width, height = image.size
        except (OSError, SyntaxError, ValueError, Image.DecompressionBombError):
            return 0  # decoding it names what is wrong
    return 3 * height * width * (len(train.files) + len(test.files))


def _decode(data_dir: Path, train: Listing, test: Listing, class_count: int, image_size: int | None) -> Arrays:
    """Decode both splits into one array, so that all images of both have one size and one number of channels."""
    require_memory(f"the images of {data_dir}", _bytes_of(data_dir, train, test, image_size), _WAY_OUT)
    count = len(train.files)
    stack = ImageStack(count + len(test.files), image_size, way_out="give image_size, for example image_size: 64")
    decode_all([FolderImages.of(data_dir, split.names) for split in (train, test)], stack)
    images = stack.array(stack.gray)
    return Arrays(images[:count], train.labels, images[count:], test.labels, class_count)
