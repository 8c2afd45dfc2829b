"""Parts that several figures share: a choice on the page, panels one above the other, names that are short."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from sweeper.report.elements.axes import SIZE_PARAMS

MOST_COLOURS = 7
"""Number of series that colours alone tell apart; further ones are coloured by their order."""

MANY_MARKS = 3000
"""From this many marks on a figure is drawn as pixels."""

SHORT_NUMBERS = (
    "abs(datum.value) > 0 && abs(datum.value) < 1e-3 ? format(datum.value, '~e') : format(datum.value, '~g')"
)
"""Expression for the labels of an axis: 1e-5 rather than 0.00001."""


def choice(name: str, label: str, options: Sequence[str], first: str | None = None) -> dict[str, Any]:
    """A parameter that readers of the page set with a menu; pictures show its first value.

    Args:
        name: as expressions call it; the rows have a column of the values.
        label: beside the menu.
        options: the values.
        first: the value at the start; by default the first one.
    """
    value = options[0] if first is None else first
    return {"name": name, "value": value, "bind": {"input": "select", "options": list(options), "name": f"{label} "}}


def chosen_title(*parameters: str) -> dict[str, Any]:
    """The ``title`` of a figure that says what was chosen, which a picture for a paper would not show otherwise.

    The specification needs :data:`SIZE_PARAMS`: what does not fit into the width is cut.
    """
    text, limit = {"expr": " + ' · ' + ".join(parameters)}, {"expr": "total_px - 40"}
    return {"title": {"text": text, "limit": limit, "anchor": "start", "offset": 8}}


def only_chosen(column: str, parameter: str) -> dict[str, Any]:
    """The transform that keeps the rows whose column equals the parameter."""
    return {"filter": f"datum[{json.dumps(column)}] === {parameter}"}


def only_of(column: str, value: str) -> dict[str, Any]:
    """The transform that keeps the rows with this value, whatever characters it has."""
    return {"filter": f"datum[{json.dumps(column)}] === {json.dumps(value)}"}


def stacked(views: Sequence[Mapping[str, Any]], **top: Any) -> dict[str, Any]:
    """Views one above the other as one specification; a single one remains a single view.

    The caller sets the width of every view, and adds :data:`SIZE_PARAMS` so that legends fit.
    """
    data = {"data": {"name": "rows"}, **top, "params": [*SIZE_PARAMS, *top.get("params", ())]}
    if len(views) > 1:
        return {**data, "vconcat": list(views), "spacing": 14}
    (view,) = views
    transform = [*top.get("transform", ()), *view.get("transform", ())]
    return {**data, **view, **({"transform": transform} if transform else {})}


def in_units(column: str) -> tuple[str, float]:
    """The title of a figure's column, and what its values are multiplied with: accuracies are in percent."""
    return (f"{column.replace('_', ' ')} [%]", 100.0) if column.endswith("accuracy") else (column, 1.0)


def vega_field(column: str) -> str:
    """A column as Vega-Lite names fields: there, dots and brackets lead into objects unless they are escaped."""
    return re.sub(r"([\\.\[\]'\"])", r"\\\1", column)


def short_keys(keys: Sequence[str]) -> dict[str, str]:
    """By key of a cell, what tells it apart from the others: ``density=0.2,seed=0`` is ``density=0.2`` of one seed."""
    parts = {key: key.split(",") for key in dict.fromkeys(keys)}
    if len(parts) < 2 or len({len(part) for part in parts.values()}) > 1:
        return {key: key for key in parts}
    varies = [len(set(column)) > 1 for column in zip(*parts.values(), strict=True)]
    return {key: ",".join(text for text, kept in zip(part, varies, strict=True) if kept) for key, part in parts.items()}
