"""CIFAR-10 and CIFAR-100, from Parquet files or from torchvision's folder layout."""

from __future__ import annotations

import http.client
import tarfile
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from trials.data.cache import cache_dir, cached, one_at_a_time, source_key
from trials.data.parquet_arrays import class_names_in, read_arrays
from trials.data.parquet_columns import Wanted
from trials.data.parquet_splits import find_labelled, layout
from trials.data.raw import Arrays, RawData, raw_data
from trials.errors import AbsentData, DataError

_DOWNLOAD_ERRORS = (OSError, RuntimeError, EOFError, http.client.HTTPException, tarfile.TarError)

_CLASSES_OF_CIFAR10 = "airplane automobile bird cat deer dog frog horse ship truck"
_CLASSES_OF_CIFAR100 = """
apple aquarium_fish baby bear beaver bed bee beetle bicycle bottle bowl boy bridge bus butterfly camel can castle
caterpillar cattle chair chimpanzee clock cloud cockroach couch crab crocodile cup dinosaur dolphin elephant
flatfish forest fox girl hamster house kangaroo keyboard lamp lawn_mower leopard lion lizard lobster man maple_tree
motorcycle mountain mouse mushroom oak_tree orange orchid otter palm_tree pear pickup_truck pine_tree plain plate
poppy porcupine possum rabbit raccoon ray road rocket rose sea seal shark shrew skunk skyscraper snail snake spider
squirrel streetcar sunflower sweet_pepper table tank telephone television tiger tractor train trout tulip turtle
wardrobe whale willow_tree wolf woman worm
"""


@dataclass(frozen=True)
class Cifar:
    """What differs between CIFAR-10 and CIFAR-100. ``mean``, ``std``: the usual constants for pixels in 0..1.

    ``class_names``: in the order of the labels in torchvision's files."""

    name: str
    num_classes: int
    label_names: tuple[str, ...]
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    folder: str
    files: tuple[str, ...]
    torchvision_class: str
    class_names: tuple[str, ...]


CIFAR10 = Cifar(
    name="cifar10",
    num_classes=10,
    label_names=("label",),
    mean=(0.4914, 0.4822, 0.4465),
    std=(0.2470, 0.2435, 0.2616),
    folder="cifar-10-batches-py",
    files=(*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"),
    torchvision_class="CIFAR10",
    class_names=tuple(_CLASSES_OF_CIFAR10.split()),
)
CIFAR100 = Cifar(
    name="cifar100",
    num_classes=100,
    label_names=("fine_label", "label"),
    mean=(0.5071, 0.4866, 0.4409),
    std=(0.2673, 0.2564, 0.2762),
    folder="cifar-100-python",
    files=("train", "test"),
    torchvision_class="CIFAR100",
    class_names=tuple(_CLASSES_OF_CIFAR100.split()),
)


def load_cifar(cifar: Cifar, data_dir: Path | None) -> RawData:
    """Load CIFAR-10 or CIFAR-100; training images are cropped from 4 pixels of black padding and mirrored.

    ``data_dir`` must hold Parquet files or torchvision's folder. If it is None, the data are downloaded once into
    ``data/`` of the cache directory. Raises DataError if they are absent, damaged, or cannot be downloaded.
    """
    notes: tuple[str, ...] = ()
    names = cifar.class_names
    if data_dir is None:
        arrays, source = _downloaded(cifar, cache_dir() / "data"), "torchvision"
    elif (files := find_labelled(data_dir, wanted := Wanted(label_names=cifar.label_names))) is not None:
        notes = files.notes
        arrays, source = read_arrays(files, wanted, class_count=cifar.num_classes), "parquet"
        names = class_names_in(files, wanted)
    elif (data_dir / cifar.folder).is_dir():
        arrays, source = _unpickled(cifar, data_dir), "torchvision"
    else:
        raise AbsentData(
            f"{data_dir} holds no {cifar.name}: it must have {layout()}, itself or in data/, or torchvision's "
            f"{cifar.folder}/; without a data_dir it is downloaded"
        )
    shape = arrays.train_images.shape[1:]
    if shape != (3, 32, 32):
        raise DataError(
            f"{cifar.name} in {data_dir} has images of (channels, height, width) {shape}, but must have (3, 32, 32): "
            "other images are data set 'parquet'"
        )
    if arrays.class_count not in (0, cifar.num_classes):
        raise DataError(f"{data_dir} names {arrays.class_count} classes, but {cifar.name} has {cifar.num_classes}")
    return raw_data(
        cifar.name,
        arrays,
        num_classes=cifar.num_classes,
        mean=cifar.mean,
        std=cifar.std,
        pad=4,
        flip=True,
        source=source,
        notes=notes,
        class_names=names,
    )


def require_downloaded(cifar: Cifar) -> None:
    """Raise AbsentData if the data set would have to be downloaded."""
    root = cache_dir() / "data"
    if any(not (root / cifar.folder / name).exists() for name in cifar.files):
        raise AbsentData(f"{cifar.name} is not in {root}: a run downloads it, or set data_dir")


def _downloaded(cifar: Cifar, root: Path) -> Arrays:
    """Read the files in ``root``, downloading missing or truncated ones first; one process at a time."""
    try:
        with one_at_a_time(root / f"{cifar.folder}.lock"):
            with suppress(DataError):  # missing or truncated: torchvision then downloads what it needs
                return _unpickled(cifar, root)
            _download(cifar, root)
            return _unpickled(cifar, root)
    except _DOWNLOAD_ERRORS as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise AbsentData(
            f"{cifar.name} is not in {root} and cannot be downloaded: put it there, or name its folder as "
            f"data_dir ({reason})"
        ) from error


def _unpickled(cifar: Cifar, root: Path) -> Arrays:
    """Read torchvision's files through the cache; their md5 is verified before they are unpickled."""
    files = [root / cifar.folder / name for name in cifar.files]
    missing = [file.name for file in files if not file.exists()]
    if missing:
        raise AbsentData(f"{files[0].parent} lacks {', '.join(missing)}, but must have all files: extract it again")
    return cached(source_key(files, "torchvision", cifar.name), partial(_unpickle, cifar, root))


def _unpickle(cifar: Cifar, root: Path) -> Arrays:
    from torchvision.datasets.utils import check_integrity

    dataset = _torchvision(cifar)
    meta = (dataset.meta["filename"], dataset.meta["md5"])
    for name, md5 in [*dataset.train_list, *dataset.test_list, meta]:
        file = root / cifar.folder / name
        if not check_integrity(str(file), md5):
            raise DataError(f"{file} is missing or damaged: its md5 must be {md5}; extract or download it again")
    train, test = dataset(root, train=True), dataset(root, train=False)
    images = [np.ascontiguousarray(split.data.transpose(0, 3, 1, 2)) for split in (train, test)]  # [N, C, H, W]
    labels = [np.asarray(split.targets, dtype=np.int64) for split in (train, test)]
    return Arrays(images[0], labels[0], images[1], labels[1])


def _download(cifar: Cifar, root: Path) -> None:
    _torchvision(cifar)(root, download=True)


def _torchvision(cifar: Cifar) -> Any:
    from torchvision import datasets

    return getattr(datasets, cifar.torchvision_class)
