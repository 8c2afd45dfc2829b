"""``--report NAME --figure FIGURE --to FILE``: one figure of a report, for a paper."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import TYPE_CHECKING

from sweeper.console import print_line
from sweeper.report.figures import REPORT_FIGURES, draw_figure
from sweeper.report.gathered import gathered
from sweeper.report.picture_file import picture_size, require_picture_file, write_figure
from trials.errors import UserError, unknown_name
from trials.storage.place import Place
from trials.system.user_path import user_path

if TYPE_CHECKING:
    from rich.console import Console


def write_asked_figure(path: Place, options: argparse.Namespace, console: Console) -> None:
    """Write the figure that the options ask for, and print its file and its notes.

    Args:
        path: the sweep's folder.
        options: ``figure``, ``to``, ``with_`` (texts ``NAME=VALUE``), ``width``, ``height``, ``font_size``.
        console: prints the lines.

    Raises:
        UserError: an option is wrong, the sweep has nothing that the figure could show, or the file cannot be written.
    """
    if options.figure not in REPORT_FIGURES:
        raise UserError(unknown_name("--figure", options.figure, REPORT_FIGURES))
    size, to = picture_size(options.width, options.height, options.font_size), user_path(options.to, "--to")
    arguments = _arguments(options.with_ or ())
    require_picture_file(to)
    figure = draw_figure(options.figure, gathered(path), arguments)
    write_figure(figure, to, size)
    for line in (str(to), *figure.notes):
        print_line(console, line)


def _arguments(texts: Sequence[str]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for text in texts:
        name, sign, value = text.partition("=")
        if not (name and sign):
            raise UserError(f"--with is {text!r}, but must be NAME=VALUE, such as x=latency_ms_1")
        found.setdefault(name, []).append(value)
    return found
