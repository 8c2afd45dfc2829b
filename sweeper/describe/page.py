"""Pages of ``--describe``: titles, paragraphs and tables that fit into 80 columns; plain text where they are piped."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass, field

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from sweeper.console import print_text

PAGE_WIDTH = 80
"""Columns of a page; a narrower terminal has fewer."""

_MARGIN = 34
"""Largest width of a table's first column where the page is piped."""


@dataclass
class PageTable:
    """A table of two columns: what it is about, and what is said of it."""

    title: str
    rows: list[tuple[str, str]] = field(default_factory=list)


@dataclass
class Page:
    """What is said of a name.

    Attributes:
        title: its kind and name.
        paragraphs: of text; those of several lines are printed as they are.
        tables: that follow.
    """

    title: str
    paragraphs: Sequence[str] = ()
    tables: Sequence[PageTable] = ()

    def print(self, console: Console) -> None:
        """Print the page, wrapped to at most :data:`PAGE_WIDTH` columns."""
        width = min(console.width, PAGE_WIDTH)
        if console.is_terminal:
            console.print(f"[bold]{escape(self.title)}[/bold]")
        else:
            print_text(console, self.title)
        for paragraph in self.paragraphs:
            print_text(
                console, paragraph if "\n" in paragraph or paragraph.startswith(" ") else _filled(paragraph, width)
            )
        for table in self.tables:
            if table.rows:
                (_print_rich if console.is_terminal else _print_plain)(table, console, width)


def _filled(text: str, width: int) -> str:
    return textwrap.fill(text, width, break_long_words=False, break_on_hyphens=False)


def _print_rich(table: PageTable, console: Console, width: int) -> None:
    shown = Table(title=escape(table.title), title_justify="left", width=width, show_header=False, show_lines=False)
    shown.add_column(overflow="fold", max_width=_MARGIN, style="cyan")
    shown.add_column(overflow="fold")
    for name, text in table.rows:
        shown.add_row(escape(name), escape(text))
    console.print(shown)


def _print_plain(table: PageTable, console: Console, width: int) -> None:
    """Print a table as aligned text; a name that is too long has a line of its own."""
    names = [len(name) for name, _ in table.rows if len(name) <= _MARGIN]
    margin = max(names, default=_MARGIN)
    lines = ["", _filled(table.title, width)]
    for name, text in table.rows:
        wrapped = textwrap.wrap(text, width - margin - 4, break_on_hyphens=False) or [""]
        if len(name) > margin:
            lines.append(f"  {name}")
            wrapped = ["", *wrapped]
        else:
            lines.append(f"  {name.ljust(margin)}  {wrapped[0]}".rstrip())
        lines += [f"  {' ' * margin}  {line}" for line in wrapped[1:]]
    print_text(console, "\n".join(lines))
