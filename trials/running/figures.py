"""Figures that stages add to rows: their names and values are checked, and made plain for the files."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from torch import Tensor

from trials.config.figure_names import is_unicode, name_taken
from trials.errors import UserError, listed, shown
from trials.methods import Stage
from trials.storage.rows import RESULT, TAKEN_COLUMNS, Row

_VALUES = "numbers, text, true, false, None, and lists and mappings of them"


def stage_columns(stage: Stage, others: Mapping[str, Any]) -> Row:
    """Return what a stage adds to its rows of ``epochs``, as plain values.

    Args:
        others: the columns that the trial adds beside those of every row.

    Raises:
        UserError: a column has a name that is taken, or a value that rows cannot hold.
    """
    said = f"{type(stage).__name__}.columns()"
    return _with_measures(_plain_row(stage.columns(), said, TAKEN_COLUMNS["epochs"] | others.keys()), said)


def layer_columns(stage: Stage) -> dict[str, Row]:
    """As :func:`stage_columns`, for the rows of ``layers``, by weight name."""
    said, found = f"{type(stage).__name__}.layer_columns()", stage.layer_columns()
    if not isinstance(found, Mapping):
        raise UserError(f"{said} returned {shown(found)}: it must return a mapping of weight names to columns")
    return {name: _with_measures(_plain_row(row, said, TAKEN_COLUMNS["layers"]), said) for name, row in found.items()}


def plain_rows(rows: Iterable[Row], table: str) -> list[Row]:
    """Return rows that a stage has written whole, as plain values.

    Raises:
        UserError: a column has a name that is taken, or a value that rows cannot hold.
    """
    return [_plain_row(row, f"a row of {table}", TAKEN_COLUMNS[table]) for row in rows]


def reported(reports: Sequence[str], row: Row, method: str) -> Row:
    """Return the figures that a method reports, from a trial's last row.

    Raises:
        UserError: the row lacks one.
    """
    if missing := [name for name in reports if name not in row]:
        raise UserError(
            f"{method} reports {listed(missing)}, but columns() of its stage {row['stage']!r} returned no such column: "
            "return it there (None where it has no value), or leave it out of reports"
        )
    return {name: row[name] for name in reports}


def _plain_row(found: object, said: str, reserved: Collection[str]) -> Row:
    if not isinstance(found, Mapping):
        raise UserError(f"{said} returned {shown(found)}: it must return a mapping of column names to values")
    for name in found:
        if taken := name_taken(name, reserved):
            raise UserError(f"{said} has the column {shown(name)}, {taken}: rename it")
    return {name: _plain(value, f"{said} has the column {name!r}") for name, value in found.items()}


def _with_measures(row: Row, said: str) -> Row:
    """A row whose measured figures, where a stage gives its own, are numbers: reports divide by them."""
    if wrong := [name for name in RESULT if name in row and not _is_measure(row[name])]:
        raise UserError(
            f"{said} has the column {wrong[0]!r}, which is {shown(row[wrong[0]])}, but takes the place of a measured "
            "figure: give a finite number, or rename it"
        )
    return row


def _is_measure(value: object) -> bool:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return False
    return -(2**63) <= value < 2**63 if isinstance(value, int) else math.isfinite(value)


def _plain(value: object, said: str) -> Any:
    try:
        return _value(value)
    except RecursionError:
        problem = "is nested too deeply"
    except ValueError as error:
        problem = str(error)
    raise UserError(f"{said}, which {problem}: columns hold {_VALUES}")


def _value(value: object) -> Any:
    """Return ``value`` in the types of JSON. Raises ValueError if it has no equal there."""
    if isinstance(value, (np.generic, np.ndarray, Tensor)) and not isinstance(value, (float, str)):
        if value.ndim:
            raise ValueError(f"is an array of shape {tuple(value.shape)}; write .tolist()")
        item = value.item()
        if isinstance(item, (bool, int, float, str)):
            return item
    elif value is None or isinstance(value, bool):
        return value
    elif isinstance(value, int):
        return _integer(int(value))
    elif isinstance(value, float):
        return float(value)
    elif isinstance(value, str):
        return _text(str.__str__(value))
    elif isinstance(value, (list, tuple)):
        return [_value(one) for one in value]
    elif isinstance(value, Mapping):
        if wrong := [key for key in value if not isinstance(key, str)]:
            raise ValueError(f"has the key {shown(wrong[0])}, but keys must be text; write str(KEY)")
        return {_text(str.__str__(key)): _value(one) for key, one in value.items()}
    raise ValueError(f"is {shown(value)} of type {type(value).__name__}; convert it, for example by float()")


def _integer(value: int) -> int:
    try:
        str(value)
    except ValueError:  # Python's own limit
        raise ValueError(
            f"has more digits than files hold ({value.bit_length()} bits); write float() or str()"
        ) from None
    return value


def _text(value: str) -> str:
    if not is_unicode(value):
        raise ValueError(f"is {shown(value)}, which is not valid Unicode; write it without surrogates")
    return value
