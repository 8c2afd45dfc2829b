"""The live view's panel in a notebook: one display that is updated in place, however many trials there are."""

from __future__ import annotations

import io
import threading
from collections import deque
from collections.abc import Callable
from html import escape
from typing import Any

from rich.console import Console, RenderableType

REFRESH_S = 1.0
"""Seconds between two updates."""

NOTES_SHOWN = 6
"""Number of the last notes that the panel shows."""

_WIDTH = 120


class NotebookPanel:
    """Shows what ``render`` returns, and the last notes below it, until it is stopped; the last state stays.

    Must be started in the thread that runs the cell.
    """

    def __init__(self, render: Callable[[], RenderableType]) -> None:
        self._render = render
        self._notes: deque[str] = deque(maxlen=NOTES_SHOWN)
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._follow, name="notebook panel", daemon=True)
        self._shown = ""

    def start(self) -> None:
        """Display the panel below the cell, and update it from now on."""
        from IPython.display import display

        self._shown = self._text()
        show: Callable[..., Any] = display
        self._handle = show(self._html(), display_id=True)
        self._thread.start()

    def note(self, text: str) -> None:
        """Show a line; earlier ones scroll away."""
        self._notes.append(text)

    def stop(self) -> None:
        """Update the panel a last time."""
        self._over.set()
        self._thread.join()
        self._update()

    def _follow(self) -> None:
        while not self._over.wait(REFRESH_S):
            self._update()

    def _update(self) -> None:
        text = self._text()
        if text != self._shown and self._handle is not None:
            self._shown = text
            self._handle.update(self._html())

    def _text(self) -> str:
        out = io.StringIO()
        Console(file=out, width=_WIDTH, force_terminal=False, force_jupyter=False, no_color=True).print(self._render())
        return "\n".join([*(line.rstrip() for line in out.getvalue().splitlines()), *self._notes])

    def _html(self) -> object:
        from IPython.display import HTML

        made: Callable[[str], object] = HTML
        return made(f"<pre>{escape(self._shown)}</pre>")
