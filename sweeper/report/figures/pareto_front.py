"""Accuracy over what a network costs: FLOPs, parameters or measured latency, with the points that nothing beats."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from sweeper.report.elements.axes import SIZE_PARAMS, legend_below, limits_of_points, spreads_widely, ticks_of_log_axis
from sweeper.report.elements.series import series_paths
from sweeper.report.figure import Figure
from sweeper.report.gathered import Gathered
from sweeper.results.comparison import points_of, protocol, without_figure
from sweeper.results.pareto import undominated
from trials.errors import UserError, unknown_name
from trials.storage.rows import LATENCY


@dataclass(frozen=True)
class CostAxis:
    """A column of ``trials`` that an x axis may show.

    Attributes:
        column: its name.
        title: of the axis, with its unit.
        choice: in the page's list.
        form: of numbers on the axis, in d3's notation.
    """

    column: str
    title: str
    choice: str
    form: str = "~s"


COST_AXES = (
    CostAxis("flops", "FLOPs per image, promised by masks", "FLOPs, promised by masks"),
    CostAxis("compact_flops", "FLOPs per image, realised by the compact network", "FLOPs, realised"),
    CostAxis("parameters", "parameters, promised by masks", "parameters, promised by masks"),
    CostAxis("compact_parameters", "parameters, realised by the compact network", "parameters, realised"),
    *(
        CostAxis(f"latency_ms_{size}", f"latency of {size} image{'s' * (size > 1)} [ms], measured",
                 f"latency of {size} image{'s' * (size > 1)}, measured", "~g")
        for size in (1, 128)
    ),
)  # fmt: skip
"""The choices of the x axis."""

_PROMISED = (
    "promised by masks: counts the weights that are kept, which a runtime saves only if it skips the others; realised: "
    "of the smaller network that export --form compact writes"
)
_MEASURED = "latency: median forward pass of the trial's own network on its device, which computes masked weights too"


def draw(gathered: Gathered, x: str = "", accuracy: str = "test_accuracy", by: Sequence[str] = ()) -> Figure:
    """Return accuracy (%) of the best point of every cell, and of its levels, over what their networks cost.

    Points on the front, which no other point of their data set beats or equals in accuracy at the same or a lower cost,
    are large and joined by a line of steps. Points of trials with warnings are hollow. The axis is logarithmic if
    some cost spreads more than tenfold.

    Args:
        gathered: the sweep.
        x: a column of :data:`COST_AXES`; by default FLOPs. On the page, the reader chooses.
        accuracy: ``test_accuracy`` or ``val_accuracy``.
        by: grid paths whose values make a series, beside the data set, as for ``accuracy_density``.

    Raises:
        UserError: no trial is complete, none has the column ``x``, or an argument is wrong.
    """
    sweep, names = gathered.sweep, [axis.column for axis in COST_AXES]
    if x and x not in names:
        raise UserError(unknown_name("x", x, names))
    measures = [name for name in names if name in sweep.trials]
    by = by or series_paths(sweep, gathered.space, gathered.cells)
    points = points_of(sweep, by or None, accuracy, levels=True, measures=measures)
    known = _known(gathered, points, x)
    rows = _rows(points, known)
    said = accuracy.replace("_", " ")
    notes = [
        protocol(sweep, points),
        without_figure(sweep),
        _PROMISED,
        *_on_latency(gathered, known),
        *_lacking(rows, known),
    ]
    first = x or known[0].column
    return Figure(
        "pareto_front",
        "Accuracy over cost",
        _in_words(rows, known, first, said),
        _spec(rows, known, first, said),
        rows,
        notes=tuple(filter(None, notes)),
    )


def _known(gathered: Gathered, points: pd.DataFrame, x: str) -> list[CostAxis]:
    """The axes that some point has a value for; ``x`` must be among them."""
    known = [axis for axis in COST_AXES if axis.column in points and (points[axis.column] > 0).any()]
    if not known or (x and x not in [axis.column for axis in known]):
        there = f"; known are {', '.join(axis.column for axis in known)}" if known else ""
        how = ": set trial.measure_latency to true" if x in LATENCY else ""
        raise UserError(f"no best trial of {gathered.sweep.path.name} has {x or 'a cost'}{how}{there}")
    return known


def _rows(points: pd.DataFrame, known: Sequence[CostAxis]) -> pd.DataFrame:
    rows: pd.DataFrame = pd.DataFrame(
        {
            "series": points["series"].replace("", "all trials"),
            "asked": points["asked"],
            "level": points["level"],
            "dataset": points["dataset"],
            "n": points["n"],
            "density_percent": 100 * points["density"],
            "accuracy_percent": 100 * points["accuracy"],
            "accuracy_std_percent": 100 * points["accuracy_std"],
            "warnings": points["warnings"],
        }
    )
    for axis in known:
        rows[axis.column] = points[axis.column]
        rows[f"front_{axis.column}"] = _front(points, axis.column)
    return rows


def _front(points: pd.DataFrame, column: str) -> pd.Series[Any]:
    """Whether each point is on its data set's front; a point without that cost is not."""
    front: pd.Series[Any] = pd.Series(data=False, index=points.index)
    for _, part in points[points[column].notna() & points["accuracy"].notna()].groupby("dataset", dropna=False):
        losses = np.column_stack([-part["accuracy"].to_numpy(float), part[column].to_numpy(float)])
        front[part.index] = undominated(losses)
    return front


