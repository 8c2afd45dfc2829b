"""Console output of commands: tables and lines, as aligned plain text if the output is not a terminal."""

from __future__ import annotations

import sys
from collections.abc import Collection, Mapping, Sequence
from typing import TextIO

from rich.console import Console

from sweeper.screen.fitted_table import print_fitted
from trials.errors import one_line
from trials.system.streams import lasting


def print_table(
    columns: Mapping[str, Sequence[str]],
    console: Console,
    left: Collection[str] = (),
    keys: Collection[str] = (),
    below: Collection[str] = (),
) -> None:
    """Print columns of text as a table with the names as headings; those in ``left`` are aligned to the left.

    On a terminal the table fits its width, and no value is cut (:func:`.fitted_table`, which explains ``keys`` and
    ``below``).
    """
    if console.is_terminal:
        print_fitted(console, columns, left=left, keys=keys, below=below)
        return
    columns = {one_line(name): [one_line(text) for text in texts] for name, texts in columns.items()}
    left = {one_line(name) for name in left}
    widths = {name: max(map(len, (name, *texts))) for name, texts in columns.items()}
    lines = []
    for texts in (tuple(columns), *zip(*columns.values(), strict=True)):
        aligned = (
            text.ljust(width) if name in left else text.rjust(width)
            for text, (name, width) in zip(texts, widths.items(), strict=True)
        )
        lines.append("  ".join(aligned).rstrip())
    print_text(console, "\n".join(lines))  # in one call: a call per line is slow for many cells


def print_line(console: Console, text: str) -> None:
    """Print a line without wrapping or markup; line breaks and control characters in it become escapes."""
    print_text(console, one_line(text))


def print_text(console: Console, text: str) -> None:
    """Print a text of one or more lines without wrapping or markup."""
    console.print(text, soft_wrap=True, markup=False, highlight=False)


def make_console(file: TextIO | None = None) -> Console:
    """Return a console that neither wraps nor colours its output if that is not a terminal; by default, of stdout."""
    console = Console(highlight=False, file=file)
    if console.is_terminal:
        return console
    return Console(highlight=False, width=10_000, no_color=True, soft_wrap=True, file=file)


class NotebookConsole(Console):
    """A console whose lines are plain text below a notebook's cell, and beside which a panel may be displayed."""


def console_here(*, quiet: bool = False) -> Console:
    """Return the console of a Python program: a terminal, a notebook, plain lines elsewhere, or none.

    ``quiet``: print nothing.
    """
    plain = {"highlight": False, "width": 10_000, "no_color": True, "soft_wrap": True, "force_jupyter": False}
    if quiet:
        return Console(quiet=True, force_terminal=False, **plain)  # type: ignore[arg-type]
    if in_notebook():
        return NotebookConsole(force_terminal=False, **plain)  # type: ignore[arg-type]
    return make_console(lasting(sys.stdout))


def in_notebook() -> bool:
    """Whether this process is the kernel of a notebook, or of another front end that shows displays."""
    shell = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
    return getattr(shell, "kernel", None) is not None
