"""Number the classes alike in all files of a Parquet data set: the first training file's order holds for all.

1. Class names are read from every file. Where the files have the same names in another order, labels are mapped onto
   the order of the first training file that names them. Other names are refused.
2. A file that names no classes numbers them as the others do; a label out of range contradicts that, and so do others
   that have different orders.
3. Labels that are text are the classes' names. Without names in a file's metadata, the classes are the texts that occur
   in training, in sorted order.
4. Booleans are 0 and 1.
5. Integers (or whole floats) are 0..C-1. They are read as 1..C, and 1 is subtracted, if no file has a label below 1 and
   the training labels are exactly 1..C or, where C is known, end with C.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from trials.data.folders import told_apart
from trials.data.parquet_columns import few
from trials.data.parquet_file import LabelColumn, ParquetHeader
from trials.data.raw import LabelArray
from trials.errors import DataError


@dataclass(frozen=True, eq=False)
class NumberedLabels:
    """Labels int64 [N] of both splits; ``class_count`` is 0 if the files do not say how many classes there are, and
    ``names`` are the classes', empty if the files only number them."""

    train: LabelArray
    test: LabelArray
    class_count: int
    names: tuple[str, ...] = ()


def common_class_names(headers: Sequence[ParquetHeader]) -> tuple[str, ...]:
    """Class names in the order of the first file that has any; empty if none has.

    Raises DataError if another file has other names, takes its labels or images from another column, or has numbers
    without names where the others have different orders.
    """
    _require_columns(headers)
    named = [header for header in headers if header.columns.class_names]
    for header in named[1:]:
        wanted, found = named[0].columns.class_names, header.columns.class_names
        more, less = [sorted(set(a) - set(b)) for a, b in ((found, wanted), (wanted, found))]
        if more or less:
            less, more = told_apart(less, more)
            differ = " and ".join([*([f"has {few(more)}"] if more else []), *([f"lacks {few(less)}"] if less else [])])
            raise DataError(
                f"{header.file} {differ} among the names of its classes, unlike {named[0].file}, but all files must "
                "name the same: write the same names into both"
            )
    _require_order(headers, named)
    return named[0].columns.class_names if named else ()


def _require_columns(headers: Sequence[ParquetHeader]) -> None:
    """Raise DataError if labels come from several columns, or images from one where another file's column is there too.

    A file that has only another name for its images is read; one that has both, or had the choice, may mean others.
    """
    first = headers[0]
    for header in headers:
        if header.columns.label != first.columns.label:
            raise DataError(
                f"{header.file} has its labels in {header.columns.label!r} and {first.file} in "
                f"{first.columns.label!r}, but it must be one column: name it as label_column (data set 'parquet')"
            )
    read = {header.columns.image: header for header in headers}
    for header in headers:
        image = header.columns.image
        if other := next((name for name in header.columns.images if name != image and name in read), None):
            raise DataError(
                f"{header.file} has images in {image!r} and {other!r}, of which {image!r} is read, but "
                f"{other!r} in {read[other].file}: name the column that holds the same images in all files as "
                "image_column (data set 'parquet')"
            )


def _require_order(headers: Sequence[ParquetHeader], named: Sequence[ParquetHeader]) -> None:
    """Raise DataError if a file has numbers without names, and the others name their classes in different orders."""
    other = next((h for h in named if h.columns.class_names != named[0].columns.class_names), None)
    silent = next((h for h in headers if not h.columns.class_names and h.columns.kind != "text"), None)
    if other is not None and silent is not None:
        raise DataError(
            f"{silent.file} names no classes, but {named[0].file} and {other.file} number theirs in different orders, "
            "so its labels could mean either: write the names into its metadata as 'class_names'"
        )


def number_labels(
    train: Sequence[LabelColumn], test: Sequence[LabelColumn], class_count: int | None = None
) -> NumberedLabels:
    """Number the labels by the rules above. ``class_count``: C, if it is known without the files.

    Raises DataError, naming the file, for labels out of range, text that is no class, and files that contradict each
    other.
    """
    columns = [*train, *test]
    names = common_class_names([column.header for column in columns])
    if texts := [column for column in columns if _kind(column) == "text"]:
        _require_names(columns, texts[0], names)
        names = names or tuple(sorted({text for column in train for text in column.texts}))
    known = len(names) or (2 if all(_kind(column) == "bool" for column in columns) else 0)
    first = _first_label(train, test, known or class_count or 0)
    count = known or (max(int(column.codes.max(initial=0)) for column in train) if first else 0)
    for column in columns:
        if _kind(column) != "text" and count and len(column.codes):
            _check_range(column, first, count)
    labels = [[_mapped(column, names, first) for column in split] for split in (train, test)]
    return NumberedLabels(np.concatenate(labels[0]), np.concatenate(labels[1]), known, names)


def _kind(column: LabelColumn) -> str:
    return column.header.columns.kind


def _require_names(columns: Sequence[LabelColumn], text: LabelColumn, names: tuple[str, ...]) -> None:
    """Raise DataError if numbers without names stand beside text: nothing says which class they mean."""
    for column in columns:
        if _kind(column) != "text" and not column.header.columns.class_names:
            raise DataError(
                f"{column.header.file} has numbers as labels and {text.header.file} text, but numbers need the "
                "classes' names: write text into both, or the names into the metadata as 'class_names'"
            )


def _first_label(train: Sequence[LabelColumn], test: Sequence[LabelColumn], known: int) -> int:
    """0 or 1: the number of the first class. ``known``: C, or 0."""
    if any(_kind(column) == "bool" for column in (*train, *test)):
        return 0
    training, testing = ([c.codes for c in split if _kind(c) != "text" and len(c.codes)] for split in (train, test))
    if not training or min(int(codes.min()) for codes in (*training, *testing)) < 1:
        return 0
    present = np.unique(np.concatenate(training))
    return int(present[-1] == known if known else present[0] == 1 and len(present) == present[-1])


def _check_range(column: LabelColumn, first: int, count: int) -> None:
    """Raise DataError unless the labels of a file are among the ``count`` from ``first`` on."""
    low, high = int(column.codes.min()), int(column.codes.max())
    if low < first or high >= first + count:
        raise DataError(
            f"{column.header.file} labels run from {low} to {high}, but must be in {first}..{first + count - 1} for "
            f"{count} classes: renumber them, or leave out the rows without a class"
        )


def _mapped(column: LabelColumn, names: tuple[str, ...], first: int) -> LabelArray:
    """The labels of a file as positions in ``names``, or as they are if there are no names."""
    file = column.header.file
    if not names or not len(column.codes):
        return column.codes - first
    position = {name: label for label, name in enumerate(names)}
    if _kind(column) == "text":
        own, codes = column.texts, column.codes
        if unknown := [text for text in own if text not in position]:
            raise DataError(
                f"{file} has the label {unknown[0]!r}, but the classes, as training has them, are {few(names)}: "
                "correct it, or remove its rows"
            )
    else:
        own, codes = column.header.columns.class_names or names, column.codes - first
    return np.array([position[name] for name in own], dtype=np.int64)[codes]
