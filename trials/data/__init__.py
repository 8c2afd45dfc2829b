"""Data sets by name: ``load_data`` reads one, once per process; ``to_loader`` yields its batches on a device."""

from __future__ import annotations

import inspect
import threading
from collections.abc import Callable, Collection
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, cast

import torch

from trials.data.device import OnDevice
from trials.data.encoded import EncodedData
from trials.data.loader import Batch, Loader, Source
from trials.data.raw import IMAGENET_MEAN, IMAGENET_STD, RawData
from trials.data.sets.cifar import CIFAR10, CIFAR100, load_cifar, require_downloaded
from trials.data.sets.digits import load_digits
from trials.data.sets.folder import load_folder
from trials.data.sets.hugging_face import hugging_face
from trials.data.sets.imagenet import load_imagenet, peek_imagenet
from trials.data.sets.parquet import load_parquet
from trials.data.sets.tinyimagenet import load_tinyimagenet
from trials.data.streamed import Streamed
from trials.data_header import DataHeader
from trials.errors import AbsentData, DataError, UserError
from trials.plugins.blaming import blaming
from trials.plugins.importing import generation
from trials.registry import Registry
from trials.system.user_path import user_path

__all__ = [
    "DATASETS",
    "NO_OPTIONS",
    "Batch",
    "DataKey",
    "DataOptions",
    "EncodedData",
    "Loader",
    "OnDevice",
    "RawData",
    "Source",
    "Streamed",
    "header_of",
    "load_data",
    "normalised",
    "peek_header",
    "published_header",
    "require_data",
    "require_options",
    "to_loader",
]


def _is_loader(found: Any) -> Callable[..., Source]:
    if not callable(found):
        raise TypeError(
            f"that is {found!r}: it must be a function that is called with data_dir (a Path or None) and returns a "
            "RawData or EncodedData; trials.extend.from_torch makes one of torch data sets"
        )
    return cast("Callable[..., Source]", found)


_BUILT_IN: dict[str, Callable[..., Source]] = {
    "digits": load_digits,
    "cifar10": partial(load_cifar, CIFAR10),
    "cifar100": partial(load_cifar, CIFAR100),
    "tinyimagenet": load_tinyimagenet,
    "imagenet": partial(load_imagenet, crop_size=224, resize=256),
    "parquet": load_parquet,
    "folder": load_folder,
}

DATASETS: Registry[Callable[..., Source]] = Registry("datasets", _BUILT_IN, _is_loader, prefixes={"hf": hugging_face})
"""Name -> ``loader(data_dir, **options)``, which returns the data. Also knows those of plug-ins
(:mod:`trials.registry`), and ``hf:OWNER/NAME``."""

PUBLISHED: dict[str, DataHeader] = {
    header.name: header
    for header in (
        DataHeader("digits", 10, 1, (8, 8), 1437),
        DataHeader("cifar10", 10, 3, (32, 32), 50_000),
        DataHeader("cifar100", 100, 3, (32, 32), 50_000),
        DataHeader("tinyimagenet", 200, 3, (64, 64), 100_000),
        DataHeader("imagenet", 1000, 3, (224, 224), 1_281_167),
    )
}
"""Sizes of the data sets whose content is fixed, for checks on a machine that does not have them."""


@dataclass(frozen=True)
class DataOptions:
    """Options of a data set beside its folder: they decide what is read. None leaves the choice to the data set.

    Attributes:
        image_column: name of the column that holds the images.
        label_column: name of the column that holds the labels.
        image_size: side in pixels to which images are resized.
    """

    image_column: str | None = None
    label_column: str | None = None
    image_size: int | None = None

    def given(self) -> dict[str, Any]:
        """The options that are not None, by name."""
        return {name: value for name, value in asdict(self).items() if value is not None}


NO_OPTIONS = DataOptions()

DataKey = tuple[str, str | None, DataOptions]
"""Data set, folder and options, the arguments of :func:`load_data`."""

TAKES: dict[str, tuple[str, ...]] = {
    "parquet": ("image_column", "label_column", "image_size"),
    "folder": ("image_size",),
}
"""By data set, the options that its loader takes as keywords; others take none."""

_loaded: dict[tuple[str, Path | None, DataOptions], Source] = {}
_loading = threading.Lock()


def load_data(name: str, data_dir: str | None = None, options: DataOptions = NO_OPTIONS) -> Source:
    """Return the data set ``name`` (a key of ``DATASETS``) from ``data_dir``; read once per process, then cached.

    Raises DataError for an unknown name, an option that the data set does not have, a folder that is missing or does
    not hold the data set, and damaged data.
    """
    folder = _folder_of(name, data_dir, options)
    loader = _loader_of(name)
    key = (name if DATASETS.built_in(name) else f"{name} {generation()}", folder, options)
    with _loading:
        if key not in _loaded:
            try:
                _loaded[key] = _read(name, loader, folder, options)
            except OSError as error:
                where = error.filename or folder
                raise DataError(f"{name} cannot be read: restore or open {where} ({error})") from error
        return _loaded[key]


