"""What the rows of a table must hold, beyond the types of their columns: reports order and compare by some of them."""

from __future__ import annotations

import json

import pyarrow as pa
import pyarrow.compute as pc

from trials.errors import DamagedFile, shown
from trials.storage.place import Place
from trials.storage.rows import BESIDE_ENDS

_PLACES = {"epochs": ("level", "epoch"), "layers": ("level",)}
"""By table, numbers that every row has."""

_NAMES = {"epochs": ("stage",), "layers": ("stage", "layer")}
"""By table, texts that every row has."""

_JSON = ":json"

_NUMBERS = frozenset({
    *("epoch", "level", "seconds", "train_loss", "train_accuracy", "val_loss", "val_accuracy", "test_loss"),
    *("test_accuracy", "cost", "gradient_evaluations", "density", "sparsity", "kept", "prunable", "total", "macs"),
    *("flops", "parameters"),
})  # fmt: skip
"""Columns that the trial itself fills, with numbers only."""


def require_columns(schema: pa.Schema, path: Place) -> None:
    """Refuse columns of types that :func:`trials.storage.row_schema.rows_as_table` never makes, and text for numbers.

    Raises:
        DamagedFile: there is such a column, or two have one name.
    """
    seen: set[str] = set()
    for column in schema:
        name, kind = column.name, column.type
        if name in seen:
            raise DamagedFile(f"{path} has two columns {shown(name)}")
        seen.add(name)
        number = pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_null(kind)
        listed = pa.types.is_list(kind) and (pa.types.is_string(kind.value_type) or pa.types.is_null(kind.value_type))
        if not (number or listed or pa.types.is_boolean(kind) or pa.types.is_string(kind)):
            raise DamagedFile(f"{path} has the column {shown(name)} of type {kind}, which no trial writes")
        if name in _NUMBERS and not number:
            raise DamagedFile(f"{path} has the column {shown(name)} of type {kind}, but it holds numbers")


def require_content(content: pa.Table, table: str, path: Place) -> pa.Table:
    """Return a table as it is.

    Raises:
        DamagedFile: a row has no place in it (stage, level, epoch, layer), or a column of JSON holds something else.
    """
    for name in content.column_names:
        column = content[name]
        base = next((name.removesuffix(end) for end in BESIDE_ENDS if name.endswith(end)), None)
        if base in (*_PLACES.get(table, ()), *_NAMES.get(table, ())):
            raise DamagedFile(f"{path} has the column {shown(name)}, which no trial writes")
        if name in _PLACES.get(table, ()) and not _all_finite(column):
            raise DamagedFile(f"{path} has rows of {table} without {name}")
        if name in _NAMES.get(table, ()) and not (pa.types.is_string(column.type) and not column.null_count):
            raise DamagedFile(f"{path} has rows of {table} without {name}")
        if name == "warnings" and table == "epochs" and not _are_lists(column.type):
            raise DamagedFile(f"{path} has the column {shown(name)} of type {column.type}, but it holds lists")
        if name.endswith(BESIDE_ENDS[1:]) and not _are_texts(column.type):
            raise DamagedFile(f"{path} has the column {shown(name)} of type {column.type}, but it holds text")
        if name.endswith(_JSON):
            _require_json(column, name, path)
    return content


def _all_finite(column: pa.ChunkedArray) -> bool:
    if len(column) == 0:
        return True
    if pa.types.is_null(column.type) or column.null_count:
        return False
    return pc.all(pc.is_finite(column)).as_py() is True


def _are_lists(kind: pa.DataType) -> bool:
    return bool(pa.types.is_list(kind) or pa.types.is_null(kind))


def _are_texts(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_null(kind))


def _require_json(column: pa.ChunkedArray, name: str, path: Place) -> None:
    try:
        for text in column.to_pylist():
            if text is not None:
                json.loads(text)
    except (ValueError, RecursionError) as error:
        raise DamagedFile(f"{path} has the column {shown(name)}, which is no JSON ({error})") from None
