"""Build Arrow tables from rows. Every column has the type of its name, so that tables of any sweeps fit together."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Container, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from sweeper.columns import COLUMNS, REAL, TEXT, TYPE_NAMES, WHOLE
from sweeper.results.column_types import BESIDE, TABLES_SCHEMA, described_column, placed, written_whole

WRITTEN_WHOLE = {b"written_as": b"whole"}
"""Metadata of a real column, not a documented one, of which all values were written as whole numbers."""


def from_rows(table: str, rows: Sequence[Mapping[str, Any]]) -> Any:
    """Return rows as an Arrow table."""
    columns: dict[str, Any] = {}
    whole: set[str] = set()
    for name in dict.fromkeys(name for row in rows for name in row):
        values = [row.get(name) for row in rows]
        columns |= placed(table, name, values)
        whole.add(written_whole(table, name, values))
    return _marked(columns, whole)


def _marked(columns: Mapping[str, Any], whole: Container[str]) -> Any:
    """A table of these columns, some of which were written as whole numbers."""
    fields = [pa.field(name, c.type, metadata=WRITTEN_WHOLE if name in whole else None) for name, c in columns.items()]
    return pa.table(list(columns.values()), schema=pa.schema(fields))


def is_whole(table: Any, column: str) -> bool:
    """Whether a column was written as whole numbers."""
    return WRITTEN_WHOLE.items() <= (table.field(column).metadata or {}).items()


def stack(table: str, parts: Mapping[str, Any]) -> Any:
    """Concatenate the trials' row files, given by trial id, and add the column ``trial``.

    Files of one trial stay in their order; those of different trials may change places.
    """
    alike: dict[Any, dict[str, Any]] = {}
    for trial, part in parts.items():
        alike.setdefault(part.schema, {})[trial] = part
    return concat(_stack_alike(table, found) for found in alike.values())


def _stack_alike(table: str, parts: Mapping[str, Any]) -> Any:
    stacked = pa.concat_tables(parts.values())
    columns: dict[str, Any] = {}
    whole: set[str] = set()
    for name in stacked.column_names:
        values = stacked[name]
        typed = _typed(table, name, values)
        for column, part in typed.items():  # a row file may have some of the values beside already
            columns[column] = pc.coalesce(columns[column], part) if column in columns else part
        if any(found.type != values.type for found in typed.values()):
            whole.add(written_whole(table, name, _examples(values)))
    index = np.repeat(np.arange(len(parts)), [len(part) for part in parts.values()])
    return _marked({**columns, "trial": pa.array(list(parts), TEXT).take(pa.array(index))}, whole)


def _examples(values: Any) -> list[Any]:
    """The values of a column, of whole numbers only the extreme ones."""
    return list(pc.min_max(values).as_py().values()) if values.type == WHOLE else values.to_pylist()


def _typed(table: str, name: str, values: Any) -> dict[str, Any]:
    """A column of row files by the type of its name."""
    kind = described_column(table, name).type
    number = kind in (WHOLE, REAL) and values.type in (WHOLE, REAL)
    if number or pa.types.is_null(values.type):
        with contextlib.suppress(pa.ArrowInvalid):  # a number that the type does not hold as it is
            return {name: values.cast(kind)}
    if values.type == kind:
        return {name: values}
    return placed(table, name, values.to_pylist())


def concat(tables: Iterable[Any]) -> Any:
    """Concatenate tables with different columns, which are null where they are missing."""
    parts = list(tables)
    table = pa.concat_tables(parts, promote_options="default")
    columns = {name: table[name] for name in table.column_names}
    marked = {name for part in parts for name in part.column_names if is_whole(part, name)}
    return _marked(columns, {name for name in marked if all(_may_be_whole(part, name) for part in parts)})


def _may_be_whole(table: Any, column: str) -> bool:
    return column not in table.column_names or is_whole(table, column) or table[column].null_count == len(table[column])


def finish(name: str, parts: Sequence[Any]) -> Any:
    """Build one table from its parts: documented columns, then others by name; rows by trial, then as they came."""
    known = COLUMNS[name]
    table = concat(parts) if parts else pa.table({"trial": pa.nulls(0, TEXT)})
    table = table.take(pc.sort_indices(table["trial"]))  # stable
    others = sorted(column for column in set(table.column_names) - set(known) if not _says_nothing(table, column))
    columns = {
        column: table[column] if column in table.column_names else pa.nulls(len(table), known[column])
        for column in (*known, *others)
    }
    whole = {column for column in table.column_names if is_whole(table, column)}
    return pa.table(list(columns.values()), schema=_schema(name, columns, whole)).combine_chunks()


def _says_nothing(table: Any, column: str) -> bool:
    """Whether a column only says that a group of fields is absent, or that its values stand in a column beside it.

    ``finetune: null`` beside ``finetune.epochs`` is such a group.
    """
    if table[column].null_count < len(table):
        return False
    others = table.column_names
    return any(c.startswith(f"{column}.") for c in others) or any(f"{column}{end}" in others for end in BESIDE)


def _schema(name: str, columns: Iterable[str], whole: Container[str]) -> Any:
    """The types of a table's columns, with units and meanings as metadata of the fields and of the file."""
    found = {column: described_column(name, column) for column in columns}
    facts = {
        column: {"type": TYPE_NAMES[one.type], **{k: v for k, v in (("unit", one.unit), ("meaning", one.meaning)) if v}}
        for column, one in found.items()
    }
    fields = []
    for column, one in found.items():
        said = {key: fact for key, fact in facts[column].items() if key != "type"}
        if column in whole:
            said |= {key.decode(): value.decode() for key, value in WRITTEN_WHOLE.items()}
        fields.append(pa.field(column, one.type, metadata=said))
    metadata = {"table": name, "tables_schema": str(TABLES_SCHEMA), "columns": json.dumps(facts)}
    return pa.schema(fields, metadata=metadata)


def natural(values: list[Any]) -> Any:
    """Values of several types as one array: whole and real numbers as reals; anything else as text."""
    try:
        return pa.array(values)
    except (pa.ArrowInvalid, pa.ArrowTypeError, OverflowError):
        return pa.array([None if v is None else v if isinstance(v, str) else json.dumps(v) for v in values], TEXT)
