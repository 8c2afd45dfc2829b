"""Accuracy over density: a line per method with a band over replicates, dense networks and published curves."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pandas as pd

from sweeper.report.elements.axes import SIZE_PARAMS, apart, legend_below, limits_of_points, ticks_of_log_axis
from sweeper.report.elements.published import matching_curves
from sweeper.report.elements.series import series_paths
from sweeper.report.figure import Figure
from sweeper.report.gathered import Gathered
from sweeper.results.comparison import dense_accuracies, points_of, protocol, without_figure
from sweeper.results.frames import SweepTables

_TOOLTIP = [
    {"field": "series", "title": "series"},
    {"field": "asked", "title": "asked"},
    {"field": "level", "title": "level"},
    {"field": "density_percent", "title": "density %", "format": ".4~g"},
    {"field": "accuracy_percent", "title": "accuracy %", "format": ".2f"},
    {"field": "accuracy_std_percent", "title": "± (ddof 1)", "format": ".2f"},
    {"field": "n", "title": "n"},
    {"field": "warnings", "title": "warnings"},
]

_LINES_APART = 0.065
"""Least distance of the dense lines' labels, as a share of the figure's height."""

_SHOWN = "datum.density_percent > 0"
_JOINED = f"{_SHOWN} && datum.joined"


def draw(gathered: Gathered, accuracy: str = "test_accuracy", by: Sequence[str] = ()) -> Figure:
    """Return accuracy (%) over measured density (%, log axis), of the best point of every cell.

    The band is one standard deviation (ddof 1) over seeds to either side. Points of trials with warnings are hollow.
    Trials with levels have a point per level. Dashed lines are published curves of the same method, model and data set.

    Args:
        gathered: the sweep.
        accuracy: ``test_accuracy`` or ``val_accuracy``.
        by: grid paths whose values make a series, beside the data set; by default the method and every other path in
            which cells differ, but for the one that sets their densities (:mod:`sweeper.report.elements.series`).

    Raises:
        UserError: no trial is complete, its layers cannot be read, or an argument is wrong.
    """
    paths = by or series_paths(gathered.sweep, gathered.space, gathered.cells)
    return accuracy_density(gathered.sweep, accuracy, paths)


def accuracy_density(sweep: SweepTables, accuracy: str = "test_accuracy", by: Sequence[str] = ()) -> Figure:
    """Like :func:`draw`, of a sweep's tables; one series for each data set if ``by`` is empty."""
    points = points_of(sweep, by or None, accuracy, levels=True)
    own = _rows(points)
    named = own[(own["density_percent"] > 0) & own["accuracy_percent"].notna()]
    published, sources = _published(sweep.trials) if accuracy == "test_accuracy" else (own.head(0), ())
    found = dense_accuracies(sweep, accuracy)
    dense = _dense(found)
    named_lines = [f"dense{f', {name}' * bool(name)} {100 * value:.2f} %" for name, value in found]
    shown = pd.concat([part for part in (named, published) if len(part)] or [named])
    bands = [*shown["low_percent"], *shown["high_percent"]]
    limits = limits_of_points([*shown["accuracy_percent"], *dense["accuracy_percent"]], bands)
    heights = apart(dense["accuracy_percent"].tolist(), _LINES_APART * (limits[1] - limits[0]))
    labels = [{"label": text, "height": height} for text, height in zip(named_lines, heights, strict=True)]
    rows = pd.concat([part for part in (own, published, dense) if len(part)], ignore_index=True)
    said = accuracy.replace("_", " ")
    notes = [protocol(sweep, points), *_left_out(own), without_figure(sweep), *sources]
    return Figure(
        "accuracy_density",
        "Accuracy over density",
        _in_words(named, named_lines, said),
        _spec(rows, labels, limits, said),
        rows,
        notes=tuple(filter(None, notes)),
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
            "n": points["n"].astype("Int64"),
            "warnings": points["warnings"],
            "joined": _joined(points),
        }
    )
    return rows


def _joined(points: pd.DataFrame) -> pd.Series[Any]:
    """Whether a point is on its series' line: levels of several cells each have a course of their own, and are not."""
    with_levels = points[points["level"].notna()].groupby("series")["asked"].nunique()
    several = set(with_levels[with_levels > 1].index)
    return points["level"].isna() | ~points["series"].isin(several)


def _published(trials: pd.DataFrame) -> tuple[pd.DataFrame, list[str]]:
    """The published curves as rows, and a line on the source of each."""
    curves = matching_curves(trials)
    rows = [
        {"kind": "published", "series": curve.name, "density_percent": 100 * density, "accuracy_percent": 100 * mean,
         "accuracy_std_percent": None if std is None else 100 * std, "low_percent": 100 * (mean - (std or 0)),
         "high_percent": 100 * (mean + (std or 0)), "warnings": "", "joined": True}
        for curve in curves
        for density, mean, std in curve.points
    ]  # fmt: skip
    columns = ["kind", "series", "density_percent", "accuracy_percent", "accuracy_std_percent", "low_percent"]
    frame: pd.DataFrame = pd.DataFrame(rows, columns=[*columns, "high_percent", "warnings", "joined"])
    return frame, [f"{curve.name}: {curve.source}" + f"; {curve.note}" * bool(curve.note) for curve in curves]


def _dense(found: Sequence[tuple[str, float]]) -> pd.DataFrame:
    rows = [
        {"kind": "dense", "series": f"dense {name}".strip(), "accuracy_percent": 100 * value} for name, value in found
    ]
    frame: pd.DataFrame = pd.DataFrame(rows, columns=["kind", "series", "accuracy_percent"])
    return frame


