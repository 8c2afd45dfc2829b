"""One table of many trials' rows in one Parquet file, from which each trial's table comes back as it was.

Trials may have different columns, or one column in different types. The file has a column for each name and type: the
first type of a name under the name itself, further ones as ``NAME|2``. Its metadata list the *shapes*: which columns a
trial's table had, in order, and where they lie. A trial's rows lie together.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from trials.errors import shown

TRIAL_COLUMN = "trial"
"""Column with the name of the trial that a row is of, for other readers of the file."""

_SHAPES = b"shapes"


@dataclass(frozen=True)
class RowSpan:
    """Where a trial's rows lie: the number of their shape, the first row, and how many there are."""

    shape: int
    offset: int
    length: int


def stack_rows(tables: Mapping[str, Any]) -> tuple[Any, dict[str, RowSpan]]:
    """Put the tables of trials, given by name, into one table; return it and where each one lies in it."""
    alike: dict[str, list[str]] = {}
    for trial, table in tables.items():
        alike.setdefault(_described(table.schema), []).append(trial)
    columns: dict[tuple[str, str], str] = {}
    taken = {TRIAL_COLUMN}
    shapes: list[list[tuple[str, str | None]]] = []
    stacked: list[Any] = []
    spans: dict[str, RowSpan] = {}
    offset = 0
    for trials in alike.values():
        schema = tables[trials[0]].schema
        shape = [(one.name, _placed(one, columns, taken)) for one in schema]
        for trial in trials:
            spans[trial] = RowSpan(len(shapes), offset, len(tables[trial]))
            offset += len(tables[trial])
        names = pa.array([trial for trial in trials for _ in range(len(tables[trial]))], pa.string())
        together = pa.concat_tables([tables[trial] for trial in trials])
        own = {place: together[i] for i, (_, place) in enumerate(shape) if place is not None}
        stacked.append(pa.table({TRIAL_COLUMN: names, **own}))
        shapes.append(shape)
    found = pa.concat_tables(stacked, promote_options="default").combine_chunks()
    return found.replace_schema_metadata({_SHAPES: json.dumps(shapes)}), spans


def shapes_of(table: Any) -> list[Sequence[tuple[str, str | None]]]:
    """The shapes of a table that :func:`stack_rows` made. Raises ValueError or TypeError if it has none."""
    return list(json.loads((table.schema.metadata or {}).get(_SHAPES, b"null")))


def rows_at(table: Any, shapes: Sequence[Sequence[tuple[str, str | None]]], span: RowSpan, trial: str) -> Any:
    """The table of ``trial`` as it was. Raises ValueError, KeyError or IndexError if the file lacks it."""
    if span.offset < 0 or span.length < 0 or span.shape < 0 or span.offset + span.length > len(table):
        raise ValueError(f"rows {span.offset} to {span.offset + span.length} of {len(table)}")
    part = table.slice(span.offset, span.length)
    if others := [name for name in part[TRIAL_COLUMN].unique().to_pylist() if name != trial]:
        raise ValueError(f"rows {span.offset} to {span.offset + span.length} are of {shown(others[0])}, not of {trial}")
    arrays = [pa.nulls(span.length) if place is None else part[place] for _, place in shapes[span.shape]]
    return pa.table(arrays, names=[name for name, _ in shapes[span.shape]])


def _described(schema: Any) -> str:
    return json.dumps([(one.name, str(one.type)) for one in schema])


def _placed(one: Any, columns: dict[tuple[str, str], str], taken: set[str]) -> str | None:
    """The column of the stacked table for a field; None if all its values are null."""
    if pa.types.is_null(one.type):
        return None
    key = (one.name, str(one.type))
    if key not in columns:
        name, number = one.name, 1
        while name in taken:
            number += 1
            name = f"{one.name}|{number}"
        columns[key] = name
        taken.add(name)
    return columns[key]
