"""Axes and legends that figures share: round ticks, logarithmic where values spread, legends that fit their width."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

WIDE_SPREAD = 10.0
"""Values of which the largest is more than this many times the least are drawn on a logarithmic axis."""


def spreads_widely(values: Iterable[float]) -> bool:
    """Whether a logarithmic axis suits the values: all are above 0, and they spread more than :data:`WIDE_SPREAD`."""
    known = [value for value in values if math.isfinite(value)]
    return bool(known) and min(known) > 0 and max(known) > WIDE_SPREAD * min(known)


def ticks_of_log_axis(low: float, high: float) -> list[float]:
    """The values 1, 2 and 5 times a power of ten from ``low`` to ``high``; powers alone over more than 4 decades.

    Where fewer than three of them lie there, round steps of a linear axis.
    """
    decades = range(math.floor(math.log10(low)) - 1, math.ceil(math.log10(high)) + 1)
    factors = (1, 2, 5) if high <= 1e4 * low else (1,)
    found = [float(f"{factor}e{power}") for power in decades for factor in factors]
    inside = [tick for tick in found if low <= tick <= high]
    if len(inside) >= 3 or high <= low:
        return inside
    step = _round_step((high - low) / 7)
    return [round(i * step, 12) for i in range(math.ceil(low / step), math.floor(high / step) + 1)]


def _round_step(least: float) -> float:
    power = 10.0 ** math.floor(math.log10(least))
    return next(factor * power for factor in (1, 2, 5, 10) if factor * power >= least * (1 - 1e-9))


def limits_of_points(points: Iterable[float | None], bands: Iterable[float | None] = ()) -> list[float]:
    """Limits of a y axis in percent into which all ``points`` fit, with a margin, and the ends of most ``bands``.

    A band is cut off where it ends far from all points, so that one wide band does not flatten everything else.
    """
    shown = [value for value in points if value is not None and math.isfinite(value)] or [0.0, 100.0]
    low, high = min(shown), max(shown)
    least, most = max(0.08 * (high - low), 0.5), max(0.15 * (high - low), 1.0)
    ends = [value for value in bands if value is not None and math.isfinite(value)] or [low]
    margins = (low - min(ends), max(ends) - high)
    below, above = (min(max(1.1 * margin, least), most) for margin in margins)
    return [low - below, min(high + above, max(100 + least / 2, high + least / 2))]


SIZE_PARAMS: list[dict[str, Any]] = [
    {"name": "font_px", "value": 12},
    {"name": "total_px", "expr": "width > 0 && isFinite(containerSize()[0]) ? containerSize()[0] : 600"},
]
"""Parameters of a specification that has a legend below: size of text and width of the whole figure, in pixels.

Pictures set them to theirs. (Vega's own ``width`` shrinks while axes are laid out, and columns that follow it would
change the height after it was measured.)
"""


def legend_below(names: Sequence[str], **more: Any) -> dict[str, Any] | None:
    """A legend below the figure in as many columns as fit; None for a single series. Needs :data:`SIZE_PARAMS`."""
    if len(set(names)) < 2:
        return None
    widest = f"min(0.56 * font_px * {max(map(len, names))}, total_px - 60) + 34"
    columns = {"expr": f"min({len(set(names))}, max(1, floor(total_px / ({widest}))))"}
    limit = {"expr": "total_px - 60"}
    return {
        "orient": "bottom",
        "title": None,
        "columns": columns,
        "labelLimit": limit,
        "symbolLimit": 0,
        "symbolOpacity": 1,
        **more,
    }


def apart(values: Sequence[float], least: float) -> list[float]:
    """Heights of labels beside these values, in their order, that are at least ``least`` apart from each other."""
    order = sorted(range(len(values)), key=lambda place: values[place])
    placed = [0.0] * len(values)
    below = -math.inf
    for place in order:
        below = placed[place] = max(values[place], below + least)
    return placed
