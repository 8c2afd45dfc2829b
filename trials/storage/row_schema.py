"""Types of the columns of a row file."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pyarrow as pa

from trials.storage.rows import Row


def schema_of(rows: Iterable[Row]) -> pa.Schema:
    """Schema with the columns of all rows, not only the first; a column that mixes int and float becomes float64."""
    columns: dict[str, list[Any]] = {}
    for row in rows:
        for name, value in row.items():
            columns.setdefault(name, []).append(value)
    return pa.schema([(name, _type_of(values)) for name, values in columns.items()])


def _type_of(values: list[Any]) -> pa.DataType:
    kinds = {type(value) for value in values if value is not None}
    if kinds == {int, float}:
        return pa.float64()
    if kinds == {list}:  # also where all are empty
        return pa.list_(pa.string())
    return pa.array(values).type