def _left_out(own: pd.DataFrame) -> list[str]:
    """Lines on points that a logarithmic axis of density cannot show."""
    said = []
    for mask, why in (
        (own["accuracy_percent"].isna(), "no accuracy"),
        (own["density_percent"].isna(), "no readable rows of layers, and so no density"),
        (own["density_percent"] <= 0, "density 0, which a logarithmic axis cannot show"),
    ):
        each = [f"{row['series']} {row['asked']} ({row['accuracy_percent']:.2f} %)" for _, row in own[mask].iterrows()]
        each = [text.removesuffix(" (nan %)") for text in each]
        if each:
            more = f"; and {len(each) - 4} more" if len(each) > 4 else ""
            said.append(f"not drawn, since they have {why}: {'; '.join(each[:4])}{more}")
    return said


def _in_words(rows: pd.DataFrame, dense: Sequence[str], said: str) -> str:
    """One sentence per series: its densities and accuracies, from dense to sparse."""
    each = []
    for series, part in rows.groupby("series", sort=False):
        first, last = part.sort_values("density_percent", ascending=False).iloc[[0, -1]].to_dict("records")
        ends = [f"{row['accuracy_percent']:.2f} % at {row['density_percent']:.3g} % density" for row in (first, last)]
        count = f"{len(part)} point{'s' * (len(part) > 1)}"
        each.append(f"{series}: {' to '.join(dict.fromkeys(ends))}, {count}")
    start = f"{said.capitalize()} over density on a logarithmic axis. "
    return start + "".join(f"{label[0].upper()}{label[1:]}. " for label in dense) + "; ".join(each) + "."


def _spec(rows: pd.DataFrame, labels: Sequence[dict[str, Any]], limits: Sequence[float], said: str) -> dict[str, Any]:
    densities = rows["density_percent"][rows["density_percent"] > 0]
    low, high = (float(densities.min()), float(densities.max())) if len(densities) else (1.0, 100.0)
    ends = [low / 1.15, high * 1.15] if high > 1.05 * low else [low / 2, high * 2]
    axis = {"values": ticks_of_log_axis(*ends), "format": "~g", "labelOverlap": "greedy", "grid": True}
    x = {
        "field": "density_percent", "type": "quantitative", "title": "density: weights kept, measured [%]",
        "scale": {"type": "log", "domain": ends, "nice": False}, "axis": axis,
    }  # fmt: skip
    y = {
        "field": "accuracy_percent", "type": "quantitative", "title": f"{said} [%]",
        "scale": {"domain": list(limits), "nice": False, "zero": False},
    }  # fmt: skip
    names = list(dict.fromkeys(rows["series"][rows["kind"] != "dense"]))
    return {
        "data": {"name": "rows"},
        "params": SIZE_PARAMS,
        "layer": [*_dense_layers(y, labels), *_series_layers(x, y, names)],
    }


def _dense_layers(y: dict[str, Any], labels: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """A dotted line per set of dense networks, with its name and accuracy above it."""
    own = [{"filter": "datum.kind === 'dense'"}]
    tooltip = [{"field": "series"}, {"field": "accuracy_percent", "title": "accuracy %", "format": ".2f"}]
    data = {"values": list(labels)}
    label = {"field": "height", "type": "quantitative"}
    text = {"type": "text", "align": "left", "baseline": "bottom", "dy": -2, "clip": False}
    return [
        {"transform": own, "mark": {"type": "rule", "strokeDash": [2, 3]}, "encoding": {"y": y, "tooltip": tooltip}},
        {"data": data, "mark": text, "encoding": {"x": {"value": 4}, "y": label, "text": {"field": "label"}}},
    ]


def _series_layers(x: dict[str, Any], y: dict[str, Any], names: Sequence[str]) -> list[dict[str, Any]]:
    """The band, the line and the points of each series; a click on the legend brings one of them out."""
    of = {"field": "series", "type": "nominal", "sort": None, "title": None, "scale": {"domain": list(names)}}
    series = {**of, "legend": legend_below(names)}
    faint = {"condition": {"param": "highlighted", "value": 1}, "value": 0.12}
    band = {
        "x": x,
        "y": {**y, "field": "low_percent"},
        "y2": {"field": "high_percent"},
        "fill": series,
        "opacity": {"condition": {"param": "highlighted", "value": 0.16 if len(names) < 6 else 0.07}, "value": 0.02},
    }
    dash = {"condition": {"test": "datum.kind === 'published'", "value": [5, 3]}, "value": [1, 0]}
    line = {"x": x, "y": y, "stroke": series, "opacity": faint, "strokeDash": dash}
    points = {
        "x": x,
        "y": y,
        "fill": series,
        "stroke": series,
        "shape": series,
        "size": {"condition": {"test": "datum.joined", "value": 55}, "value": 18},
        "opacity": faint,
        "fillOpacity": {"condition": {"test": "datum.warnings !== ''", "value": 0}, "value": 1},
        "tooltip": _TOOLTIP,
    }
    highlighted = {"name": "highlighted", "select": {"type": "point", "fields": ["series"]}, "bind": "legend"}
    shown, joined = [{"filter": _SHOWN}], [{"filter": _JOINED}]
    return [
        {"transform": joined, "mark": {"type": "area", "clip": True}, "encoding": band},
        {"transform": joined, "mark": {"type": "line", "clip": True}, "encoding": line},
        {
            "transform": shown,
            "params": [highlighted],
            "mark": {"type": "point", "strokeWidth": 1.2},
            "encoding": points,
        },
    ]
