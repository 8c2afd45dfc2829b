"""ImageNet in two LMDB files, train.lmdb and val.lmdb, as BiP's authors distribute it.

The layout is that of the scripts known as folder2lmdb (also BiP's datasets/lmdb_dataset.py at c51fc35): under every key
the pickle of (encoded image, label), under ``__keys__`` that of the list of keys in order, under ``__len__`` that of
their number. Labels count the class folders in order of their names, as torchvision's ImageFolder does; the files do
not hold the names.
"""

from __future__ import annotations

import logging
import mmap
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from trials.data.cache import cache_dir, one_at_a_time, replacing, source_key
from trials.data.lmdb.btree import BadLmdb, Extent, entries
from trials.data.lmdb.plain_pickle import NotPlain, plain_value
from trials.data.raw import LabelArray
from trials.errors import AbsentData, DataError

_KEYS, _LENGTH = b"__keys__", b"__len__"
_log = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class LmdbImages:
    """Encoded images in an LMDB file: image i is the ``lengths[i]`` bytes from ``starts[i]``."""

    file: Path
    starts: npt.NDArray[np.int64]  # [N]
    lengths: npt.NDArray[np.int64]  # [N]

    def __len__(self) -> int:
        return len(self.starts)

    def where(self, index: int) -> str:
        return f"{self.file} image {index}"

    def read(self, index: int) -> bytes:
        length = int(self.lengths[index])
        try:
            with self.file.open("rb") as stream:
                stream.seek(int(self.starts[index]))
                content = stream.read(length)
        except OSError as error:
            raise DataError(f"{self.where(index)} cannot be read: restore the file ({error.strerror})") from error
        if len(content) < length:
            raise DataError(f"{self.where(index)} is cut off: restore the file, which has become shorter")
        return content


def lmdb_files(data_dir: Path) -> tuple[Path, Path] | None:
    """The files of training and validation in a folder; None if it has neither.

    Raises:
        AbsentData: one of them is missing.
    """
    found = [lmdb_of(data_dir, split) for split in ("train", "val")]
    train, val = found
    if train is not None and val is not None:
        return train, val
    if train is None and val is None:
        return None
    there, missing = ("train.lmdb", "val.lmdb") if val is None else ("val.lmdb", "train.lmdb")
    raise AbsentData(f"{data_dir} holds {there} but no {missing}: put both files there")


def lmdb_of(data_dir: Path, split: str) -> Path | None:
    """The LMDB file of a split: ``SPLIT.lmdb``, or data.mdb in a folder of that name; None if there is none."""
    path = data_dir / f"{split}.lmdb"
    return path / "data.mdb" if path.is_dir() else path if path.exists() else None


def read_lmdb(file: Path) -> tuple[LmdbImages, LabelArray]:
    """Return where the images of a file lie, and their labels, which need the beginning and end of each record.

    Cached in ``lmdb/`` of the cache directory, since ImageNet has 1.3 million records. No image is read.

    Raises:
        DataError: the file is missing, damaged, of another layout, or holds other objects than images and labels.
    """
    try:
        index = cache_dir() / "lmdb" / f"{source_key([file], 'lmdb')}.npz"
        if (found := _cached(index)) is None:
            with file.open("rb") as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as content:
                found = _scanned(content, file)
            _keep(index, found)
    except (OSError, ValueError) as error:  # ValueError: mmap of an empty file
        raise DataError(f"{file} cannot be read: restore it ({error})") from error
    return LmdbImages(file, found["starts"], found["lengths"]), found["labels"]


def _scanned(content: mmap.mmap, file: Path) -> dict[str, npt.NDArray[np.int64]]:
    try:
        records = dict(entries(content))
        keys = _keys(content, records, file)
        table = np.empty((3, len(keys)), dtype=np.int64)
        for i, key in enumerate(keys):
            if key not in records:
                raise DataError(f"{file} lists the key {key!a}, but has no such record: restore it")
            table[:, i] = _record(content, records[key], f"{file} record {key!a}")
    except BadLmdb as bad:
        raise DataError(f"{file} {bad}: restore it, or give the images in class folders") from None
    return dict(zip(("starts", "lengths", "labels"), table, strict=True))


def _keys(content: mmap.mmap, records: dict[bytes, Extent], file: Path) -> list[bytes]:
    """The keys of the images, in order."""
    if _KEYS not in records:
        raise DataError(
            f"{file} has no record {_KEYS.decode()!r}, so its layout is not that of folder2lmdb: give the images in "
            "class folders"
        )
    listed = _plain(content, records[_KEYS], f"{file} record {_KEYS.decode()!r}")
    if not isinstance(listed, list | tuple) or not all(isinstance(key, Extent | str) for key in listed):
        raise DataError(f"{file} record {_KEYS.decode()!r} must be a list of keys: write the file anew")
    keys = [k.encode() if isinstance(k, str) else content[k.start : k.start + k.length] for k in listed]
    count = (
        _plain(content, records[_LENGTH], f"{file} record {_LENGTH.decode()!r}") if _LENGTH in records else len(keys)
    )
    if type(count) is not int or count != len(keys) or not keys:
        says = f"{count} images" if type(count) is int else "something else than a number of them"
        raise DataError(f"{file} lists {len(keys)} keys, but says that it has {says}: write the file anew")
    if len(set(keys)) < len(keys):
        raise DataError(f"{file} lists a key twice, so an image would count twice: write the file anew")
    return keys


def _record(content: mmap.mmap, span: Extent, where: str) -> tuple[int, int, int]:
    """Where the image of a record begins, its length in bytes, and its label."""
    value = _plain(content, span, where)
    pair = value if isinstance(value, tuple | list) else ()
    if len(pair) != 2 or not isinstance(pair[0], Extent) or type(pair[1]) is not int:
        raise DataError(f"{where} must be a pair of an encoded image and a whole number: write the file anew")
    image, label = pair
    if not image.length:
        raise DataError(f"{where} holds no image: its bytes must be in the file")
    if not 0 <= label < 2**31:
        raise DataError(f"{where} has the label {label}, but labels count the classes from 0: write the file anew")
    return image.start, image.length, label


def _plain(content: mmap.mmap, span: Extent, where: str) -> Any:
    try:
        return plain_value(content, span)
    except NotPlain as reason:
        raise DataError(
            f"{where} {reason}, and a pickle is never executed here: write the file anew with images as bytes and "
            "labels as int"
        ) from None


def _cached(index: Path) -> dict[str, npt.NDArray[np.int64]] | None:
    try:
        with index.open("rb") as stream, np.load(stream, allow_pickle=False) as arrays:
            return {name: arrays[name] for name in ("starts", "lengths", "labels")}
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return None


def _keep(index: Path, found: dict[str, npt.NDArray[np.int64]]) -> None:
    try:
        with one_at_a_time(index.with_suffix(".lock")), replacing(index) as stream:
            np.savez(stream, **found)  # type: ignore[arg-type]
    except (OSError, NotImplementedError) as error:
        _log.warning("the labels of an LMDB file are not cached in %s: %s", index.parent, error)
