"""The objectives of a space against each other: every complete point by cell, and the front of each cell."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pandas as pd

from sweeper.report.elements.axes import SIZE_PARAMS, legend_below
from sweeper.report.elements.panels import MANY_MARKS, in_units, vega_field
from sweeper.report.figure import Figure
from sweeper.report.gathered import Gathered
from sweeper.results.bounds import columns_needed
from sweeper.results.pareto import pareto_front
from sweeper.results.points import columns_of_replicates, points_in
from sweeper.results.rows_of_frames import rows_of
from sweeper.results.warned import codes_of
from trials.errors import UserError, unknown_name

_MOST_CELLS_AT_ONCE = 12
"""With more cells, the page shows the one that the reader chooses."""


def draw(gathered: Gathered, x: str = "", cell: str = "") -> Figure:
    """Return the first objective over another one: the points of each cell, and those that none of the cell beats.

    Args:
        gathered: the sweep.
        x: the other objective's column; by default the second one. On the page, the reader chooses.
        cell: a cell's key, to show it alone; by default all.

    Raises:
        UserError: the space has one objective, no point is complete, or an argument is wrong.
    """
    objectives = gathered.space.objectives
    first, others = objectives[0], [objective.column for objective in objectives[1:]]
    if not others:
        raise UserError(f"{gathered.sweep.path.name} has one objective ({first.column}): there is no front of several")
    if x and x not in others:
        raise UserError(unknown_name("x", x, others))
    rows = _rows(gathered)
    cells = list(dict.fromkeys(rows["cell"]))
    if cell and cell not in cells:
        raise UserError(unknown_name("cell", cell, cells))
    rows = rows[rows["cell"] == cell].reset_index(drop=True) if cell else rows
    if rows.empty:
        raise UserError(f"{gathered.sweep.path.name} has no complete point with all objectives yet: wait for one")
    judged = ", ".join(f"{objective.column} ({objective.direction})" for objective in objectives)
    several = f" The front counts all {len(objectives)} objectives." if len(others) > 1 else ""
    return Figure(
        "objective_fronts",
        "Fronts of several objectives",
        f"{int(rows['front'].sum())} of {len(rows)} complete points are on their cell's front by {judged}.{several}",
        _spec(rows, [in_units(one.column)[0] for one in objectives], in_units(x or others[0])[0]),
        rows,
        notes=(f"front of each cell by {judged}; points outside the constraints are not on it",),
        canvas=len(rows) > MANY_MARKS,
    )


def _rows(gathered: Gathered) -> pd.DataFrame:
    """A row per complete point, with the judge's value of each objective, and whether it is on its cell's front.

    Accuracies are in percent: ``val accuracy [%]``.
    """
    space, columns = gathered.space, [objective.column for objective in gathered.space.objectives]
    sweep = gathered.sweep
    found = pareto_front(sweep, space.objectives, space.constraints, space.search, space.replicates)
    best = set(found["trial"])
    wanted = {"cell", "confirms", "warnings", *columns, *columns_needed(space.constraints)}
    cells: dict[str, list[dict[str, Any]]] = {}
    for row in rows_of(sweep.trials, wanted | columns_of_replicates(space.replicates)):
        if row.get("confirms") is None and row.get("cell") is not None:
            cells.setdefault(row["cell"], []).append(row)
    rows = []
    for cell, trials in cells.items():
        for point in points_in(trials, space.replicates):
            if point.is_complete(columns):
                units = ((in_units(one.column), point.value(one)) for one in space.objectives)
                values = {title: scale * value for (title, scale), value in units}
                of = {"trial": point.first["trial"], "cell": cell or "all trials", **values}
                rows.append({**of, "front": of["trial"] in best, "warnings": codes_of(point.rows)})
    titles = [in_units(column)[0] for column in columns]
    frame: pd.DataFrame = pd.DataFrame(rows, columns=["trial", "cell", *titles, "front", "warnings"])
    return frame


def _spec(rows: pd.DataFrame, objectives: Sequence[str], first: str) -> dict[str, Any]:
    """``objectives``: the rows' columns of these. ``first``: the one on the x axis."""
    others = list(objectives[1:])
    cells = list(dict.fromkeys(rows["cell"]))
    together = len(cells) <= _MOST_CELLS_AT_ONCE
    bind_cell = {"bind": {"input": "select", "options": cells, "name": "cell "}} if not together else {}
    bind_x = {"bind": {"input": "select", "options": others, "name": "over "}} if len(others) > 1 else {}
    params = [{"name": "cell", "value": cells[0], **bind_cell}, {"name": "x_axis", "value": first, **bind_x}]
    x = {"field": "other", "type": "quantitative", "axis": {"title": {"expr": "x_axis"}, "labelOverlap": "greedy"},
         "scale": {"zero": False, "padding": 10}}  # fmt: skip
    y: dict[str, Any] = {"field": vega_field(objectives[0]), "type": "quantitative", "title": objectives[0]}
    y["scale"] = {"zero": False, "padding": 10}
    colour = {"field": "cell", "type": "nominal", "sort": None, "title": None, "scale": {"domain": cells}}
    colour["legend"] = legend_below(cells) if together else None
    transform: list[dict[str, Any]] = [{"calculate": "datum[x_axis]", "as": "other"}]
    if not together:
        transform.append({"filter": "datum.cell === cell"})
    names = ["trial", "cell", *objectives, "warnings"]
    highlighted = {"name": "highlighted", "select": {"type": "point", "fields": ["cell"]}, "bind": "legend"}
    bright = {"condition": {"test": "datum.front", "value": 1}, "value": 0.35}
    points = {
        "x": x, "y": y, "fill": colour, "stroke": colour, "shape": colour, "opacity": bright,
        "size": {"condition": {"test": "datum.front", "value": 80}, "value": 28},
        "fillOpacity": {"condition": {"test": "datum.warnings !== ''", "value": 0}, "value": 1},
        "tooltip": [{"field": vega_field(name), "title": name} for name in names],
    }  # fmt: skip
    line = {"x": x, "y": y, "stroke": colour, "detail": {"field": "cell", "type": "nominal"},
            "opacity": {"condition": {"param": "highlighted", "value": 0.8}, "value": 0.1}}  # fmt: skip
    steps = {"transform": [{"filter": "datum.front"}], "mark": {"type": "line", "strokeWidth": 1.2}, "encoding": line}
    joined = [steps] if len(others) == 1 else []  # a front of three is no line in a plane
    return {
        "data": {"name": "rows"},
        "params": [*SIZE_PARAMS, *params],
        "transform": transform,
        "layer": [
            *joined,
            {"params": [highlighted], "mark": {"type": "point", "strokeWidth": 1.2}, "encoding": points},
        ],
    }
