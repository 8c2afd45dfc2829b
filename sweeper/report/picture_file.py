"""Write a figure to a file: a picture of the width of a paper's column, or its rows as CSV."""

from __future__ import annotations

import argparse
import math
import re
from dataclasses import dataclass
from pathlib import Path

from sweeper.report.figure import Figure
from sweeper.report.saved import PICTURE_FORMS, picture
from sweeper.report.written import require_file
from trials.errors import UserError
from trials.optional import require

CSV = ".csv"

POINTS_PER = {"pt": 1.0, "in": 72.0, "mm": 72 / 25.4, "cm": 72 / 2.54}
"""PostScript points (1/72 inch) in a unit of length."""

_LENGTH = re.compile(r"(\d+(?:\.\d*)?|\.\d+)(pt|in|mm|cm)?")

_NARROWEST, _WIDEST = 72.0, 2880.0
_SMALLEST, _LARGEST = 3.0, 48.0


@dataclass(frozen=True)
class PictureSize:
    """Of a picture, in points; None for the height that suits the figure."""

    width_pt: float = 345.0
    height_pt: float | None = None
    font_size_pt: float = 8.0


def add_size_options(parser: argparse.ArgumentParser, default_width: str = "345pt") -> None:
    """Add ``--width``, ``--height`` and ``--font-size`` to a parser."""
    parser.add_argument(
        "--width", metavar="LENGTH", help=f"of the picture: 3.25in, 84mm, 8.4cm, 240pt (default: {default_width})"
    )
    parser.add_argument("--height", metavar="LENGTH", help="of the picture (default: what suits the figure)")
    parser.add_argument("--font-size", metavar="PT", help="of all text in the picture, in points (default: 8)")


def picture_size(width: str | None, height: str | None, font_size: str | None) -> PictureSize:
    """Return the size that the options ask for.

    Raises:
        UserError: one of them is no length, or out of range.
    """
    default = PictureSize()
    return PictureSize(
        default.width_pt if width is None else _length(width, "--width", _NARROWEST, _WIDEST),
        None if height is None else _length(height, "--height", _NARROWEST, _WIDEST),
        default.font_size_pt if font_size is None else _length(font_size, "--font-size", _SMALLEST, _LARGEST),
    )


def _length(text: str, option: str, least: float, most: float) -> float:
    """A length in points; without a unit, points are meant."""
    found = _LENGTH.fullmatch(text.strip())
    points = float(found[1]) * POINTS_PER[found[2] or "pt"] if found else math.nan
    if not least <= points <= most:
        example = "8 or 8pt" if option == "--font-size" else "3.25in, 84mm, 8.4cm or 240pt"
        raise UserError(
            f"{option} is {text!r}, but must be a length from {least:g} to {most:g} points (1/72 inch), such as "
            f"{example}"
        )
    return points


def require_picture_file(to: Path) -> None:
    """Refuse, before anything is read, what would stop a figure's file in the end.

    Raises:
        UserError: the file's form is unknown, its folder is missing or cannot be written, or vl-convert is missing.
    """
    require_file(to)
    if to.suffix.lower() not in (*PICTURE_FORMS, CSV):
        raise UserError(f"--to is {str(to)!r}, but must end in one of {', '.join((*PICTURE_FORMS, CSV))}")
    if to.suffix.lower() != CSV:
        require("vl_convert", "plots", "a picture")


def write_figure(figure: Figure, to: Path, size: PictureSize) -> None:
    """Write a figure as PNG, SVG or PDF, or its rows as CSV, by the ending of the file's name.

    Raises:
        UserError: as :func:`sweeper.report.saved.picture`, or the file cannot be written.
    """
    form = to.suffix.lower()
    if form == CSV:
        content = figure.rows.to_csv(index=False, lineterminator="\n").encode()
    else:
        content = picture(
            figure, form, width_pt=size.width_pt, height_pt=size.height_pt, font_size_pt=size.font_size_pt
        )
    try:
        to.write_bytes(content)
    except OSError as error:
        raise UserError(f"--to is {str(to)!r}, but must be a file that can be written ({error})") from None
