"""Data sets by name, read once per process: ``load`` reads one, ``OnDevice`` puts it on the device and batches it."""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path

from trials.data.cifar import CIFAR10, CIFAR100, load_cifar
from trials.data.device import Batch, OnDevice
from trials.data.digits import load_digits
from trials.data.parquet import load_parquet
from trials.data.raw import RawData
from trials.errors import DataError, unknown_name

__all__ = ["DATASETS", "Batch", "OnDevice", "RawData", "check", "load"]

DATASETS: dict[str, Callable[[Path | None], RawData]] = {
    "digits": load_digits,
    "cifar10": partial(load_cifar, CIFAR10),
    "cifar100": partial(load_cifar, CIFAR100),
    "parquet": load_parquet,
}

_loaded: dict[tuple[str, Path | None], RawData] = {}
_loading = threading.Lock()


def load(name: str, data_dir: str | None = None) -> RawData:
    """The data set ``name`` (one of ``DATASETS``) from ``data_dir``; read once per process, then the same object.

    Raises DataError for an unknown name, a folder that is missing or holds no such data, and damaged data.
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


def check(name: str, data_dir: str | None = None) -> None:
    """Raise the DataError that :func:`load` would raise. Costs what loading costs, once per process."""
    load(name, data_dir)
