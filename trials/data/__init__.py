"""Data sets by name: ``load_data`` reads one, once per process; ``to_loader`` yields its batches on a device."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from trials.data.device import OnDevice
from trials.data.encoded import EncodedData
from trials.data.loader import Batch, Loader, Source
from trials.data.raw import IMAGENET_MEAN, IMAGENET_STD, RawData
from trials.data.sets.cifar import CIFAR10, CIFAR100, load_cifar
from trials.data.sets.digits import load_digits
from trials.data.sets.imagenet import load_imagenet
from trials.data.sets.parquet import load_parquet
from trials.data.sets.tinyimagenet import load_tinyimagenet
from trials.data.streamed import Streamed
from trials.errors import DataError, unknown_name

__all__ = [
    "DATASETS",
    "Batch",
    "EncodedData",
    "Loader",
    "OnDevice",
    "RawData",
    "Source",
    "Streamed",
    "load_data",
    "normalised_as_imagenet",
    "require_data",
    "to_loader",
]

DATASETS: dict[str, Callable[[Path | None], Source]] = {
    "digits": load_digits,
    "cifar10": partial(load_cifar, CIFAR10),
    "cifar100": partial(load_cifar, CIFAR100),
    "tinyimagenet": load_tinyimagenet,
    "imagenet": partial(load_imagenet, crop_size=224, resize=256),
    "parquet": load_parquet,
}

_loaded: dict[tuple[str, Path | None], Source] = {}
_loading = threading.Lock()


def load_data(name: str, data_dir: str | None = None) -> Source:
    """Return the data set ``name`` (a key of ``DATASETS``) from ``data_dir``; read once per process, then cached.

    Raises DataError for an unknown name, a folder that is missing or does not hold the data set, and damaged data.
    """
    if name not in DATASETS:
        raise DataError(unknown_name("data set", name, DATASETS))
    folder = None if data_dir is None else Path(data_dir).expanduser().absolute()
    if folder is not None and not folder.is_dir():
        what = "not a folder" if folder.exists() else "missing"
        raise DataError(f"data_dir is '{folder}', which is {what}: it must be the folder that holds {name}")
    with _loading:
        if (name, folder) not in _loaded:
            _loaded[name, folder] = DATASETS[name](folder)
        return _loaded[name, folder]


def to_loader(
    source: Source,
    *,
    device: torch.device | str,
    dtype: torch.dtype = torch.float32,
    val_fraction: float,
    split_seed: int,
    channels_last: bool = False,
) -> Loader:
    """Return a loader of ``source`` on ``device``: from device memory for RawData, else through worker processes."""
    options: dict[str, Any] = {
        "device": device,
        "dtype": dtype,
        "val_fraction": val_fraction,
        "split_seed": split_seed,
        "channels_last": channels_last,
    }
    return OnDevice(source, **options) if isinstance(source, RawData) else Streamed(source, **options)


def normalised_as_imagenet(source: Source) -> Source:
    """Return ``source`` with ImageNet's mean and standard deviation, which some published code uses for CIFAR-10.

    Raises DataError if the images are not RGB.
    """
    if source.in_channels != 3:
        raise DataError(
            f"normalise is 'imagenet', but {source.name} has {source.in_channels} channels: leave normalise out"
        )
    return replace(source, mean=IMAGENET_MEAN, std=IMAGENET_STD)


def require_data(name: str, data_dir: str | None = None) -> None:
    """Load the data set, so that any DataError is raised now. Takes as long as :func:`load_data`, once per process."""
    load_data(name, data_dir)
