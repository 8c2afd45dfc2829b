"""The objective over each hyperparameter: the points of a cell's search, one panel per hyperparameter."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pandas as pd

from sweeper.report.elements.panels import (
    MANY_MARKS,
    SHORT_NUMBERS,
    choice,
    chosen_title,
    in_units,
    only_chosen,
    only_of,
    stacked,
)
from sweeper.report.elements.scales import round_values
from sweeper.report.elements.searched import Searched, SearchedPoint, are_numbers, searched
from sweeper.report.figure import Figure
from sweeper.report.gathered import Gathered
from trials.errors import UserError, unknown_name

MOST_ROWS = 30_000
"""A row per point, hyperparameter and objective; of more, points are left out, so that the page stays small."""

_ENDED = ("pruned", "failed")

_BEST = "#D55E00"
"""Colour of the ring around the best point, legible on light and dark ground and beside the sequential colours."""


def draw(gathered: Gathered, cell: str | None = None) -> Figure:
    """Return the objective over every hyperparameter, by cell: what Optuna's slice plot shows.

    Colours are the order of the points; the best one (of a population, of its last generation) has a ring, one that
    misses its bounds is hollow. Points that were pruned or failed have no objective and stand at the lower edge.

    Args:
        gathered: the sweep.
        cell: key of the cell that is shown first; by default the first one with a complete point.

    Raises:
        UserError: the sweep has no search, no point is over, or there is no such cell.
    """
    found = searched(gathered)
    rows = _rows(found)
    if rows.empty:
        raise UserError(f"{gathered.sweep.path.name} has no point that is over: wait for one")
    cells = list(dict.fromkeys(rows["cell"]))
    if cell is not None and cell not in cells:
        raise UserError(unknown_name("cell", cell, cells))
    with_values = rows.loc[rows["kind"] == "complete", "cell"]
    first = cell or (with_values.iloc[0] if len(with_values) else cells[0])
    waiting = sum(point.status not in ("complete", *_ENDED) for point in found.points)
    notes = [f"{waiting} points are not over and not shown"] if waiting else []
    rows, left_out = _thinned(rows)
    return Figure(
        "slices", "Objective over each hyperparameter", _in_words(found, first), _spec(found, rows, cells, first), rows,
        (*notes, *left_out), 5, canvas=len(rows) > MANY_MARKS,
    )  # fmt: skip


def _rows(found: Searched) -> pd.DataFrame:
    best = {objective: found.best(objective) for objective in found.objectives}
    rows = []
    for point in found.points:
        if not point.values and point.status not in _ENDED:
            continue
        for objective in found.objectives:
            scale = in_units(objective)[1]
            value = scale * point.values[objective] if objective in point.values else None
            kind = point.status if value is None else "complete"
            is_best = best[objective].get(point.cell) is point
            for path, given in point.params.items():
                number = float(given) if are_numbers([given]) else None
                rows.append(
                    {
                        "cell": point.cell, "point": point.number, "kind": kind, "hyperparameter": path,
                        "number": number, "given": f"{given:.6g}" if number is not None else str(given),
                        "objective": in_units(objective)[0], "value": value, "best": is_best,
                        "feasible": point.feasible, "trials": ", ".join(point.trials),
                    }
                )  # fmt: skip
    table: pd.DataFrame = pd.DataFrame(rows)
    return table


def _thinned(rows: pd.DataFrame) -> tuple[pd.DataFrame, list[str]]:
    """At most about :data:`MOST_ROWS` rows: those of the best points, and of every so many others of each cell."""
    if len(rows) <= MOST_ROWS:
        return rows, []
    points = rows.groupby(["cell", "point"], sort=False)["best"].any().reset_index()
    every = -(-len(rows) // MOST_ROWS)
    kept = points[points["best"] | (points.groupby("cell").cumcount() % every == 0)]
    shown: pd.DataFrame = rows.merge(kept[["cell", "point"]], on=["cell", "point"])
    said = f"{len(kept):,} of {len(points):,} points are shown, the best one and evenly chosen others of each cell"
    return shown, [f"{said}; the table trials has all"]


def _in_words(found: Searched, cell: str) -> str:
    """How many points the cells have, and where the best one of the first cell is."""
    objective = next(iter(found.objectives))
    title, scale = in_units(objective)
    text = f"{title} over {', '.join(found.search)}, of {len(found.points)} points of {len(found.cells)} cells."
    point = found.best(objective).get(cell)
    if point is None:
        return text
    return f"{text} Best of {cell or 'the search'}: {scale * point.values[objective]:.4g} at {_given(point)}."


def _given(point: SearchedPoint) -> str:
    return ", ".join(f"{path}={v:.4g}" if isinstance(v, float) else f"{path}={v}" for path, v in point.params.items())


def _spec(found: Searched, rows: pd.DataFrame, cells: list[str], first: str) -> dict[str, Any]:
    objectives = list(dict.fromkeys(rows["objective"]))
    params, transform = [], []
    for name, column, options, value in (
        ("cell_shown", "cell", cells, first),
        ("objective_shown", "objective", objectives, objectives[0]),
    ):
        if len(options) > 1:
            params.append(choice(name, column, options, value))
            transform.append(only_chosen(column, name))
    title = objectives[0] if len(objectives) == 1 else "objective"
    views = [_panel(found, rows, path, title) for path in found.search if (rows["hyperparameter"] == path).any()]
    chosen = chosen_title(*(param["name"] for param in params)) if params else {}
    return stacked(views, params=params, transform=transform, **chosen)


def _panel(found: Searched, rows: pd.DataFrame, path: str, title: str) -> dict[str, Any]:
    y = {"field": "value", "type": "quantitative", "title": title, "scale": {"zero": False, "padding": 8}}
    tooltip = [
        {"field": "given", "title": path},
        {"field": "value", "title": title, "format": ".5~g"},
        {"field": "point", "title": "point"},
        {"field": "kind", "title": "status"},
        {"field": "feasible", "title": "keeps its bounds"},
        {"field": "trials", "title": "trials"},
    ]
    hollow = {"condition": {"test": "datum.feasible || datum.kind !== 'complete'", "value": 1}, "value": 0}
    status = {
        "field": "kind", "type": "nominal", "title": None,
        "scale": {"domain": list(_ENDED), "range": ["cross", "triangle-up"]},
        "legend": {"orient": "top", "direction": "horizontal"} if (rows["kind"] != "complete").any() else None,
    }  # fmt: skip
    complete, ended = "datum.kind === 'complete'", "datum.kind !== 'complete'"
    return {
        "height": 130,
        "transform": [only_of("hyperparameter", path)],
        "encoding": {"x": _x(found, path), "tooltip": tooltip},
        "layer": [
            {
                "transform": [{"filter": complete}],
                "mark": {"type": "point", "opacity": 0.9},
                "encoding": {"y": y, "color": _order(int(rows["point"].max())), "fillOpacity": hollow},
            },
            {
                "transform": [{"filter": f"{complete} && datum.best"}],
                "mark": {"type": "point", "filled": False, "size": 200, "strokeWidth": 2, "color": _BEST},
                "encoding": {"y": y},
            },
            {
                "transform": [{"filter": ended}],
                "mark": {"type": "point", "color": "#808890", "opacity": 0.9},
                "encoding": {"y": {"value": "height"}, "shape": status},
            },
            *_absent(sorted(set(rows["cell"]) - set(rows["cell"][rows["hyperparameter"] == path]))),
        ],
    }


def _absent(cells: Sequence[str]) -> list[dict[str, Any]]:
    """Says in a panel that its hyperparameter is not searched in the cell that is shown, if it is one of these."""
    if not cells:
        return []
    said = {
        "data": {"values": [{"cell": cell} for cell in cells]},
        "transform": [only_chosen("cell", "cell_shown")],
        "mark": {"type": "text", "text": "not searched in this cell", "tooltip": None},
        "encoding": {"x": {"value": 90}, "y": {"value": 65}},
    }
    return [said]


def _order(last: int) -> dict[str, Any]:
    """Colours by the number of a point, from 0 to ``last``."""
    numbers = sorted({int(value) for value in round_values(0, last, log=False)})
    return {
        "field": "point", "type": "quantitative", "title": "number of the point",
        "scale": {"domain": [0, max(last, 1)]},
        "legend": {"orient": "bottom", "direction": "horizontal", "format": "d", "values": numbers, "offset": 8},
    }  # fmt: skip


def _x(found: Searched, path: str) -> dict[str, Any]:
    """The axis of a hyperparameter: logarithmic, linear, or one place per choice; of all cells, to compare them."""
    values = found.values_of(path)
    if not are_numbers(values):
        given = sorted({str(value) for value in values})
        return {
            "field": "given",
            "type": "nominal",
            "title": path,
            "scale": {"domain": given},
            "axis": {"labelAngle": 0},
        }
    axis: dict[str, Any] = {"labelExpr": SHORT_NUMBERS, "labelOverlap": True}
    scale: dict[str, Any] = {"domain": [min(values), max(values)], "padding": 10, "zero": False, "nice": False}
    if found.is_logarithmic(path):
        scale = {"type": "log", **{key: value for key, value in scale.items() if key != "zero"}}
        axis["values"] = round_values(min(values), max(values), log=True)
    return {"field": "number", "type": "quantitative", "title": path, "scale": scale, "axis": axis}
