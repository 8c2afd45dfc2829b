"""Parallel coordinates: every point of the searches as a line through its grid values, hyperparameters and objectives.

The axes lie one below the other, so that any number of them, with their ticks, fits a phone and a column of a paper.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pandas as pd

from sweeper.report.elements.axes import SIZE_PARAMS, spreads_widely
from sweeper.report.elements.panels import MANY_MARKS, choice, chosen_title, in_units
from sweeper.report.elements.scales import UnitAxis, axis_of
from sweeper.report.elements.searched import Searched, SearchedPoint, are_numbers, searched
from sweeper.report.figure import Figure
from sweeper.report.gathered import Gathered
from trials.errors import UserError, unknown_name

MOST_LINES = 1000
"""Maximum number of points that are drawn."""

_ALL = "all cells"

_TOOLTIP = [{"field": name} for name in ("cell", "point", "axis", "value")]

_LANES, _CHARACTERS = 3, 45
"""Names of categories that have more characters than a narrow picture has room for take turns in several lines."""

_HEIGHT = 58
"""Of an axis with the room above it, in pixels."""


def draw(gathered: Gathered, cell: str | None = None, objective: str | None = None) -> Figure:
    """Return every point that is over as a line, coloured by an objective; what is pruned or failed is grey.

    Axes that are searched on a logarithmic range are logarithmic. A hyperparameter that a point does not have, since
    its condition does not hold, is a gap.

    Args:
        gathered: the sweep.
        cell: key of the cell that is shown first; by default all are.
        objective: column by which lines are coloured first; by default the first objective.

    Raises:
        UserError: the sweep has no search, no point is over, or there is no such cell or objective.
    """
    found = searched(gathered)
    for name, value, known in (("cell", cell, found.cells), ("objective", objective, list(found.objectives))):
        if value is not None and value not in known:
            raise UserError(unknown_name(name, value, known))
    over = [point for point in found.points if point.values or point.status in ("pruned", "failed")]
    if not over:
        raise UserError(f"{gathered.sweep.path.name} has no point that is over: wait for one")
    shown, notes = _thinned(over, found)
    axes = dict(_axes(found, shown))
    rows = pd.concat([_lines(shown, axes, found), _ticks(axes)], ignore_index=True)
    first = in_units(objective or next(iter(found.objectives)))[0]
    return Figure(
        "parallel_coordinates", "Parallel coordinates", _in_words(shown, axes, found),
        _spec(rows, found, axes, cell, first), rows, notes, 4, canvas=len(rows) > MANY_MARKS,
    )  # fmt: skip


def _thinned(over: list[SearchedPoint], found: Searched) -> tuple[list[SearchedPoint], tuple[str, ...]]:
    """At most :data:`MOST_LINES` points: those with an objective first, by its value evenly, the best included."""
    name = next(iter(found.objectives))
    ranked = sorted(over, key=lambda p: -found.objectives[name] * p.values[name] if name in p.values else float("inf"))
    if len(over) > MOST_LINES:
        last = len(ranked) - 1
        ranked = [ranked[round(i * last / (MOST_LINES - 1))] for i in range(MOST_LINES)]
    notes = (
        (f"{MOST_LINES} of {len(over)} points are drawn, evenly chosen by {name}",) if len(over) > MOST_LINES else ()
    )
    return ranked[::-1], notes  # the best ones are drawn last, above the others


def _axes(found: Searched, shown: list[SearchedPoint]) -> Iterator[tuple[tuple[str, str], UnitAxis]]:
    """By kind and name: grid values that differ, hyperparameters, objectives."""
    for path in shown[0].grid:
        values = [point.grid[path] for point in shown if point.grid[path] is not None]
        if len(set(map(repr, values))) > 1:
            yield ("grid", path), axis_of(path, values, are_numbers(values) and spreads_widely(values))
    for path in found.search:
        if values := [point.params[path] for point in shown if path in point.params]:
            yield ("search", path), axis_of(path, values, found.is_logarithmic(path))
    for name in found.objectives:
        title, scale = in_units(name)
        if values := [scale * point.values[name] for point in shown if name in point.values]:
            yield ("objective", name), axis_of(title, values, log=False)


def _value(point: SearchedPoint, kind: str, name: str) -> Any:
    if kind == "objective":
        value = point.values.get(name)
        return None if value is None else in_units(name)[1] * value
    return (point.grid if kind == "grid" else point.params).get(name)


def _lines(shown: list[SearchedPoint], axes: dict[tuple[str, str], UnitAxis], found: Searched) -> pd.DataFrame:
    rows = []
    for line, point in enumerate(shown):
        colours = {in_units(name)[0]: _value(point, "objective", name) for name in found.objectives}
        for number, ((kind, name), axis) in enumerate(axes.items()):
            value = _value(point, kind, name)
            rows.append(
                {
                    "kind": "line" if point.values else point.status, "line": line, "cell": point.cell,
                    "point": point.number, "axis_number": number, "axis": axis.title,
                    "value": None if value is None else f"{value:.6g}" if isinstance(value, float) else str(value),
                    "place": None if value is None else round(axis.place(value), 4), **colours,
                }
            )  # fmt: skip
    table: pd.DataFrame = pd.DataFrame(rows)
    return table


def _ticks(axes: dict[tuple[str, str], UnitAxis]) -> pd.DataFrame:
    rows = []
    for number, axis in enumerate(axes.values()):
        rows.append({"kind": "axis", "axis_number": number, "axis": axis.title, "value": axis.title, "place": 0.0})
        found = axis.ticks()
        crowded = axis.categories is not None and sum(len(text) + 3 for _, text in found) > _CHARACTERS
        ticks = [
            {"kind": f"tick{i % _LANES if crowded else 0}", "place": round(place, 4), "value": text}
            for i, (place, text) in enumerate(found)
        ]
        rows += [{**tick, "axis_number": number, "axis": axis.title} for tick in ticks]
    table: pd.DataFrame = pd.DataFrame(rows)
    return table


def _in_words(shown: list[SearchedPoint], axes: dict[tuple[str, str], UnitAxis], found: Searched) -> str:
    name = next(iter(found.objectives))
    title, scale = in_units(name)
    text = f"{len(shown)} points as lines through the axes {', '.join(axis.title for axis in axes.values())}."
    best = found.best(name).values()
    if not best:
        complete = any(name in point.values for point in shown)
        return f"{text} None of them {'keeps its bounds' if complete else 'is complete'}."
    point = max(best, key=lambda point: found.objectives[name] * point.values[name])
    given = ", ".join(f"{k}={v:.4g}" if isinstance(v, float) else f"{k}={v}" for k, v in point.params.items())
    return f"{text} Best {title}: {scale * point.values[name]:.4g} in {point.cell or 'the search'} at {given}."


def _spec(
    rows: pd.DataFrame, found: Searched, axes: dict[tuple[str, str], UnitAxis], cell: str | None, first: str
) -> dict[str, Any]:
    x = {
        "field": "place",
        "type": "quantitative",
        "axis": None,
        "scale": {"domain": [0, 1], "padding": 14, "nice": False},
    }
    bottom = len(axes) - 0.5
    y = {
        "field": "axis_number", "type": "quantitative", "axis": None,
        "scale": {"domain": [-0.45, bottom], "reverse": True, "nice": False, "zero": False},
    }  # fmt: skip
    params, kept, shades = _choices(rows, found, cell, first)
    through = {"x": x, "y": y, "detail": {"field": "line"}, "order": {"field": "axis_number"}}
    lines = rows["line"].nunique()
    faint = 0.6 if lines <= 100 else 0.3 if lines <= 400 else 0.15
    line = {"type": "line", "orient": "horizontal", "strokeWidth": 1.3}
    return {
        "data": {"name": "rows"}, "height": _HEIGHT * len(axes), "params": [*SIZE_PARAMS, *params],
        **(chosen_title("cell_shown") if rows["cell"].nunique() > 1 else {}),
        "layer": [
            {"transform": [{"filter": "datum.kind === 'axis'"}], "mark": "rule", "encoding": {"y": y}},
            {
                "transform": [{"filter": "datum.kind === 'pruned' || datum.kind === 'failed'"}, *kept],
                "mark": {**line, "color": "#808890", "strokeDash": [3, 3], "opacity": 0.35},
                "encoding": through,
            },
            {
                "transform": [{"filter": "datum.kind === 'line'"}, *kept],
                "mark": {**line, "opacity": faint},
                "encoding": {**through, "color": shades},
            },
            {
                "transform": [{"filter": "datum.kind === 'line'"}, *kept],
                "mark": {"type": "point", "size": 16, "opacity": min(1.5 * faint, 1)},
                "encoding": {"x": x, "y": y, "color": shades, "tooltip": _TOOLTIP},
            },
            *_labels(x, y),
        ],
    }  # fmt: skip


def _choices(
    rows: pd.DataFrame, found: Searched, cell: str | None, first: str
) -> tuple[list[dict[str, Any]], list[dict[str, Any]], dict[str, Any]]:
    """The menus, the transforms that follow them, and the colours by the objective."""
    titles = [in_units(name)[0] for name in found.objectives]
    params: list[dict[str, Any]] = []
    kept = []
    if len(cells := list(dict.fromkeys(rows["cell"].dropna()))) > 1:
        params.append(choice("cell_shown", "cell", [_ALL, *cells], cell or _ALL))
        kept.append({"filter": f"cell_shown === {json.dumps(_ALL)} || datum.cell === cell_shown"})
    if len(titles) > 1:
        params.append(choice("colour_by", "colour", titles, first))
    field = "datum[colour_by]" if len(titles) > 1 else f"datum[{json.dumps(titles[0])}]"
    kept.append({"calculate": field, "as": "colour"})
    shades = {
        "field": "colour", "type": "quantitative", "title": titles[0] if len(titles) == 1 else "objective",
        "scale": {"zero": False, "nice": False},
        "legend": {"type": "gradient", "orient": "bottom", "direction": "horizontal", "offset": 4},
    }  # fmt: skip
    return params, kept, shades


def _labels(x: dict[str, Any], y: dict[str, Any]) -> list[dict[str, Any]]:
    """Ticks and titles, each with a halo in the colour of the ground, since lines run below them."""
    value = {"field": "value", "type": "nominal"}
    ticks = [(f"tick{lane}", {"type": "text", "dy": 11 + 10 * lane, "baseline": "middle"}) for lane in range(_LANES)]
    title: dict[str, Any] = {"type": "text", "dy": -10, "align": "left", "fontWeight": "bold", "x": 2}
    return [
        {
            "transform": [{"filter": f"datum.kind === {kind!r}"}],
            "mark": {**mark, **style},
            "encoding": {**({"x": x} if kind != "axis" else {"x": {"value": 2}}), "y": y, "text": value},
        }
        for kind, mark in (*ticks, ("axis", title))
        for style in ({"style": ["text", "halo"]}, {})
    ]
