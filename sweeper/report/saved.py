"""Write a figure as a picture for a paper: PNG, SVG or PDF, at a given width and size of text. Needs vl-convert."""

from __future__ import annotations

import re
from typing import Any

from sweeper.report.figure import Figure
from sweeper.report.packed import rows_for_vega
from sweeper.report.sized import sized
from sweeper.report.theme import vega_config
from trials.errors import UserError
from trials.optional import require

PICTURE_FORMS = (".pdf", ".png", ".svg")

GROUND_OF_DARK_PICTURES = "#16191d"

_FONT = "Liberation Sans, Arial, sans-serif"
"""Liberation Sans comes with vl-convert, so that a picture has the same text everywhere."""

_RATIO, _HIGHEST_PT = 0.62, 340.0
"""Height of a plot over the picture's width, and its maximum, where neither the figure nor the caller sets a height."""

_PIXELS = re.compile(r'(<svg[^>]*? )width="([0-9.]+)" height="([0-9.]+)"')
"""Sizes without a unit are pixels, of which an inch has 96 in programs that read SVG, not 72."""

_VERSION = "6.4"
"""Of Vega-Lite, as in vendor/: the page and the pictures are drawn by the same code."""


def picture(
    figure: Figure, form: str, *, width_pt: float = 345, font_size_pt: float = 8, height_pt: float | None = None,
    ppi: float = 300, dark: bool = False,
) -> bytes:  # fmt: skip
    """Return a figure as the content of a file.

    Args:
        figure: what to draw.
        form: one of :data:`PICTURE_FORMS`.
        width_pt: width of the whole picture in points (1/72 inch), such as the column of a paper.
        font_size_pt: size of all text in points.
        height_pt: height of the picture; by default what suits the figure.
        ppi: pixels per inch of a PNG.
        dark: draw for a dark ground.

    Raises:
        UserError: vl-convert is not installed, the form is unknown, or the figure does not fit into the width.
    """
    if form not in PICTURE_FORMS:
        raise UserError(f"--to ends in {form!r}, but must end in one of {', '.join(PICTURE_FORMS)}")
    require("vl_convert", "plots", "a picture")
    import vl_convert

    style = vega_config(
        dark=dark, font_size=font_size_pt, font=_FONT, ground=GROUND_OF_DARK_PICTURES if dark else "white"
    )
    style["view"] = {**style["view"], "continuousHeight": min(_RATIO * width_pt, _HIGHEST_PT)}
    spec = _whole(figure, width_pt, font_size_pt)
    spec = sized(spec, width_pt, height_pt, {"vl_version": _VERSION, "config": style})
    if form == ".svg":
        text = str(vl_convert.vegalite_to_svg(spec, _VERSION, config=style))
        return _PIXELS.sub(r'\1width="\2pt" height="\3pt"', text, count=1).encode()
    if form == ".pdf":
        return bytes(vl_convert.vegalite_to_pdf(spec, _VERSION, config=style))
    return bytes(vl_convert.vegalite_to_png(spec, _VERSION, scale=1, ppi=ppi, config=style))


def _whole(figure: Figure, width: float, font_size: float) -> dict[str, Any]:
    """The specification of a figure with its rows, and what it asks of the picture: its width and its size of text."""
    sizes = {"font_px": font_size, "total_px": width}
    params = [
        {"name": one["name"], "value": sizes[one["name"]]} if one["name"] in sizes else one
        for one in figure.spec.get("params", ())
    ]
    return {
        "$schema": "https://vega.github.io/schema/vega-lite/v6.json",
        **figure.spec,
        "params": params,
        "datasets": {"rows": rows_for_vega(figure.rows)},
    }
