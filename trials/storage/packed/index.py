"""The columns of a part's index: what each trial is, and where its rows and its checkpoint lie."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

_ROWS = pa.list_(
    pa.struct([
        ("table", pa.string()), ("name", pa.string()),
        ("shape", pa.int64()), ("offset", pa.int64()), ("length", pa.int64()),
    ])
)  # fmt: skip
_CHECKPOINT = pa.struct([
    ("name", pa.string()), ("archive", pa.string()), ("offset", pa.int64()), ("length", pa.int64()),
])  # fmt: skip
INDEX = pa.schema([
    ("trial", pa.string()), ("config", pa.binary()), ("state", pa.binary()), ("stamp", pa.list_(pa.int64())),
    ("rows", _ROWS), ("checkpoint", _CHECKPOINT),
])  # fmt: skip

_STAMP = 4
"""Numbers of a stamp: a time and a size, of two files."""


def require_index(index: Any) -> Any:
    """Return an index as it is.

    Raises:
        ValueError: a column is missing, of another type, or lacks a value that every trial has.
    """
    for column in INDEX:
        found = index.schema.field(column.name).type if column.name in index.column_names else None
        if found is None or not found.equals(column.type):
            raise ValueError(f"its column {column.name} is of type {found}, but must be of type {column.type}")
    for name in ("trial", "config", "state", "stamp", "rows"):
        if index[name].null_count:
            raise ValueError(f"its column {name} lacks values")
    numbers = pc.list_flatten(index["stamp"])
    if numbers.null_count or pc.any(pc.not_equal(pc.list_value_length(index["stamp"]), _STAMP)).as_py():
        raise ValueError(f"its column stamp does not hold {_STAMP} numbers for each trial")
    _require_whole(pc.list_flatten(index["rows"]), "rows")
    _require_whole(index["checkpoint"].filter(index["checkpoint"].is_valid()), "checkpoint")
    return index


def _require_whole(structs: Any, name: str) -> None:
    """Raise ValueError if a struct, or a value in it, is null."""
    if structs.null_count or any(column.null_count for column in structs.combine_chunks().flatten()):
        raise ValueError(f"its column {name} lacks values")
