"""Which Parquet files hold the training and the test images, in Hugging Face's layouts."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from trials.data.folders import SUFFIXES, not_read, require_whole_links
from trials.data.parquet_columns import Wanted
from trials.data.parquet_file import lacks_labels, read_header
from trials.errors import DataError, listed, one_line

TEST_SPLITS = ("test", "validation", "valid", "val", "dev")
_SHARD = re.compile(r"-(\d+)-of-(\d+)")


def layout(test_splits: Sequence[str] = TEST_SPLITS) -> str:
    """File names to expect, for messages: ``train-*.parquet and test-*.parquet (or validation-*, ...)``."""
    others = ", ".join(f"{name}-*" for name in test_splits[1:])
    return f"train-*.parquet and {test_splits[0]}-*.parquet (or {others}), or folders of these names"


@dataclass(frozen=True)
class ParquetFiles:
    """The files of both splits, each in shard order.

    Attributes:
        folder: where the splits lie.
        unread: names of other splits that could be the test split.
        unlabelled: names of those before the test split, which have no labels.
    """

    folder: Path
    train: tuple[Path, ...]
    test: tuple[Path, ...]
    unread: tuple[str, ...] = ()
    unlabelled: tuple[str, ...] = ()

    @property
    def notes(self) -> tuple[str, ...]:
        """Lines for the user on splits, and on Parquet files and images beside them, that are not read, if any."""
        test = one_line(str(self.test[0]))
        without = tuple(
            f"the split {name} beside {test} has no labels and is not read: the images to test on are those"
            for name in self.unlabelled
        )
        others = tuple(
            f"the split {name} beside {test} is not read: the images to test on are those, and the images to "
            "validate on are drawn from the training images"
            for name in self.unread
        )
        if not (names := self._files_beside()):
            return without + others
        rule = "A split is SPLIT.parquet, SPLIT-*.parquet or the files right in SPLIT/, in one place"
        return (*without, *others, f"{not_read(self.folder, names)}. {rule}")

    def _files_beside(self) -> list[str]:
        """Names of files that could hold images and belong to no split that is read or named, hidden ones left out."""
        known, named, found = {*self.train, *self.test}, (*self.unread, *self.unlabelled), set()
        for top in {self.folder, *(file.parent for file in known)}:
            for place, folders, files in os.walk(top):
                folders[:] = [name for name in folders if not name.startswith(".")]
                found |= {Path(place, name) for name in files if not name.startswith(".") and _could_hold_images(name)}
        names = sorted(path.relative_to(self.folder).as_posix() for path in found - known)
        return [
            name for name in names if not any(_is_of(split, name) or name.startswith(f"{split}/") for split in named)
        ]


def find_files(data_dir: Path, test_splits: Sequence[str] = TEST_SPLITS) -> ParquetFiles | None:
    """Find the files of a training and a test split; None if there are none.

    They lie in ``data_dir``, in its ``data/``, or in the only folder in one of these that holds any (a configuration,
    such as ``default/``). The test split is the first of ``test_splits`` that has files; the others are not read.
    Raises DataError if only one of both splits exists, if several folders could be meant, and for a split before the
    first that cannot be read, is a link that leads nowhere or an empty folder: another would take its place.
    """
    for folder in _places(data_dir, ("train", *test_splits)):
        train = shards(folder, "train")
        present = [name for name in test_splits if _holds(folder, [name])]
        test = shards(folder, present[0]) if present else ()
        if train or test:
            empty = test_splits[: test_splits.index(present[0])] if present else test_splits
            _require_filled(folder, empty if train else ("train",))
        if train and test:
            return ParquetFiles(folder, train, test, tuple(present[1:]))
        if train or test:
            only = "training" if train else "test"
            raise DataError(f"{folder} has only the {only} split, but must have {layout(test_splits)}")
    return None


def find_labelled(data_dir: Path, wanted: Wanted, test_splits: Sequence[str] = TEST_SPLITS) -> ParquetFiles | None:
    """As :func:`find_files`, but of several test splits the first one that has labels is taken.

    Labels of test splits are often kept secret: they are then -1 or null, or their column is missing. If no split has
    labels the first one is given, which :func:`require_labels` refuses. ``wanted``: the columns to read.
    """
    files = find_files(data_dir, test_splits)
    if files is None or not files.unread:
        return files
    label = read_header(files.train[0], wanted).columns.label
    names = [name for name in test_splits if _holds(files.folder, [name])]
    for number, name in enumerate(names):
        test = shards(files.folder, name)
        if not lacks_labels(test, label, wanted):
            return replace(files, test=test, unread=tuple(names[number + 1 :]), unlabelled=tuple(names[:number]))
    return files


def require_labels(files: ParquetFiles, wanted: Wanted) -> None:
    """Raise DataError, naming the file, if the test split has no labels at all."""
    label = read_header(files.train[0], wanted).columns.label
    if lacks_labels(files.test, label, wanted):
        raise DataError(
            f"{files.test[0]} has no labels in {label!r} (missing, null or -1), but images to test on must have them: "
            "put files with labels in its place, for example with rows that you take out of the training files"
        )


def find_test_files(data_dir: Path, names: Sequence[str]) -> ParquetFiles | None:
    """As :func:`find_files`, but training files may be absent; those beside the test files are given all the same."""
    for folder in _places(data_dir, names):
        if present := [name for name in names if _holds(folder, [name])]:
            _require_filled(folder, names[: names.index(present[0])])
            return ParquetFiles(folder, shards(folder, "train"), shards(folder, present[0]), tuple(present[1:]))
    return None


def _require_filled(folder: Path, splits: Sequence[str]) -> None:
    """Raise DataError if one of ``splits``, which have no Parquet files in ``folder``, is there all the same.

    Files of another kind are no split; those that are left of a download (``.incomplete``) are not counted.
    """
    paths = [folder / split for split in splits]
    require_whole_links(paths)
    for path in filter(Path.is_dir, paths):
        names = [name for name in _names(path) if not name.startswith(".")]
        unfinished = [name for name in names if name.endswith(".incomplete")]
        if len(names) == len(unfinished):
            found = f"no whole file, but {listed(sorted(unfinished), 3)}" if unfinished else "no file"
            raise DataError(f"{path} holds {found}, and another split must not take its place: fill it, or remove it")


def shards(folder: Path, split: str) -> tuple[Path, ...]:
    """Files of one split in ``folder`` or its subfolder ``split``, in shard order; empty if there are none.

    Raises DataError if there are some in both, or unless those whose names are numbered (``-00000-of-00005``) are all
    there, once and without others.
    """
    files = [file for file in _parquet_files(folder) if _is_of(split, file.name)]
    below = _parquet_files(folder / split)
    if files and below:
        raise DataError(
            f"{folder} has {split} files ({files[0].name}) and more in {split}/ ({below[0].name}), but a split must "
            "lie in one place: remove those that do not belong"
        )
    files = files or below
    _require_whole(split, files)
    return tuple(files)


def _require_whole(split: str, files: Sequence[Path]) -> None:
    """Raise DataError unless the names of the files, where they are numbered, are those of one whole set."""
    found = [_SHARD.search(file.name) for file in files]
    numbers = sorted(int(match[1]) for match in found if match)
    totals = {int(match[2]) for match in found if match}
    if not totals:
        return
    whole = list(range(len(files))), list(range(1, len(files) + 1))
    if totals != {len(files)} or numbers not in whole:
        raise DataError(
            f"{files[0].parent} has {len(files)} {split} files ({listed(file.name for file in files)}), but their "
            f"names promise {' or '.join(map(str, sorted(totals)))}, each with another number: fetch the missing ones, "
            "or remove those that do not belong"
        )


def _parquet_files(folder: Path) -> list[Path]:
    """Parquet files right in ``folder``, sorted by name; none if there is no such folder."""
    names = [name for name in _names(folder) if name.endswith(".parquet") and not name.startswith(".")]
    return [folder / name for name in sorted(names)]


def _names(folder: Path) -> list[str]:
    """What is in ``folder``; nothing if it is no folder. Raises DataError if it may not be read."""
    try:
        return [path.name for path in folder.iterdir()] if folder.is_dir() else []
    except PermissionError as error:
        raise DataError(f"{folder} cannot be read: make it readable ({error.strerror})") from error


def _may_be_read(folder: Path) -> bool:
    """Whether it is a folder that may be read; lost+found, for example, may not."""
    try:
        return folder.is_dir() and next(folder.iterdir(), folder) is not None
    except PermissionError:
        return False


def _could_hold_images(name: str) -> bool:
    """Whether a file of this name is an image or Parquet, also an unfinished one or one in capitals."""
    return ".parquet" in name.lower() or name.lower().endswith(SUFFIXES)


def _is_of(split: str, name: str) -> bool:
    return name.endswith(".parquet") and (name == f"{split}.parquet" or name.startswith(f"{split}-"))


def _places(data_dir: Path, splits: Sequence[str]) -> Iterator[Path]:
    """Yield the folders in which files of ``splits`` may lie, in order of preference."""
    yield data_dir
    yield data_dir / "data"
    for folder in (data_dir, data_dir / "data"):
        below = [folder / name for name in sorted(_names(folder)) if not name.startswith(".") and name not in splits]
        holding = [place for place in below if _may_be_read(place) and _holds(place, splits)]
        if len(holding) > 1:
            raise DataError(
                f"{folder} has Parquet files in several folders ({', '.join(place.name for place in holding)}), but a "
                f"trial reads one of them: name it as data_dir, for example {holding[0]}"
            )
        yield from holding


def _holds(place: Path, splits: Sequence[str]) -> bool:
    names = _names(place)
    return any(
        any(_is_of(split, name) for name in names) or (split in names and _parquet_files(place / split))
        for split in splits
    )
