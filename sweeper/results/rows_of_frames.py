"""Rows of a table as dictionaries of Python's own values."""

from __future__ import annotations

from typing import Any

import pandas as pd

from trials.storage.rows import Row


def rows_of(frame: pd.DataFrame, columns: set[str]) -> list[Row]:
    """Rows of the given columns as dictionaries, with None for missing values."""
    names = [str(column) for column in frame.columns if column in columns]
    values = [_plain_values(frame[name]) for name in names]
    rows = zip(*values, strict=True) if names else [()] * len(frame)
    return [dict(zip(names, row, strict=True)) for row in rows]


def _plain_values(column: pd.Series[Any]) -> list[Any]:
    """A column's values as Python's own types, None where one is missing."""
    missing = column.isna().tolist()
    return [None if gone else value for value, gone in zip(column.tolist(), missing, strict=True)]