def _on_latency(gathered: Gathered, known: Sequence[CostAxis]) -> list[str]:
    """What to know of the latencies: how they were measured, and whether in several ways."""
    columns = [axis.column for axis in known if axis.column in LATENCY]
    if not columns:
        return []
    trials = gathered.sweep.trials
    trials = trials[trials["trial"].isin(set(gathered.figure_trials)) & trials[columns].notna().any(axis=1)]
    where = ["host", "device", "threads", "precision"]
    kinds = trials[where].astype(str).drop_duplicates().to_dict("records")
    several = "; ".join(", ".join(f"{name} {kind[name]}" for name in where) for kind in kinds[:4])
    more = f"; and {len(kinds) - 4} more" if len(kinds) > 4 else ""
    mixed = f"latencies are not comparable: they come from {len(kinds)} machines or settings ({several}{more})"
    return [_MEASURED, *([mixed] if len(kinds) > 1 else [])]


def _lacking(rows: pd.DataFrame, known: Sequence[CostAxis]) -> list[str]:
    counts = {"accuracy": int(rows["accuracy_percent"].isna().sum())}
    counts |= {axis.choice: int(rows[axis.column].isna().sum()) for axis in known}
    each = [f"{count} of {len(rows)} points have no {name}" for name, count in counts.items() if count]
    return [f"not drawn: {'; '.join(each)}"] if each else []


def _in_words(rows: pd.DataFrame, known: Sequence[CostAxis], first: str, said: str) -> str:
    """The points of the front over the first axis, from cheap to dear, and how many there are over the others."""
    each = []
    for axis in sorted(known, key=lambda axis: axis.column != first):
        front = rows[rows[f"front_{axis.column}"]].sort_values(axis.column).to_dict("records")
        points = [_named(row) + f" ({row['accuracy_percent']:.2f} % at {_short(row[axis.column])})" for row in front]
        more = f" and {len(points) - 12} more" if len(points) > 12 else ""
        listed = f": {', '.join(points[:12])}{more}" if axis.column == first else ""
        each.append(f"On the front over {axis.choice}: {len(points)} points{listed}.")
    return f"{said.capitalize()} of {len(rows)} points over what their networks cost. {' '.join(each)}"


def _named(row: Mapping[str, Any]) -> str:
    """A point in words: its series, what was asked and its level, if it is an earlier one."""
    level = "" if pd.isna(row["level"]) else f"level {row['level']}"
    return " ".join(filter(None, [row["series"], row["asked"], level]))


def _short(value: float) -> str:
    return f"{value:,.0f}" if value >= 1000 else f"{value:.4g}"


