"""Accuracy over density: a line per method with a band over replicates, and the dense network's accuracy."""

from __future__ import annotations

from typing import Any

import pandas as pd

from sweeper.report.figure import Figure
from sweeper.report.gathered import Gathered
from sweeper.results.comparison import dense_accuracy, points_of, protocol, without_figure

_X = {"field": "density_percent", "type": "quantitative", "scale": {"type": "log", "nice": False, "padding": 12}}

_TOOLTIP = [
    {"field": "series", "title": "series"},
    {"field": "asked", "title": "asked"},
    {"field": "density_percent", "title": "density %", "format": ".4~g"},
    {"field": "accuracy_percent", "title": "accuracy %", "format": ".2f"},
    {"field": "accuracy_std_percent", "title": "± (ddof 1)", "format": ".2f"},
    {"field": "n", "title": "n"},
    {"field": "warnings", "title": "warnings"},
]


def draw(gathered: Gathered, accuracy: str = "test_accuracy") -> Figure:
    """Return accuracy (%) over measured density (%, log axis), of the best point of every cell.

    The band is one standard deviation (ddof 1) over seeds to either side. Points of trials with warnings are hollow.

    Raises:
        UserError: no trial is complete, or its layers cannot be read.
    """
    sweep = gathered.sweep
    points = points_of(sweep, accuracy=accuracy, levels=True)
    rows = _rows(points)
    dense = dense_accuracy(sweep, accuracy)
    if dense is not None:
        line = {"kind": "dense", "series": "dense", "accuracy_percent": 100 * dense}
        rows = pd.concat([rows, pd.DataFrame([line])], ignore_index=True)
    said = accuracy.replace("_", " ")
    notes = (protocol(sweep, points), *filter(None, [without_figure(sweep)]))
    return Figure(
        "accuracy_density", "Accuracy over density", _in_words(rows, said, dense), _spec(said), rows, notes=notes
    )


def _rows(points: pd.DataFrame) -> pd.DataFrame:
    mean, std = 100 * points["accuracy"], 100 * points["accuracy_std"]
    rows: pd.DataFrame = pd.DataFrame(
        {
            "kind": "sweep",
            "series": points["series"].replace("", "all trials"),
            "asked": points["asked"],
            "level": points["level"],
            "density_percent": 100 * points["density"],
            "accuracy_percent": mean,
            "accuracy_std_percent": std,
            "low_percent": mean - std.fillna(0),
            "high_percent": mean + std.fillna(0),
            "n": points["n"],
            "warnings": points["warnings"],
        }
    )
    return rows


def _in_words(rows: pd.DataFrame, said: str, dense: float | None) -> str:
    """One sentence per series: its densities and accuracies, from dense to sparse."""
    each = []
    for series, part in rows[rows["kind"] == "sweep"].groupby("series", sort=False):
        first, last = part.sort_values("density_percent", ascending=False).iloc[[0, -1]].to_dict("records")
        ends = [f"{row['accuracy_percent']:.2f} % at {row['density_percent']:.3g} % density" for row in (first, last)]
        each.append(f"{series}: {' to '.join(dict.fromkeys(ends))}, {len(part)} points")
    start = f"{said.capitalize()} over density on a logarithmic axis. "
    return start + ("" if dense is None else f"Dense: {100 * dense:.2f} %. ") + "; ".join(each) + "."


def _spec(said: str) -> dict[str, Any]:
    y = {"field": "accuracy_percent", "type": "quantitative", "title": f"{said} [%]", "scale": {"zero": False}}
    shown = {"field": "accuracy_percent", "title": "dense %", "format": ".2f"}
    dense = {
        "transform": [{"filter": "datum.kind === 'dense'"}],
        "mark": {"type": "rule", "strokeDash": [2, 4]},
        "encoding": {"y": y, "tooltip": [shown]},
    }
    return {"data": {"name": "rows"}, "layer": [dense, *_series_layers(y)]}


def _series_layers(y: dict[str, Any]) -> list[dict[str, Any]]:
    """The band, the line and the points of each series; a click on the legend brings one of them out."""
    colour = {"field": "series", "type": "nominal", "sort": None, "title": None}
    x = {**_X, "title": "density: weights kept, measured [%]"}
    faint = {"condition": {"param": "highlighted", "value": 1}, "value": 0.12}
    band = {
        "x": x,
        "y": {**y, "field": "low_percent"},
        "y2": {"field": "high_percent"},
        "color": {**colour, "legend": None},
        "opacity": {"condition": {"param": "highlighted", "value": 0.18}, "value": 0.03},
    }
    hollow = {"condition": {"test": "datum.warnings !== ''", "value": 0}, "value": 1}
    points = {"x": x, "y": y, "color": colour, "shape": colour, "opacity": faint, "fillOpacity": hollow}
    chosen = {"name": "highlighted", "select": {"type": "point", "fields": ["series"]}, "bind": "legend"}
    layers: list[dict[str, Any]] = [
        {"mark": {"type": "area"}, "encoding": band},
        {"mark": "line", "encoding": {"x": x, "y": y, "color": colour, "opacity": faint}},
        {"mark": "point", "params": [chosen], "encoding": {**points, "tooltip": _TOOLTIP}},
    ]
    return [{"transform": [{"filter": "datum.kind === 'sweep'"}], **layer} for layer in layers]
