"""Read one Parquet file of images: its footer, its rows, its labels."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from trials.data.parquet_columns import Columns, Wanted, find_columns
from trials.data.raw import LabelArray
from trials.errors import DataError

_ROWS_AT_ONCE = 1024
_LARGEST_WHOLE = 2**53  # floats above it skip whole numbers


@dataclass(frozen=True)
class ParquetHeader:
    """What the footer of a file says: number of rows, columns, class names."""

    file: Path
    rows: int
    columns: Columns


@dataclass(frozen=True, eq=False)
class LabelColumn:
    """The labels of one file, in order of its rows.

    Attributes:
        codes: int64 [N], the labels as they stand in the file; positions in ``texts`` if they are text.
        texts: the labels that occur, sorted, if they are text; else empty.
    """

    header: ParquetHeader
    codes: LabelArray
    texts: tuple[str, ...] = ()


def read_header(file: Path, wanted: Wanted) -> ParquetHeader:
    """Read the file's footer. Raises DataError for a damaged file, and as :func:`find_columns` does."""
    with _opened(file) as parquet:
        schema, rows = parquet.schema_arrow, int(parquet.metadata.num_rows)
    return ParquetHeader(file, rows, find_columns(file, schema, wanted))


def read_rows(header: ParquetHeader) -> Iterator[tuple[list[bytes | None], Any]]:
    """Yield chunks of (encoded images, labels as a ``pyarrow.Array``), the latter for :func:`label_column`.

    Raises DataError for a damaged file.
    """
    columns = header.columns
    with _opened(header.file) as parquet:
        for batch in parquet.iter_batches(batch_size=_ROWS_AT_ONCE, columns=[columns.image, columns.label]):
            images = batch.column(columns.image)
            yield (images if columns.plain else images.field("bytes")).to_pylist(), batch.column(columns.label)


def read_labels(header: ParquetHeader) -> LabelColumn:
    """Read only the label column. Raises DataError for a damaged file, and as :func:`label_column` does."""
    label = header.columns.label
    with _opened(header.file) as parquet:
        chunks = [batch.column(label) for batch in parquet.iter_batches(columns=[label])]
    return label_column(header, chunks)


def lacks_labels(files: Sequence[Path], label: str, wanted: Wanted) -> bool:
    """Whether no row of ``files`` has a label: all are null, empty or -1 in the column ``label``, or it is missing.

    A file that may have its labels in another column does not lack them. Without any rows the answer is no. Raises
    DataError for a damaged file.
    """
    rows = 0
    for file in files:
        with _opened(file) as parquet:
            rows += parquet.metadata.num_rows
            names = parquet.schema_arrow.names
            if label not in names and _has_other_labels(file, parquet.schema_arrow, label, wanted):
                return False
            found = parquet.read(columns=[label]).column(label).to_pylist() if names.count(label) == 1 else []
        if label in names and not (found and all(_is_no_label(value) for value in found)):
            return False
    return rows > 0


def _has_other_labels(file: Path, schema: Any, label: str, wanted: Wanted) -> bool:
    """Whether a column of a usual name is there or, where ``label`` was found by its type, one of such a type."""
    if any(name in schema.names for name in wanted.label_names):
        return True
    if label == wanted.label_column or label in wanted.label_names:
        return False
    try:
        return bool(find_columns(file, schema, wanted).label)
    except DataError:
        return False


def _is_no_label(value: Any) -> bool:
    return value is None or value == -1 or value == "" or value != value  # the last holds for NaN only


def label_column(header: ParquetHeader, chunks: Sequence[Any]) -> LabelColumn:
    """Join the chunks of a file's label column (``pyarrow.Array``).

    Raises DataError for rows without a label (null, NaN or empty text) and for numbers that are not whole.
    """
    plain = [chunk.dictionary_decode() if hasattr(chunk, "dictionary_decode") else chunk for chunk in chunks]
    _require(header, not any(chunk.null_count for chunk in plain))
    if header.columns.kind != "text":
        return LabelColumn(header, np.concatenate([np.zeros(0, np.int64), *(_whole(header, chunk) for chunk in plain)]))
    values = np.array([text for chunk in plain for text in chunk.to_pylist()], dtype=object)
    texts, codes = np.unique(values, return_inverse=True)
    _require(header, "" not in texts)
    return LabelColumn(header, codes.astype(np.int64), tuple(texts.tolist()))


def _require(header: ParquetHeader, complete: bool) -> None:
    if not complete:
        label = header.columns.label
        raise DataError(f"{header.file} has rows without a {label!r}, but every image must have one: remove those rows")


def _whole(header: ParquetHeader, column: Any) -> LabelArray:
    """Labels int64 [N] of an Arrow array of numbers or booleans. Raises DataError unless all are whole and fit."""
    values = column.to_numpy(zero_copy_only=False)
    if values.dtype.kind == "f":
        _require(header, not np.isnan(values).any())
    if values.dtype.kind in "fu":
        wrong = values[(values != np.floor(values)) | (np.abs(values) > _LARGEST_WHOLE)]
        if len(wrong):
            raise DataError(
                f"{header.file} has the label {wrong[0]} in {header.columns.label!r}, but labels must be whole numbers "
                "0..C-1, booleans or text: write the classes' numbers, or name another label_column"
            )
    return values.astype(np.int64)  # type: ignore[no-any-return]  # pyarrow has no types


@contextmanager
def _opened(file: Path) -> Iterator[Any]:
    """Open the file as a ``pyarrow.parquet.ParquetFile``; pyarrow's errors become a DataError that names the file."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(file) as parquet:
            yield parquet
    except (pa.ArrowException, OSError) as error:
        reason = str(error).splitlines()[0]
        raise DataError(
            f"{file} cannot be read as Parquet: it is damaged or cut short, fetch it again ({reason})"
        ) from error
