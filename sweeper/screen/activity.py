"""What a command is doing before it has anything to show: a spinner on a terminal, nothing elsewhere."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.markup import escape

REFRESHES_PER_SECOND = 4
"""Few, since each takes time from what is waited for."""


def spinner_of(console: Console) -> str:
    """The name of a spinner that the console's encoding can show."""
    return "line" if console.options.ascii_only else "dots"


@contextmanager
def doing(console: Console, text: str) -> Iterator[Callable[[str], None]]:
    """Show a spinner beside ``text`` in this block; yields a function that replaces the text.

    What is printed meanwhile stands above it. An error, an interrupt included, takes it away and goes on. Without a
    terminal nothing is shown.
    """
    if not console.is_terminal:
        yield lambda text: None
        return
    spinner = spinner_of(console)
    with console.status(escape(text), spinner=spinner, refresh_per_second=REFRESHES_PER_SECOND) as status:
        yield lambda text: status.update(escape(text))
