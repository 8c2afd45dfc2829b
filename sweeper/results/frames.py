"""A sweep's tables as pandas DataFrames."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pandas as pd
import pyarrow as pa

from sweeper.columns import COLUMNS, FLAG, TEXTS, WHOLE
from sweeper.results.arrow_tables import is_whole, natural
from sweeper.results.column_types import base_of, together
from trials.storage.place import Place


@dataclass(frozen=True, eq=False)
class SweepTables:
    """A sweep as tables; docs/tables.md documents their columns.

    Attributes:
        path: the sweep's folder.
        trials: one row per trial, sorted by id.
        epochs: one row per (trial, stage, level, epoch).
        layers: one row per (trial, stage, level, layer).
        allocations: one row per (trial, step, episode, layer).
        lineage: one row per (cell, generation, member) of population based training.
        damaged: a line per file that could not be read; the tables lack its content.
    """

    path: Place
    trials: pd.DataFrame
    epochs: pd.DataFrame
    layers: pd.DataFrame
    allocations: pd.DataFrame
    lineage: pd.DataFrame = field(default_factory=pd.DataFrame)
    damaged: tuple[str, ...] = ()


def frame_of(name: str, table: Any) -> pd.DataFrame:
    """Return the table ``name`` as a DataFrame; integer and boolean columns are nullable, lists are Python's.

    Columns that stand beside another one (:mod:`sweeper.results.column_types`) are put back into it: it then has the
    type that holds all of its values, in the end text.
    """
    split = {base for column in table.column_names if (base := base_of(column))}
    numbers = {column: table[column].cast(WHOLE) for column in table.column_names if is_whole(table, column)}
    arrays = {column: numbers.get(column, table[column]) for column in table.column_names}
    parts = {column: arrays[column].to_pylist() for column in arrays if {column, base_of(column)} & split}
    others = {base_of(column) or column for column in table.column_names} - COLUMNS[name].keys()
    columns = {
        column: natural(together(parts, column)) if column in split else arrays[column]
        for column in (*COLUMNS[name], *sorted(others))
    }
    whole = pa.table(columns)
    frame: pd.DataFrame = whole.to_pandas(types_mapper={WHOLE: pd.Int64Dtype(), FLAG: pd.BooleanDtype()}.get)
    for column in (column.name for column in whole.schema if column.type == TEXTS):
        frame[column] = pd.Series(whole[column].to_pylist(), index=frame.index, dtype=object)
    return frame
