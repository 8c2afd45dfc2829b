"""Rows as JSON: lists of mappings for Vega-Lite, and columns with each text once for the page."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from typing import Any

import pandas as pd

_WHOLE_IN_BROWSERS = 2**53 - 1

_UNSEEN = re.compile(r"\x1b\[[0-?]*[ -/]*[@-~]|[\x00-\x08\x0b-\x1f\x7f-\x9f]")
"""Colours of a terminal, and further characters that no page shows; tabs and ends of lines are kept."""


def readable(text: str, most: int) -> str:
    """A text as a page shows it: at most so many characters, of which the last ones say how many there were."""
    clean = _UNSEEN.sub("", text.replace("\r\n", "\n").replace("\r", "\n"))
    return clean if len(clean) <= most else f"{clean[:most]}… ({len(clean):,} characters)"


def rows_for_vega(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """The rows as mappings of plain values; unknown ones (NaN, NA, infinite) are None."""
    columns = {str(name): [_plain(value) for value in frame[name].tolist()] for name in frame.columns}
    return [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]


def packed(frame: pd.DataFrame, digits: int | None = None, *, exact: bool = False) -> dict[str, Any]:
    """The rows by column, for the page: ``{"rows": n, "columns": {name: values}}``.

    The values of a column with texts that repeat are ``{"texts": [...], "at": [indices]}``.

    Args:
        frame: the rows.
        digits: significant digits of real numbers; None keeps all of them.
        exact: whole numbers that a browser would round, such as seeds of 64 bits, are texts.
    """
    columns = {str(name): frame[name].tolist() for name in frame.columns}
    if exact:
        columns = {name: [_exact(value) for value in values] for name, values in columns.items()}
    return {"rows": len(frame), "columns": {name: _column(values, digits) for name, values in columns.items()}}


def _exact(value: Any) -> Any:
    return str(value) if isinstance(value, int) and abs(value) > _WHOLE_IN_BROWSERS else value


def _column(values: Iterable[Any], digits: int | None) -> Any:
    plain = [_rounded(_plain(value), digits) for value in values]
    texts = dict.fromkeys(value for value in plain if isinstance(value, str))
    if 2 * len(texts) > len(plain) or not all(value is None or isinstance(value, str) for value in plain):
        return plain
    places = {text: place for place, text in enumerate(texts)}
    return {"texts": list(texts), "at": [None if value is None else places[value] for value in plain]}


def _plain(value: Any) -> Any:
    if value is None or value is pd.NA or value is pd.NaT:
        return None
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, (list, tuple)):
        return ", ".join(map(str, value))
    return value if isinstance(value, (str, bool, int)) else str(value)


def _rounded(value: Any, digits: int | None) -> Any:
    return float(f"{value:.{digits}g}") if isinstance(value, float) and digits is not None else value
