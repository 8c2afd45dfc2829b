"""List image files in one folder per class, in an order that does not depend on the file system."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from trials.data.raw import LabelArray
from trials.errors import DataError

SUFFIXES = (".jpeg", ".jpg", ".png")


class ImageFile(NamedTuple):
    """An image file. ``name``: path below the data set's folder, with slashes."""

    name: str
    size_bytes: int
    mtime_ns: int


@dataclass(frozen=True)
class Listing:
    """The files of one split and their labels."""

    files: tuple[ImageFile, ...]
    labels: LabelArray

    @classmethod
    def of(cls, files: Iterable[tuple[ImageFile, int]]) -> Listing:
        pairs = list(files)
        return cls(tuple(f for f, _ in pairs), np.array([label for _, label in pairs], dtype=np.int64))

    @property
    def names(self) -> list[str]:
        return [file.name for file in self.files]


def class_folders(split: Path) -> dict[str, Path]:
    """Folders in ``split`` by name, sorted; empty if ``split`` does not exist."""
    return {f.name: f for f in sorted(split.iterdir()) if _is_class(f)} if split.is_dir() else {}


def _is_class(folder: Path) -> bool:
    return folder.is_dir() and not folder.name.startswith(".")


def images_in(folder: Path, root: Path) -> list[ImageFile]:
    """Image files in ``folder``, sorted by name; other files (lists of boxes, for example) are skipped.

    Raises DataError if there are none.
    """
    files = []
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.lower().endswith(SUFFIXES) and not entry.name.startswith("."):
                stat = entry.stat()
                files.append(ImageFile(f"{folder.relative_to(root).as_posix()}/{entry.name}", *_facts(stat)))
    if not files:
        raise DataError(f"{folder} holds no images ({', '.join(SUFFIXES)}), but must: extract the data set again")
    return sorted(files)


def _facts(stat: os.stat_result) -> tuple[int, int]:
    return stat.st_size, stat.st_mtime_ns


def must_agree(split: Path, classes: Iterable[str], train: Mapping[str, int]) -> None:
    """Raise DataError unless a split has folders for exactly the training classes."""
    found = set(classes)
    missing, surplus = sorted(train.keys() - found), sorted(found - train.keys())
    if missing or surplus:
        what = f"lacks {_few(missing)}" if missing else f"has {_few(surplus)}, which training lacks"
        raise DataError(
            f"{split} has {len(found)} classes and training {len(train)}, but both must have the same: it {what}; "
            "extract the data set again"
        )


def _few(names: Sequence[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def folder_digest(*splits: Listing, mtimes: bool = False) -> str:
    """Return 16 hex digits of a sha256 over names, sizes and labels, and with ``mtimes`` also modification times."""
    total = hashlib.sha256()
    for split in splits:
        for file, label in zip(split.files, split.labels.tolist(), strict=True):
            total.update(json.dumps([*(file if mtimes else file[:2]), label]).encode())
        total.update(b"\n")
    return total.hexdigest()[:16]
