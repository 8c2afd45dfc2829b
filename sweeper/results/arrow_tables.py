"""Build Arrow tables from rows, and concatenate tables whose columns or types differ."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from sweeper.columns import COLUMNS, REAL, TEXT, TEXTS, WHOLE


def from_rows(rows: Sequence[Mapping[str, Any]]) -> Any:
    """Rows as an Arrow table. A column that mixes numbers and texts becomes text."""
    names = dict.fromkeys(name for row in rows for name in row)
    return pa.table({name: _array([row.get(name) for row in rows]) for name in names})


def _array(values: list[Any]) -> Any:
    if any(isinstance(value, list) for value in values):
        return pa.array(values, TEXTS)  # also where all are empty
    try:
        return pa.array(values)
    except (pa.ArrowInvalid, pa.ArrowTypeError):
        return pa.array([None if v is None else v if isinstance(v, str) else json.dumps(v) for v in values], TEXT)


def stack(tables: Mapping[str, Any]) -> Any:
    """Concatenate the trials' tables, given by trial id, and add the column ``trial``."""
    stacked = concat(list(tables.values()))
    index = np.repeat(np.arange(len(tables)), [len(table) for table in tables.values()])
    return stacked.append_column("trial", pa.array(list(tables), TEXT).take(pa.array(index)))


def concat(tables: Sequence[Any]) -> Any:
    """Concatenate tables with different columns. Whole and real numbers become float64, numbers and texts text."""
    try:
        return pa.concat_tables(tables, promote_options="permissive")
    except (pa.ArrowInvalid, pa.ArrowTypeError):
        return pa.concat_tables(_agree(tables), promote_options="permissive")


def _agree(tables: Sequence[Any]) -> list[Any]:
    """The tables, with columns whose types cannot be unified cast to text."""
    types: dict[str, set[Any]] = {}
    for table in tables:
        for column in table.schema:
            types.setdefault(column.name, set()).add(column.type)
    unlike = {
        name for name, kinds in types.items() if len(kinds - {pa.null()}) > 1 and kinds - {pa.null(), WHOLE, REAL}
    }
    return [
        table.cast(pa.schema([f.with_type(TEXT) if f.name in unlike else f for f in table.schema])) for table in tables
    ]


def finish(name: str, parts: Sequence[Any]) -> Any:
    """Build one table from its parts: documented columns, then others by name; rows by trial, then as they came."""
    known = COLUMNS[name]
    table = concat(parts) if parts else pa.table({column: pa.nulls(0) for column in known})
    table = table.take(pc.sort_indices(table["trial"]))  # stable
    others = sorted(c for c in set(table.column_names) - set(known) if not _is_group(table, c))
    columns = {}
    for column in (*known, *others):
        values = table[column] if column in table.column_names else pa.nulls(len(table))
        wanted = known.get(column, TEXT if name == "trials" else REAL)
        if pa.types.is_null(values.type) or (column in known and wanted == REAL and values.type == WHOLE):
            values = values.cast(wanted)
        columns[column] = values
    return pa.table(columns).combine_chunks()


def _is_group(table: Any, column: str) -> bool:
    """Whether a column only says that a group of fields is absent: ``finetune: null`` beside ``finetune.epochs``."""
    return table[column].null_count == len(table) and any(c.startswith(f"{column}.") for c in table.column_names)
