"""The size of a picture: a single view fits itself, panels one above the other are measured and fitted."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from trials.errors import UserError

_SIZE = re.compile(r'<svg[^>]*? width="([0-9.]+)" height="([0-9.]+)"')

_NARROWEST, _LOWEST = 20.0, 20.0
"""Of what is left of a panel beside its labels, in points."""


def sized(spec: Mapping[str, Any], width: float, height: float | None, drawing: Mapping[str, Any]) -> dict[str, Any]:
    """Return a specification whose picture is ``width`` points wide, labels and legends included.

    Args:
        spec: of a single view, or of panels in ``vconcat`` with a height each.
        width: of the whole picture.
        height: of the whole picture; None for what suits the figure.
        drawing: further arguments of vl-convert, for measuring: the version and the style.

    Raises:
        UserError: the labels leave no room.
    """
    if "vconcat" in spec:
        return _panels(spec, width, height, drawing)
    fit = {"width": width, "autosize": {"type": "fit-x" if height is None else "fit", "contains": "padding"}}
    return {**spec, **fit, **({} if height is None else {"height": height})}


def _panels(spec: Mapping[str, Any], width: float, height: float | None, drawing: Mapping[str, Any]) -> dict[str, Any]:
    """Give every panel the same width, and of a given height its share. Vega-Lite itself fits single views only."""
    inner, factor = 0.75 * width, 1.0
    for _ in range(4):
        found = _with_size(spec, inner, factor)
        wide, high = _measured(found, drawing)
        if abs(wide - width) < 0.6 and (height is None or abs(high - height) < 0.6):
            break
        inner += width - wide
        own = sum(view["height"] for view in found["vconcat"])
        if height is not None:
            factor *= (own + height - high) / own
        if inner < _NARROWEST or factor * own < _LOWEST * len(found["vconcat"]):
            raise UserError(
                f"the picture is {width:g} x {high if height is None else height:g} points, but its labels take more "
                "than is left: give it more, or a smaller --font-size"
            )
    return found


def _with_size(spec: Mapping[str, Any], width: float, factor: float) -> dict[str, Any]:
    views = [{**view, "width": width, "height": factor * view["height"]} for view in spec["vconcat"]]
    return {**spec, "vconcat": views}


def _measured(spec: Mapping[str, Any], drawing: Mapping[str, Any]) -> tuple[float, float]:
    import vl_convert

    found = _SIZE.search(vl_convert.vegalite_to_svg(dict(spec), **drawing))
    assert found is not None
    return float(found[1]), float(found[2])
