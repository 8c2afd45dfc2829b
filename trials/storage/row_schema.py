"""Row files: rows as an Arrow table, and back.

A column has one type. Values of another one stand in a column beside it: text in ``NAME:text``, and what neither int64
nor float64 holds (true and false among numbers, lists, mappings, long integers) in ``NAME:json``, as JSON.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa

from trials.storage.rows import Row

_NATIVE = {bool: pa.bool_(), float: pa.float64(), str: pa.string()}
_PLAIN = {bool, int, float, str, list, dict}


def rows_as_table(rows: Sequence[Row]) -> pa.Table:
    """Rows as a table with the columns of all rows, not only the first."""
    columns: dict[str, pa.Array] = {}
    for name in dict.fromkeys(name for row in rows for name in row):
        columns |= _columns_of(name, [row.get(name) for row in rows])
    return pa.table(columns)


def table_as_rows(table: pa.Table) -> list[Row]:
    """The rows of :func:`rows_as_table`; a column that mixes int and float has become float."""
    rows: list[Row] = table.to_pylist()
    for name in table.column_names:
        base, _, kind = name.rpartition(":")
        if kind in ("text", "json") and base in table.column_names:
            for row in rows:
                value = row.pop(name)
                if value is not None:
                    row[base] = json.loads(value) if kind == "json" else value
    return rows


def _columns_of(name: str, values: Sequence[Any]) -> dict[str, pa.Array]:
    """A column's values, and those that stand beside it, by column name."""
    kinds = {type(value) for value in values if value is not None}
    if len(kinds) == 1 and (native := _NATIVE.get(*kinds)):
        return {name: pa.array(values, native)}
    if kinds == {list} and all(
        isinstance(one, str) for value in values for one in value or ()
    ):  # also if all are empty
        return {name: pa.array(values, pa.list_(pa.string()))}
    if not kinds or not kinds <= _PLAIN:
        return {name: pa.array(values)}
    return _split(name, values)


def _split(name: str, values: Sequence[Any]) -> dict[str, pa.Array]:
    numbers = {i: value for i, value in enumerate(values) if type(value) in (int, float)}
    real = any(isinstance(value, float) or (not _is_int64(value) and fits_float64(value)) for value in numbers.values())
    held = {
        i: float(value) if real else value
        for i, value in numbers.items()
        if (fits_float64 if real else _is_int64)(value)
    }
    text = {i: value for i, value in enumerate(values) if isinstance(value, str)}
    others = {i: json.dumps(value) for i, value in enumerate(values) if not (value is None or i in held or i in text)}
    own = _spread(held, len(values), pa.float64() if real else pa.int64()) if held else pa.nulls(len(values))
    beside = {":text": text, ":json": others}
    found = {f"{name}{end}": _spread(part, len(values), pa.string()) for end, part in beside.items() if part}
    return {name: own, **found}


def _spread(values: Mapping[int, Any], length: int, kind: pa.DataType) -> pa.Array:
    return pa.array([values.get(i) for i in range(length)], kind)


def _is_int64(value: int) -> bool:
    return -(2**63) <= value < 2**63


def fits_float64(value: float) -> bool:
    """Whether float64 holds a number as it is."""
    try:
        return isinstance(value, float) or int(float(value)) == value
    except OverflowError:
        return False
