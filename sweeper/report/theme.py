"""Colours and styles that all figures share: safe for colour-blind readers, on light and on dark ground."""

from __future__ import annotations

from typing import Any

SERIES_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000")
"""Okabe and Ito's palette, which colour-blind readers can tell apart, without its yellow, which fades on white."""

SERIES_COLOURS_ON_DARK = ("#56B4E9", "#E69F00", "#2BC39A", "#E79AC6", "#9BB8FF", "#F0E442", "#FFFFFF")
"""The same order of hues, lighter, so that each keeps a contrast of 3 to 1 on dark grey."""

_STAR = (
    "M0,-1L0.225,-0.309L0.951,-0.309L0.363,0.118L0.588,0.809L0,0.382L-0.588,0.809L-0.363,0.118L-0.951,-0.309"
    "L-0.225,-0.309Z"
)
_X = "M-0.9,-0.55L-0.35,0L-0.9,0.55L-0.55,0.9L0,0.35L0.55,0.9L0.9,0.55L0.35,0L0.9,-0.55L0.55,-0.9L0,-0.35L-0.55,-0.9Z"
_PENTAGON = "M0,-0.95L0.904,-0.294L0.559,0.769L-0.559,0.769L-0.904,-0.294Z"

POINT_SHAPES = (
    *("circle", "square", "diamond", "triangle-up", "triangle-down", "cross"),
    *(_STAR, "triangle-left", _X, _PENTAGON, "triangle-right"),
)
"""Shapes of points, also as outlines; with 7 colours and 11 shapes, 77 series have marks of their own."""

SEQUENTIAL = "viridis"
"""Colours of a heat map: lightness rises with the value, also for colour-blind readers and in grey."""

_FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Liberation Sans', Arial, sans-serif"


def vega_config(
    *, dark: bool = False, font_size: float = 12, font: str = _FONT, ground: str | None = None
) -> dict[str, Any]:
    """Return Vega-Lite's ``config`` of every figure.

    Args:
        dark: for a dark ground.
        font_size: of labels, in pixels; titles are as large.
        font: CSS font families.
        ground: colour of the background; by default none, so that the page's shows.
    """
    ink, faint, grid = ("#e6e6e6", "#b3b3b3", "#3a3f46") if dark else ("#1b1f24", "#57606a", "#e2e5e9")
    behind = ground or ("#16191d" if dark else "#ffffff")
    return {
        "background": ground,
        "font": font,
        "view": {"stroke": None},
        "axis": {
            "labelColor": faint, "titleColor": ink, "gridColor": grid, "domainColor": faint, "tickColor": faint,
            "labelFontSize": font_size, "titleFontSize": font_size, "titleFontWeight": "normal", "labelLimit": 240,
        },
        "legend": {
            "labelColor": ink, "titleColor": ink, "labelFontSize": font_size, "titleFontSize": font_size,
            "titleFontWeight": "normal", "labelLimit": 240, "symbolSize": 70,
        },
        "header": {"labelColor": ink, "titleColor": ink, "labelFontSize": font_size, "titleFontSize": font_size},
        "title": {"color": ink, "fontSize": font_size, "fontWeight": "normal"},
        "text": {"color": ink, "fontSize": font_size},
        "rule": {"color": faint},
        "point": {"filled": True, "size": 55},
        "line": {"strokeWidth": 1.8},
        "style": {"halo": {"stroke": behind, "strokeWidth": 3, "strokeJoin": "round", "strokeOpacity": 0.85}},
        "range": {
            "category": list(SERIES_COLOURS_ON_DARK if dark else SERIES_COLOURS),
            "symbol": list(POINT_SHAPES),
            "heatmap": {"scheme": SEQUENTIAL},
            "ramp": {"scheme": SEQUENTIAL, "extent": [0.2, 1] if dark else [0, 0.8]},  # thin marks on the ground
        },
    }  # fmt: skip
