"""The one type that a column's name has, whatever the values of a sweep are; and where a value of another type stands.

A documented column has its documented type, a config field the one that the methods of this package declare. What is
neither (fields and figures of plug-ins) is a number. A value that is not of its column's type is kept in a column
beside it, whose name says its type: ``prune.lr:text`` holds ``auto`` for a trial whose ``prune.lr`` is that.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
from collections.abc import Sequence
from typing import Any

import pyarrow as pa

from sweeper.columns import ALWAYS, FLAG, REAL, SOME, TEXT, TEXTS, TYPE_NAMES, WHOLE, Column, config_columns
from trials.errors import as_unicode
from trials.storage.row_schema import fits_float64

TABLES_SCHEMA = 7
"""Version of the tables, in their files. Increase it when rules of this module change; columns count by themselves."""

BESIDE = {":number": REAL, ":text": TEXT, ":json": TEXT}
"""Types of the columns beside a column, by the end of their names; ``:json`` is for what is neither number nor text."""

_CONFIG = "config."
_PYTHON = {TEXT: str, WHOLE: int, REAL: float, FLAG: bool}
_WHOLE_AT_MOST = 2**63 - 1


@functools.cache
def described_column(table: str, name: str) -> Column:
    """Return type, unit and meaning of a column, known or not. The type depends on the two names alone."""
    if base := base_of(name):
        return Column(name, BESIDE[name.removeprefix(base)], f"{base}, where it is not of that column's type")
    known = ALWAYS[table].get(name) or SOME[table].get(name)
    if known is None and table in ("trials", "lineage"):
        known = _of_config(name) or (_of_config(name.removeprefix(_CONFIG)) if name.startswith(_CONFIG) else None)
    return known or Column(name, REAL, "")


def base_of(name: str) -> str:
    """Return the column that a column stands beside; empty if it stands for itself."""
    base, colon, kind = name.rpartition(":")
    return base if colon + kind in BESIDE else ""


def _of_config(path: str) -> Column | None:
    """The column of a config field; that of an entry of a mapping has the mapping's name, and ``.*``."""
    known = config_columns()
    parts = path.split(".")
    mappings = (".".join([*parts[:n], "*"]) for n in range(len(parts) - 1, 0, -1))
    return known.get(path) or next((known[mapping] for mapping in mappings if mapping in known), None)


@functools.cache
def digest_of_columns() -> str:
    """A hash of all types, units and meanings: tables that were written with others are not read as a cache."""
    every = [*(one for tables in (ALWAYS, SOME) for table in tables.values() for one in table.values())]
    facts = [(one.name, TYPE_NAMES[one.type], one.unit, one.meaning) for one in [*every, *config_columns().values()]]
    return hashlib.sha256(json.dumps([list(ALWAYS), facts]).encode()).hexdigest()[:16]


def placed(table: str, name: str, values: Sequence[Any]) -> dict[str, Any]:
    """Return a column's values as Arrow arrays of their one type, by column name: the column, and those beside it."""
    kind = described_column(table, name).type
    if {type(value) for value in values} <= {_PYTHON.get(kind), type(None)}:
        # an integer of more than 64 bits; a text that no file can hold
        with contextlib.suppress(OverflowError, pa.ArrowInvalid, UnicodeEncodeError):
            return {name: pa.array(values, kind)}
    columns: dict[str, list[Any]] = {name: [None] * len(values)}
    for row, value in enumerate(values):
        if value is None:
            continue
        end, stored = _placed_value(kind, value)
        columns.setdefault(f"{name}{end}", [None] * len(values))[row] = stored
    return {column: pa.array(found, described_column(table, column).type) for column, found in columns.items()}


def _placed_value(kind: Any, value: Any) -> tuple[str, Any]:
    """The end of the name of the column in which a value stands (empty: its own), and the value there."""
    if isinstance(value, str):
        return ("" if kind == TEXT else ":text"), as_unicode(value)
    if isinstance(value, bool):
        return ("", value) if kind == FLAG else (":json", json.dumps(value))
    if isinstance(value, (int, float)):
        if kind == WHOLE and value == value // 1 and abs(value) <= _WHOLE_AT_MOST:
            return "", int(value)
        if fits_float64(value):
            return "" if kind == REAL else ":number", float(value)
    if kind == TEXTS and isinstance(value, list) and all(isinstance(one, str) for one in value):
        return "", [as_unicode(one) for one in value]
    return ("" if kind == TEXT and isinstance(value, (list, tuple, dict)) else ":json"), json.dumps(value)


def written_whole(table: str, name: str, values: Sequence[Any]) -> str:
    """Return the real column of :func:`placed`, if it is not documented and all numbers in it are whole; else nothing.

    Such columns are whole numbers again in DataFrames, as a plug-in wrote them.
    """
    described = described_column(table, name)
    column = name if described.type == REAL else f"{name}:number"
    if described.type == WHOLE or (column == name and described.meaning and not base_of(name)):
        return ""
    numbers = [
        one for one in values if isinstance(one, (int, float)) and not isinstance(one, bool) and fits_float64(one)
    ]
    whole = all(isinstance(value, int) and abs(value) <= _WHOLE_AT_MOST for value in numbers)
    return column if numbers and whole else ""


def together(columns: dict[str, list[Any]], name: str) -> list[Any]:
    """Return the values of a column and of those beside it, as :func:`placed` was given them; lists stay JSON text."""
    found: list[Any] = list(columns[name]) if name in columns else [None] * len(next(iter(columns.values())))
    for end in BESIDE:
        for row, value in enumerate(columns.get(f"{name}{end}", ())):
            if value is not None:
                found[row] = _scalar(value) if end == ":json" else value
    return found


def _scalar(text: str) -> Any:
    try:
        value = json.loads(text)
    except ValueError:  # a config's own key ends like that, which was allowed once
        return text
    return text if isinstance(value, (list, dict)) else value
