"""What the commands ``python -m sweeper.*_plot`` share: their arguments, how a picture is written, and how they end."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field

from sweeper.console import make_console, print_line, print_table
from sweeper.report.figure import Figure
from sweeper.report.picture_file import add_size_options, picture_size, require_picture_file, write_figure
from trials.errors import UserError
from trials.system.user_path import path_argument


@dataclass(frozen=True)
class Drawn:
    """What such a command shows.

    Attributes:
        figure: a figure of the report.
        table: text columns to print, by name; empty for none.
        left: names of columns that are aligned to the left.
        lines: printed below the table.
    """

    figure: Figure
    table: Mapping[str, Sequence[str]] = field(default_factory=dict)
    left: Collection[str] = ()
    lines: Sequence[str] = ()


def plot_parser(name: str, description: str) -> argparse.ArgumentParser:
    """Return the parser of ``python -m sweeper.NAME SWEEP --to FILE``."""
    parser = argparse.ArgumentParser(prog=f"python -m sweeper.{name}", description=description)
    parser.add_argument("sweep", help="the sweep's folder: storage/name, or s3://BUCKET/PREFIX/NAME")
    parser.add_argument("--to", type=path_argument("--to"), required=True, metavar="FILE",
                        help="the picture: .png, .pdf, .svg; or its numbers: .csv")  # fmt: skip
    add_size_options(parser)
    return parser


def plot(draw: Callable[[argparse.Namespace], Drawn], options: argparse.Namespace) -> int:
    """Draw, write the picture to ``options.to`` and print the rest; returns the exit code: 0 done, 2 wrong input."""
    try:
        size = picture_size(options.width, options.height, options.font_size)
        require_picture_file(options.to)
        drawn = draw(options)
        write_figure(drawn.figure, options.to, size)
    except (UserError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    console = make_console()
    if drawn.table:
        print_table(drawn.table, console, drawn.left)
    for line in drawn.lines:
        print_line(console, line)
    return 0
