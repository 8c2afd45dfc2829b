"""What the commands that draw a sweep share: their arguments, how a picture is written, and how they end."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sweeper.console import make_console, print_line, print_table
from trials.errors import UserError
from trials.optional import require


@dataclass(frozen=True)
class Drawn:
    """What such a command shows.

    Attributes:
        figure: of matplotlib.
        table: text columns to print, by name; empty for none.
        left: names of columns that are aligned to the left.
        lines: printed below the table.
        dpi: pixels an inch of the picture.
    """

    figure: Any
    table: Mapping[str, Sequence[str]] = field(default_factory=dict)
    left: Collection[str] = ()
    lines: Sequence[str] = ()
    dpi: int = 110


def plot_parser(name: str, description: str) -> argparse.ArgumentParser:
    """Return the parser of ``python -m sweeper.NAME SWEEP --to FILE``."""
    parser = argparse.ArgumentParser(prog=f"python -m sweeper.{name}", description=description)
    parser.add_argument("sweep", help="the sweep's folder: storage/name, or s3://BUCKET/PREFIX/NAME")
    parser.add_argument("--to", type=Path, required=True, metavar="FILE", help="the picture: .png, .pdf, .svg")
    return parser


def plot(draw: Callable[[argparse.Namespace], Drawn], options: argparse.Namespace) -> int:
    """Draw, write the picture to ``options.to`` and print the rest; returns the exit code: 0 done, 2 wrong input."""
    try:
        _require_drawable(options.to)
        drawn = draw(options)
        _save(drawn, options.to)
    except (UserError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    console = make_console()
    if drawn.table:
        print_table(drawn.table, console, drawn.left)
    for line in drawn.lines:
        print_line(console, line)
    return 0


def _require_drawable(to: Path) -> None:
    """Refuse, before anything is read, what would stop the picture in the end.

    Raises:
        UserError: matplotlib is not installed, or the picture's folder is missing or cannot be written.
    """
    require("matplotlib", "plots", "a plot")
    folder = to.absolute().parent
    if to.is_dir() or not folder.is_dir() or not os.access(folder, os.W_OK):
        raise UserError(f"--to is {str(to)!r}, but must be a file in a folder that can be written")


def _save(drawn: Drawn, to: Path) -> None:
    try:
        drawn.figure.savefig(to, dpi=drawn.dpi)
    except (OSError, ValueError) as error:  # ValueError: matplotlib knows no such format
        raise UserError(f"--to is {str(to)!r}, but must be a picture that can be written ({error})") from None