def _read(name: str, loader: Callable[..., Source], folder: Path | None, options: DataOptions) -> Source:
    if DATASETS.built_in(name):
        return loader(folder, **options.given())
    with blaming(f"dataset is {name!r}, whose code failed"):
        found: object = loader(folder, **options.given())
    if not isinstance(found, (RawData, EncodedData)):
        raise DataError(
            f"dataset is {name!r}, which returned {type(found).__name__}: it must return a RawData or EncodedData; "
            "trials.extend.from_torch makes one of torch data sets"
        )
    return found


def _loader_of(name: str) -> Callable[..., Source]:
    try:
        return DATASETS.require(name, "data set")
    except UserError as error:
        raise DataError(str(error)) from None


def _folder_of(name: str, data_dir: str | None, options: DataOptions) -> Path | None:
    """Return the data set's folder. Raises DataError for an unknown name or option, and for a missing folder."""
    _loader_of(name)
    require_options(name, options)
    folder = None if data_dir is None else user_path(data_dir, "data_dir").absolute()
    if folder is not None and not folder.is_dir():
        what = "not a folder" if folder.exists() else "missing"
        raise AbsentData(f"data_dir is '{folder}', which is {what}: give the folder of data set {name!r}")
    return folder


def require_options(name: str, options: DataOptions) -> None:
    """Raise DataError unless the data set ``name`` has all options that are given."""
    for option, value in options.given().items():
        if option not in _options_of(name):
            having = " and ".join(sorted(other for other, names in TAKES.items() if option in names)) or "no data set"
            raise DataError(f"{option} is {value!r}, but is an option of {having}, not of {name!r}: leave it out")


def _options_of(name: str) -> Collection[str]:
    """The options that a data set has: of a plug-in, the parameters that have their names."""
    if DATASETS.built_in(name) or name in TAKES:
        return TAKES.get(name, ())
    return inspect.signature(_loader_of(name)).parameters.keys()


def header_of(source: Source) -> DataHeader:
    """The header of a data set that is loaded."""
    return DataHeader(
        source.name,
        source.num_classes,
        source.in_channels,
        source.image_size,
        len(source.train_labels),
        source.fingerprint,
        source.notes,
    )


def published_header(name: str) -> DataHeader | None:
    """The published sizes of a data set, without a fingerprint; None if its content is the user's own."""
    return PUBLISHED.get(name)


def to_loader(
    source: Source,
    *,
    device: torch.device | str,
    dtype: torch.dtype = torch.float32,
    val_fraction: float,
    split_seed: int,
    stratify_split: bool = False,
    channels_last: bool = False,
) -> Loader:
    """Return a loader of ``source`` on ``device``: from device memory for RawData, else through worker processes."""
    options: dict[str, Any] = {
        "device": device,
        "dtype": dtype,
        "val_fraction": val_fraction,
        "split_seed": split_seed,
        "stratify_split": stratify_split,
        "channels_last": channels_last,
    }
    return OnDevice(source, **options) if isinstance(source, RawData) else Streamed(source, **options)


def normalised(source: Source, by: str) -> Source:
    """Return ``source`` with other constants to normalise by.

    Args:
        by: ``dataset`` keeps the data set's own; ``imagenet`` takes ImageNet's, which some published code uses for
            CIFAR-10; ``none`` leaves pixels scaled to 0..1 (mean 0, standard deviation 1).

    Raises:
        DataError: ``imagenet``, but the images are not RGB.
    """
    if by == "dataset":
        return source
    if by == "none":
        return replace(source, mean=(0.0,) * source.in_channels, std=(1.0,) * source.in_channels)
    if source.in_channels != 3:
        raise DataError(
            f"normalise is 'imagenet', but {source.name} has {source.in_channels} channels: leave normalise out"
        )
    return replace(source, mean=IMAGENET_MEAN, std=IMAGENET_STD)


def require_data(name: str, data_dir: str | None = None, options: DataOptions = NO_OPTIONS) -> DataHeader:
    """Load the data set, so that any DataError is raised now, and return its header.

    Takes as long as :func:`load_data`, once per process.
    """
    return header_of(load_data(name, data_dir, options))


def peek_header(name: str, data_dir: str | None = None, options: DataOptions = NO_OPTIONS) -> DataHeader:
    """The header of a data set, at little cost where it would first have to be downloaded or unpacked.

    Of ImageNet in Parquet files that are not unpacked yet only the footers are read; its fingerprint is then None.
    Otherwise the same as :func:`require_data`. Raises DataError as :func:`load_data` does, except for damaged images,
    and AbsentData for what would have to be downloaded.
    """
    folder, loader = _folder_of(name, data_dir, options), _loader_of(name)
    if name in (CIFAR10.name, CIFAR100.name) and folder is None:
        require_downloaded(CIFAR10 if name == CIFAR10.name else CIFAR100)
    if name == "imagenet" and folder is not None:
        sizes = loader.keywords if isinstance(loader, partial) else {}
        if (header := peek_imagenet(folder, **sizes)) is not None:
            return header
    return require_data(name, data_dir, options)
