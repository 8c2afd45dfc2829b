"""TinyImageNet: 200 classes of ImageNet at 64x64 pixels, from its folder layout or from Parquet files."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from trials.data.cache import cached, source_key
from trials.data.decoded import decode_all
from trials.data.encoded import FolderImages
from trials.data.folders import (
    ImageFile,
    Listing,
    class_folders,
    folder_digest,
    images_in,
    list_split,
    must_agree,
    notes_on,
    require_whole_links,
)
from trials.data.images import DECODING, ImageStack
from trials.data.parquet_arrays import class_names_in, classes_in, read_arrays
from trials.data.parquet_columns import Wanted
from trials.data.parquet_splits import find_labelled, layout
from trials.data.raw import IMAGENET_MEAN, IMAGENET_STD, Arrays, ImageArray, RawData, raw_data
from trials.errors import AbsentData, DataError

SIZE = 64
FOLDER = "tiny-imagenet-200"
TEST_SPLITS = ("valid", "validation", "val", "test")
LISTS = ("_boxes.txt", "val_annotations.txt")
"""How the names of the data set's own lists end; they lie beside the images and are no images."""
LAYOUT = (
    f"train/<class>/images/ and val/ with images/ and val_annotations.txt (or with a folder per class), itself or in "
    f"{FOLDER}/, or {layout(TEST_SPLITS)}, itself or in data/"
)


def load_tinyimagenet(data_dir: Path | None) -> RawData:
    """Load TinyImageNet; the official validation images are the test images, since the official test set has no labels.

    Training images are cropped from 4 pixels of padding in the mean colour and mirrored. Classes are numbered in the
    order of their names. Raises DataError if the data are absent, incomplete or damaged.
    """
    if data_dir is None:
        raise AbsentData(f"data set 'tinyimagenet' has no data_dir, but needs one: name a folder with {LAYOUT}")
    if (files := find_labelled(data_dir, Wanted(), TEST_SPLITS)) is not None:
        arrays, source, notes = read_arrays(files, Wanted()), "parquet", files.notes
        names = class_names_in(files, Wanted())
    else:
        (arrays, notes, names), source = _from_folders(data_dir), "folder"
    shape = arrays.train_images.shape[1:]
    if shape != (3, SIZE, SIZE):
        raise DataError(
            f"tinyimagenet in {data_dir} has images of (channels, height, width) {shape}, but must have "
            f"(3, {SIZE}, {SIZE}): other images are data set 'folder' or 'parquet'"
        )
    return raw_data(
        "tinyimagenet",
        arrays,
        num_classes=arrays.class_count or classes_in("tinyimagenet", arrays.train_labels),
        mean=IMAGENET_MEAN,
        std=IMAGENET_STD,
        pad=4,
        flip=True,
        source=source,
        pad_colour="mean",
        notes=notes,
        class_names=names,
    )


def _from_folders(data_dir: Path) -> tuple[Arrays, tuple[str, ...], tuple[str, ...]]:
    """The images of the folder layout, notes on what is not read, and the classes."""
    root = next((f for f in (data_dir, data_dir / FOLDER) if (f / "train").is_dir() and (f / "val").is_dir()), None)
    if root is None:
        raise AbsentData(f"{data_dir} holds no tinyimagenet: it must have {LAYOUT}")
    classes = {name: label for label, name in enumerate(class_folders(root / "train"))}
    if (root / "wnids.txt").is_file():
        must_agree(root / "wnids.txt", _text(root / "wnids.txt").split(), classes)
    train = list_split(root / "train", root, classes, LISTS)
    test = _annotated(root, classes) if (root / "val/images").is_dir() else _rearranged(root, classes)
    key = source_key([], "tinyimagenet", DECODING, folder_digest(train, test, places=True))
    return cached(key, partial(_decode, root, train, test, len(classes))), notes_on(root, train, test), tuple(classes)


def _text(file: Path) -> str:
    return file.read_text(encoding="utf-8", errors="replace")


def _by_name(pair: tuple[ImageFile, int]) -> tuple[str, int]:
    """Sort key: the file name without folders, so that both layouts of val/ give the same order."""
    return pair[0].name.rpartition("/")[2], pair[1]


def _annotated(root: Path, classes: dict[str, int]) -> Listing:
    """List the official layout: all images in val/images, their classes in val/val_annotations.txt."""
    table = root / "val/val_annotations.txt"
    if not table.is_file():
        raise DataError(f"{table} is missing, but must hold the classes of val/images: extract the data set again")
    fields = [line.split("\t") for line in _text(table).splitlines() if line.strip()]
    annotated = {line[0]: line[1].strip() if len(line) > 1 else "" for line in fields}
    if len(annotated) < len(fields):
        twice = next(name for name in annotated if sum(line[0] == name for line in fields) > 1)
        raise DataError(f"{table} names {twice} more than once, but must once: extract the data set again")
    found = images_in(root / "val/images", root, LISTS)
    files = {file.name.rpartition("/")[2]: file for file in found.images}
    if len(files) < len(found.images):
        twice = next(file.name for file in found.images if file not in files.values())
        raise DataError(f"{root / twice} has a name that another image in val/images has too: remove one of them")
    if differ := sorted(files.keys() ^ annotated.keys()):
        where = "val/images" if differ[0] in annotated else "val/val_annotations.txt"
        raise DataError(f"{root / where} lacks {differ[0]}, but both must name the same: extract the data set again")
    must_agree(table, annotated.values(), classes)
    pairs = [(file, classes[annotated[name]]) for name, file in files.items()]
    return Listing.of(sorted(pairs, key=_by_name), found.unread)


def _rearranged(root: Path, classes: dict[str, int]) -> Listing:
    """List val/ with one folder per class; class folders in test/ are part of val/ that a user moved, and count too.

    Other folders beside those in test/ are counted as not read.
    """
    must_agree(root / "val", class_folders(root / "val"), classes)
    require_whole_links([root / "test"])
    in_test = class_folders(root / "test")
    moved = {name: classes[name] for name in in_test if name in classes}
    parts = [list_split(root / "val", root, classes, LISTS)]
    parts += [list_split(root / "test", root, moved, LISTS)] if moved else []
    pairs = [pair for part in parts for pair in zip(part.files, part.labels.tolist(), strict=True)]
    unread = [name for part in parts for name in part.unread]
    outside = [name for part in parts for name in part.outside]
    outside += [f"test/{name}" for name in in_test if moved and name not in classes]
    return Listing.of(sorted(pairs, key=_by_name), unread, outside)


def _decode(root: Path, train: Listing, test: Listing, class_count: int) -> Arrays:
    return Arrays(_pixels(root, train), train.labels, _pixels(root, test), test.labels, class_count)


def _pixels(root: Path, listing: Listing) -> ImageArray:
    stack = ImageStack(len(listing.files), way_out="resize them first, or take dataset: folder with image_size")
    decode_all([FolderImages.of(root, listing.names)], stack)
    return stack.array(gray=False)
