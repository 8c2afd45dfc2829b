"""Regrowth in single layers: what it gained over the SSIM of the layers' features, and by layer."""

from __future__ import annotations

from typing import Any

import pandas as pd

from sweeper.report.elements.panels import MANY_MARKS, stacked
from sweeper.report.figure import Figure
from sweeper.report.gathered import Gathered
from sweeper.results.regrowth import layer_gains
from trials.errors import UserError

_TOOLTIP = [
    {"field": "trial"},
    {"field": "layer"},
    {"field": "ssim", "title": "SSIM", "format": ".3f"},
    {"field": "gain_percent", "title": "gain after finetuning, points", "format": ".2f"},
    {"field": "immediate_gain_percent", "title": "gain before finetuning, points", "format": ".2f"},
    {"field": "count", "title": "regrown", "format": ","},
    {"field": "capacity", "title": "pruned weights", "format": ","},
]


def draw(gathered: Gathered) -> Figure:
    """Return what regrowth in single layers gained in validation accuracy (points), beyond finetuning alone.

    Panels: the gain after and before finetuning over the SSIM of the layer's dense and sparse features, a point per
    trial and layer; the gain after finetuning by layer; and the share of the layer's pruned weights that were regrown
    (%). Bars are means over the trials.

    Raises:
        UserError: no trial of ``single_layer`` has tried a layer and its control.
    """
    gains = layer_gains(gathered.sweep)
    if gains.empty:
        raise UserError(f"{gathered.sweep.path.name} has no trial of the method single_layer that has tried a layer")
    rows = _rows(gains)
    unknown = int(gains["ssim"].isna().sum())
    notes = [f"{unknown} of {len(gains)} points have no SSIM"] if unknown else []
    return Figure(
        "single_layers", "Regrowth in single layers", _in_words(rows), _spec(rows), rows, tuple(notes), 5,
        canvas=len(rows) > MANY_MARKS,
    )  # fmt: skip


def _rows(gains: pd.DataFrame) -> pd.DataFrame:
    """The points, and a row per layer with their means."""
    points = pd.DataFrame(
        {
            "kind": "trial", "trial": gains["trial"], "layer": gains["layer"], "ssim": gains["ssim"],
            "capacity": gains["capacity"], "count": gains["count"],
            "gain_percent": 100 * gains["gain"].astype(float),
            "immediate_gain_percent": 100 * gains["immediate_gain"].astype(float),
            "regrown_percent": 100 * gains["count"].astype(float) / gains["capacity"].astype(float),
        }
    )  # fmt: skip
    figures = ["gain_percent", "immediate_gain_percent", "regrown_percent"]
    means = points.groupby("layer", sort=False)[figures].mean().reset_index().assign(kind="mean")
    rows: pd.DataFrame = pd.concat([points, means], ignore_index=True)
    return rows


def _in_words(rows: pd.DataFrame) -> str:
    means = rows[rows["kind"] == "mean"].sort_values("gain_percent", ascending=False)
    each = [f"{row['layer']} {row['gain_percent']:+.2f}" for row in means.to_dict("records")]
    shown = each if len(each) <= 10 else [*each[:5], "…", *each[-5:]]
    return (
        f"Gain in validation accuracy by regrowth in single layers, of {rows['trial'].nunique()} trials. Mean gain "
        f"after finetuning, in points: {', '.join(shown)}."
    )


def _spec(rows: pd.DataFrame) -> dict[str, Any]:
    layers = int(rows["layer"].nunique())
    known = rows["ssim"].notna().any()
    views = [
        _over_ssim("gain_percent", "gain after finetuning [points]"),
        _over_ssim("immediate_gain_percent", "gain before finetuning [points]"),
    ]
    height = max(50, layers * (17 if layers <= 40 else 12))
    by_layer = [
        _by_layer("gain_percent", "gain after finetuning [points]", height),
        _by_layer("regrown_percent", "pruned weights regrown [%]", height),
    ]
    return stacked([*(views if known else []), *by_layer])


def _over_ssim(column: str, title: str) -> dict[str, Any]:
    x = {"field": "ssim", "type": "quantitative", "title": "SSIM of dense and sparse features"}
    y = {"field": column, "type": "quantitative", "title": title, "scale": {"padding": 6}}
    return {
        "height": 130,
        "encoding": {"x": {**x, "scale": {"zero": False, "padding": 8}}, "y": y},
        "transform": [{"filter": "datum.kind === 'trial' && isValid(datum.ssim)"}],
        "layer": [
            {
                "mark": {"type": "rule", "strokeDash": [2, 4]},
                "encoding": {"x": {"value": 0}, "x2": {"value": "width"}, "y": {"datum": 0}},
            },
            {"mark": "point", "encoding": {"color": {"datum": "trial", "legend": None}, "tooltip": _TOOLTIP}},
        ],
    }


def _by_layer(column: str, title: str, height: float) -> dict[str, Any]:
    x = {"field": column, "type": "quantitative", "title": title, "scale": {"padding": 6}}
    y = {
        "field": "layer", "type": "nominal", "sort": None, "title": None,
        "axis": {"labelOverlap": "greedy", "labelLimit": 140, "ticks": False},
    }  # fmt: skip
    return {
        "height": height,
        "encoding": {"x": x, "y": y},
        "layer": [
            {
                "transform": [{"filter": "datum.kind === 'mean'"}],
                "mark": {"type": "bar", "color": "#9aa3ab", "opacity": 0.55},
                "encoding": {
                    "tooltip": [{"field": "layer"}, {"field": column, "title": f"mean {title}", "format": ".2f"}]
                },
            },
            {
                "transform": [{"filter": "datum.kind === 'trial'"}],
                "mark": {"type": "point", "size": 30},
                "encoding": {"color": {"datum": "trial", "legend": None}, "tooltip": _TOOLTIP},
            },
        ],
    }