def _spec(rows: pd.DataFrame, known: Sequence[CostAxis], first: str, said: str) -> dict[str, Any]:
    values = {axis.column: rows[axis.column][rows[axis.column] > 0].dropna().astype(float).tolist() for axis in known}
    log = any(spreads_widely(found) for found in values.values())
    ends = {name: _ends(found, log) for name, found in values.items()}
    ticks = {name: ticks_of_log_axis(*both) for name, both in ends.items()}
    choice = {"input": "select", "options": [axis.column for axis in known], "labels": [a.choice for a in known]}
    params = [
        {"name": "x_axis", "value": first, "bind": {**choice, "name": "over "}},
        {"name": "x_ends", "value": ends},
        {"name": "x_ticks", "value": ticks},
        {"name": "x_titles", "value": {axis.column: axis.title for axis in known}},
        {"name": "x_forms", "value": {axis.column: axis.form for axis in known}},
    ]
    x = {
        "field": "cost", "type": "quantitative",
        "scale": {"domain": {"expr": "x_ends[x_axis]"}, "nice": False, **({"type": "log"} if log else {"zero": False})},
        "axis": {"title": {"expr": "x_titles[x_axis]"}, "labelExpr": "format(datum.value, x_forms[x_axis])",
                 "labelOverlap": "greedy", **({"values": {"expr": "x_ticks[x_axis]"}} if log else {"tickCount": 6})},
    }  # fmt: skip
    limits = limits_of_points(rows["accuracy_percent"])
    y = {"field": "accuracy_percent", "type": "quantitative", "title": f"{said} [%]",
         "scale": {"domain": limits, "nice": False, "zero": False}}  # fmt: skip
    return {
        "data": {"name": "rows"},
        "params": [*SIZE_PARAMS, *params],
        "transform": [
            {"calculate": "datum[x_axis]", "as": "cost"},
            {"calculate": "datum['front_' + x_axis]", "as": "front"},
            {"filter": "isValid(datum.cost) && datum.cost > 0 && isValid(datum.accuracy_percent)"},
        ],
        "layer": _layers(x, y, list(dict.fromkeys(rows["series"])), known),
    }


def _ends(values: Sequence[float], log: bool) -> list[float]:
    low, high = min(values), max(values)
    if log:
        factor = max((high / low) ** 0.05, 1.1)
        return [low / factor, high * factor]
    margin = 0.06 * (high - low) or 0.1 * high
    return [max(low - margin, low / 2), high + margin]


def _layers(
    x: dict[str, Any], y: dict[str, Any], names: Sequence[str], known: Sequence[CostAxis]
) -> list[dict[str, Any]]:
    series = {"field": "series", "type": "nominal", "sort": None, "title": None, "scale": {"domain": list(names)},
              "legend": legend_below(names)}  # fmt: skip
    steps = {"type": "line", "interpolate": "step-after", "color": "#8c959f", "strokeWidth": 1.5, "opacity": 0.8}
    tooltip = [
        {"field": "series"},
        {"field": "asked"},
        {"field": "level"},
        {"field": "accuracy_percent", "title": "accuracy %", "format": ".2f"},
        {"field": "accuracy_std_percent", "title": "± (ddof 1)", "format": ".2f"},
        {"field": "density_percent", "title": "density %", "format": ".4~g"},
        *({"field": axis.column, "title": axis.column, "format": f".4{axis.form}"} for axis in known),
        {"field": "n", "title": "n"},
        {"field": "warnings", "title": "warnings"},
    ]
    points = {
        "x": x,
        "y": y,
        "fill": series,
        "stroke": series,
        "shape": series,
        "size": {"condition": {"test": "datum.front", "value": 90}, "value": 34},
        "opacity": {"condition": {"param": "highlighted", "value": 1}, "value": 0.12},
        "fillOpacity": {"condition": {"test": "datum.warnings !== ''", "value": 0}, "value": 1},
        "tooltip": tooltip,
    }
    highlighted = {"name": "highlighted", "select": {"type": "point", "fields": ["series"]}, "bind": "legend"}
    front = {"x": x, "y": y, "detail": {"field": "dataset", "type": "nominal"}}
    return [
        {"transform": [{"filter": "datum.front"}], "mark": steps, "encoding": front},
        {"params": [highlighted], "mark": {"type": "point", "strokeWidth": 1.2}, "encoding": points},
    ]
