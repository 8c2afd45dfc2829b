"""Read one Parquet file of images: find its image and label columns, and iterate over its rows."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from trials.data.raw import LabelArray
from trials.errors import DataError

IMAGE_NAMES = ("image", "img")
_ROWS_AT_ONCE = 1024


@dataclass(frozen=True)
class Columns:
    """Names of the image and label columns; ``class_count`` is 0 if the file does not name the classes."""

    image: str
    label: str
    class_count: int


def read_rows(file: Path, columns: Columns) -> Iterator[tuple[list[bytes | None], LabelArray]]:
    """Yield chunks of (encoded images, labels int64). Raises DataError for a missing label or a damaged file."""
    with _opened(file) as parquet:
        for batch in parquet.iter_batches(batch_size=_ROWS_AT_ONCE, columns=[columns.image, columns.label]):
            labels = batch.column(columns.label)
            if labels.null_count:
                raise DataError(f"{file} has rows without a {columns.label!r}, but every image must have one")
            images = batch.column(columns.image).field("bytes").to_pylist()
            yield images, labels.to_numpy().astype(np.int64)


def row_count(file: Path) -> int:
    """Return the number of rows from the file's footer. Raises DataError for a damaged file."""
    with _opened(file) as parquet:
        return int(parquet.metadata.num_rows)


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


def find_columns(file: Path, label_names: Sequence[str]) -> Columns:
    """Find the image column (structs with ``bytes``) and the label column (integer); several are resolved by name.

    Raises DataError if there is no such column, or several of which none has an expected name.
    """
    import pyarrow.types as types

    with _opened(file) as parquet:
        schema = parquet.schema_arrow
    images = [f.name for f in schema if types.is_struct(f.type) and f.type.get_field_index("bytes") >= 0]
    labels = [f.name for f in schema if types.is_integer(f.type)]
    image = _choose(file, "image (a struct with 'bytes')", images, IMAGE_NAMES)
    label = _choose(file, "label (an integer)", labels, label_names)
    return Columns(image, label, _class_count(file, schema.metadata or {}, label))


def _choose(file: Path, what: str, candidates: list[str], names: Sequence[str]) -> str:
    for name in names:
        if name in candidates:
            return name
    if len(candidates) == 1:
        return candidates[0]
    found = ", ".join(candidates) or "none"
    raise DataError(f"{file} has {what} columns: {found}; it must have one, or one named {' or '.join(names)}")


def _class_count(file: Path, metadata: dict[bytes, bytes], label: str) -> int:
    """Number of class names in the metadata (a JSON list ``class_names``, else Hugging Face's features), 0 if none."""
    try:
        if b"class_names" in metadata:
            return len(json.loads(metadata[b"class_names"]))
        features = json.loads(metadata.get(b"huggingface", b"{}")).get("info", {}).get("features", {})
        return len(features.get(label, {}).get("names", []))
    except (ValueError, TypeError, AttributeError) as error:
        raise DataError(f"{file} has metadata with unreadable class names: write it again ({error})") from error
