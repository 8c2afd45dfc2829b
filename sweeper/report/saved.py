"""Write a figure as a picture for a paper: PNG, SVG or PDF, at a given width and size of text. Needs vl-convert."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sweeper.report.figure import Figure
from sweeper.report.packed import plain_rows
from sweeper.report.theme import config
from trials.errors import UserError
from trials.optional import require

FORMS = (".pdf", ".png", ".svg")

_VERSION = "6.4"
"""Of Vega-Lite, as in vendor/: the page and the pictures are drawn by the same code."""


def picture(
    figure: Figure, form: str, *, width_pt: float = 345, font_size_pt: float = 8, height_pt: float | None = None,
    ppi: float = 300, dark: bool = False,
) -> bytes:  # fmt: skip
    """Return a figure as the content of a file.

    Args:
        figure: what to draw.
        form: one of :data:`FORMS`.
        width_pt: width of the whole picture in points (1/72 inch), such as the column of a paper.
        font_size_pt: size of all text in points.
        height_pt: height of the picture; by default what suits the figure.
        ppi: pixels per inch of a PNG.
        dark: draw for a dark ground.

    Raises:
        UserError: vl-convert is not installed, the form is unknown, or the figure does not fit into the width.
    """
    if form not in FORMS:
        raise UserError(f"--to ends in {form!r}, but must end in one of {', '.join(FORMS)}")
    require("vl_convert", "plots", "a picture")
    import vl_convert

    asked = {
        "vl_spec": whole(figure, width_pt, height_pt),
        "vl_version": _VERSION,
        "config": config(
            dark=dark,
            font_size=font_size_pt,
            font="Liberation Sans, Arial, sans-serif",
            ground="#16191d" if dark else "white",
        ),
    }
    if form == ".svg":
        text: str = vl_convert.vegalite_to_svg(**asked)
        return text.encode()
    if form == ".pdf":
        return bytes(vl_convert.vegalite_to_pdf(**asked))
    return bytes(vl_convert.vegalite_to_png(**asked, scale=1, ppi=ppi))


def whole(figure: Figure, width: float, height: float | None) -> Mapping[str, Any]:
    """The specification of a figure with its rows, sized as a picture."""
    spec = {
        "$schema": "https://vega.github.io/schema/vega-lite/v6.json",
        "width": width,
        "autosize": {"type": "fit", "contains": "padding"},
        **figure.spec,
        "datasets": {"rows": plain_rows(figure.rows)},
    }
    return spec if height is None else {**spec, "height": height}
