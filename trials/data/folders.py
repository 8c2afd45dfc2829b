"""List image files in one folder per class, in an order that does not depend on the file system.

The files and their order are those of torchvision's ``ImageFolder``, but for hidden files and folders, which are left
out. Unlike it, this listing keeps sizes and times (for fingerprints and caches), counts the files that it skips, and
ends in one line where something cannot be read.
"""

from __future__ import annotations

import hashlib
import json
import os
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import NamedTuple

import numpy as np

from trials.data.raw import LabelArray
from trials.errors import DataError, one_line

SUFFIXES = (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp")
"""torchvision's ``IMG_EXTENSIONS``, in lower case; importing torchvision takes longer than listing most data sets."""


MACOSX = "__MACOSX"
"""Folder of hidden files that macOS leaves in archives; it is no class."""


class ImageFile(NamedTuple):
    """An image file, with all that tells it from another one without reading it.

    Attributes:
        name: path below the data set's folder, with slashes.
        size_bytes: its size.
        mtime_ns: when its content was changed, in nanoseconds since 1970.
        ctime_ns: when the file itself was changed; copying tools can set the former, but not this one.
        inode: its number in the file system: two files may have changed between two ticks of the kernel's clock.
        place: path, without links, of the folder that it lies in; if it is a link, of what it leads to.
    """

    name: str
    size_bytes: int
    mtime_ns: int
    ctime_ns: int
    inode: int
    place: str


class Found(NamedTuple):
    """What one folder holds: its images, and the names (below the data set's folder) of the files that are not read."""

    images: list[ImageFile]
    unread: list[str]


@dataclass(frozen=True)
class Listing:
    """The files of one split and their labels.

    ``unread`` and ``outside`` are the names of files that are not read: in class folders, and beside them.
    """

    files: tuple[ImageFile, ...]
    labels: LabelArray
    unread: tuple[str, ...] = ()
    outside: tuple[str, ...] = ()

    @classmethod
    def of(
        cls, files: Iterable[tuple[ImageFile, int]], unread: Iterable[str] = (), outside: Iterable[str] = ()
    ) -> Listing:
        pairs = list(files)
        labels = np.array([label for _, label in pairs], dtype=np.int64)
        return cls(tuple(f for f, _ in pairs), labels, tuple(unread), tuple(outside))

    @property
    def names(self) -> list[str]:
        return [file.name for file in self.files]


def list_split(split: Path, root: Path, classes: Mapping[str, int], ignored: tuple[str, ...] = ()) -> Listing:
    """List the images of the folders ``classes`` in ``split``, by class and then by name.

    ``ignored``: ends of names of files that belong to the data set and are no images; they are not counted as unread.
    Raises DataError as :func:`images_in`.
    """
    found = {name: images_in(split / name, root, ignored) for name in classes}
    return Listing.of(
        ((file, classes[name]) for name in found for file in found[name].images),
        (name for each in found.values() for name in each.unread),
        _beside(split, root, ignored),
    )


def class_folders(split: Path) -> dict[str, Path]:
    """Folders in ``split`` by name, sorted; hidden ones and ``MACOSX`` are left out. Empty if ``split`` does not exist.

    Raises DataError for a link that leads nowhere: a class would be lost.
    """
    if not split.is_dir():
        return {}
    visible = [path for path in sorted(_read_folder(split)) if not path.name.startswith(".") and path.name != MACOSX]
    require_whole_links(visible)
    return {path.name: path for path in visible if path.is_dir()}


def require_whole_links(paths: Iterable[Path]) -> None:
    """Raise DataError if one of ``paths`` is a link that leads nowhere: a class or a split would be lost."""
    if broken := next((path for path in paths if path.is_symlink() and not path.exists()), None):
        raise DataError(f"{broken} is a link that leads nowhere: restore what it names, or remove it")


def _read_folder(folder: Path) -> list[Path]:
    try:
        return list(folder.iterdir())
    except OSError as error:
        raise DataError(f"{folder} cannot be read: make it readable ({error.strerror})") from error


def _beside(split: Path, root: Path, ignored: tuple[str, ...]) -> list[str]:
    """Names of the files in ``split`` itself, and ``MACOSX``; without hidden ones and those that end in ``ignored``."""
    paths = [path for path in _read_folder(split) if not path.name.startswith(".")]
    files = [path for path in paths if not path.is_dir() or path.name == MACOSX]
    return sorted(path.relative_to(root).as_posix() for path in files if not path.name.endswith(ignored))


def images_in(folder: Path, root: Path, ignored: tuple[str, ...] = ()) -> Found:
    """Image files in ``folder`` and its subfolders, sorted by folder and then by name; links are followed.

    ``ignored``: as for :func:`list_split`.

    Raises:
        DataError: there are none, one of them is empty or cannot be read, or a link leads to a folder around it.
    """
    found = Found([], [])
    try:
        for prefix, place, entry in _files_below(folder, folder.relative_to(root).as_posix(), ()):
            if not entry.name.lower().endswith(SUFFIXES) or not _is_file_or_link(entry):
                if not entry.name.endswith(ignored):
                    found.unread.append(f"{prefix}/{entry.name}")
                continue
            stat = entry.stat()
            if not stat.st_size:
                raise DataError(f"{entry.path} is an empty file: restore it, or remove it")
            own = os.path.realpath(entry.path) if entry.is_symlink() else place
            name = f"{prefix}/{entry.name}"
            times = (stat.st_mtime_ns, stat.st_ctime_ns)
            found.images.append(ImageFile(name, stat.st_size, *times, stat.st_ino, own))
    except OSError as error:
        raise DataError(
            f"{error.filename or folder} cannot be read: restore it, or remove it ({error.strerror})"
        ) from error
    if not found.images:
        raise DataError(f"{folder} holds no images ({', '.join(SUFFIXES)}), but must: fill it, or remove the class")
    found.images.sort(key=lambda file: file.name.rpartition("/"))
    found.unread.sort()
    return found


def _is_file_or_link(entry: os.DirEntry[str]) -> bool:
    """Whether it is no socket, pipe or device. A link that leads nowhere counts, to be found when it is read."""
    return entry.is_file() or entry.is_symlink()


def _files_below(
    folder: Path, prefix: str, above: tuple[tuple[int, int], ...]
) -> Iterator[tuple[str, str, os.DirEntry[str]]]:
    """Yield the files in ``folder`` and below, hidden ones left out.

    Each has its folder's name below the data set, and its folder's path without links, before it.
    ``above``: device and inode of the folders on the way here.
    """
    stat = folder.stat()
    here = (stat.st_dev, stat.st_ino)
    if here in above:
        raise DataError(f"{folder} is a link to a folder that holds it, so its images have no end: remove the link")
    place = os.path.realpath(folder)
    with os.scandir(folder) as entries:
        visible = [entry for entry in entries if not entry.name.startswith(".")]
    for entry in visible:
        if entry.is_dir():
            yield from _files_below(Path(entry.path), f"{prefix}/{entry.name}", (*above, here))
        else:
            yield prefix, place, entry


def notes_on(root: Path, *splits: Listing, beside: Sequence[str] = ()) -> tuple[str, ...]:
    """One line that counts the files which are not read, by their suffixes; nothing if there are none.

    ``beside``: names of files that lie beside the splits.
    """
    unread = [name for split in splits for name in split.unread]
    outside = [*(name for split in splits for name in split.outside), *beside]
    if not unread and not outside:
        return ()
    rule = f"An image lies in the folder of its class and ends in {', '.join(SUFFIXES)}"
    return (f"{not_read(root, unread, outside)}. {rule}",)


def not_read(root: Path, unread: Sequence[str], outside: Sequence[str] = ()) -> str:
    """The beginning of a note that counts files by their suffixes, and those ``outside`` of the class folders."""
    suffixes = Counter(PurePath(name).suffix.lower() or "without a suffix" for name in unread)
    counts = [f"{count} {suffix}" for suffix, count in sorted(suffixes.items(), key=lambda item: (-item[1], item[0]))]
    counts += [f"{len(outside)} outside of the class folders"] if outside else []
    total, first = len(unread) + len(outside), one_line([*unread, *outside][0])
    files = "file is" if total == 1 else "files are"
    return f"{total} {files} not read in {one_line(str(root))}: {_few(counts)}; the first is {first}"


def must_agree(
    split: Path, classes: Iterable[str], train: Mapping[str, int], way_out: str = "extract the data set again"
) -> None:
    """Raise DataError, ending in ``way_out``, unless a split has folders for exactly the training classes."""
    found = set(classes)
    missing, surplus = sorted(train.keys() - found), sorted(found - train.keys())
    if missing or surplus:
        missing, surplus = told_apart(missing, surplus)
        lacks = [f"lacks {_few(missing)}"] if missing else []
        has = [f"has {_few(surplus)}, which training lacks"] if surplus else []
        raise DataError(
            f"{split} has {len(found)} classes and training {len(train)}, but both must have the same: it "
            f"{' and '.join(lacks + has)}; {way_out}"
        )


def told_apart(missing: Sequence[str], surplus: Sequence[str]) -> tuple[list[str], list[str]]:
    """Both lists of names, with escapes if some look alike: letters with accents have two forms in Unicode."""
    forms = [{unicodedata.normalize("NFC", name) for name in names} for names in (missing, surplus)]
    if forms[0] & forms[1]:
        return [name.encode("unicode_escape").decode() for name in missing], [
            name.encode("unicode_escape").decode() for name in surplus
        ]
    return list(missing), list(surplus)


def _few(names: Sequence[str]) -> str:
    return ", ".join(map(one_line, names[:3])) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def folder_digest(*splits: Listing, places: bool = False) -> str:
    """Return 16 hex digits of a sha256 over names, sizes and labels.

    With ``places`` also over the files' times, inodes and places, so that equal names and sizes are not taken for equal
    images.
    """
    total = hashlib.sha256()
    for split in splits:
        for file, label in zip(split.files, split.labels.tolist(), strict=True):
            total.update(json.dumps([*(file if places else file[:2]), label]).encode())
        total.update(b"\n")
    return total.hexdigest()[:16]
