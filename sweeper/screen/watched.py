"""A text that is printed again and again: on a terminal's screen, or as one block after the other where it is piped."""

from __future__ import annotations

import io
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType

from rich.console import Console, ScreenContext
from rich.text import Text


class Watched:
    """Shows the latest of several versions of a text. Use as a context manager.

    A terminal's own screen shows as many lines as it has room for, and comes back at the end with the whole text below
    what it had. Without a terminal, a text that differs from the one before is printed whole.

    Args:
        console: where to show it.
        every_s: seconds between two versions, for the last line of the screen.
    """

    def __init__(self, console: Console, every_s: float) -> None:
        self.console, self.every_s = console, every_s
        self._screen: ScreenContext | None = None
        self._block = self._shown = self._away = ""

    def __enter__(self) -> Watched:
        if self.console.is_terminal:
            self._screen = self.console.screen(hide_cursor=True)
            self._screen.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._screen is not None:
            self._screen.__exit__(kind, error, trace)
            self._print(self._shown)
            if self._away:
                self._print(f"{self._away}\n")

    @contextmanager
    def reading(self) -> Iterator[Console]:
        """Yield a console on which to print the next version; it counts once the block has ended without an error."""
        like = self.console
        out = io.StringIO()
        terminal = {"force_terminal": True, "color_system": like.color_system, "width": like.width}
        plain = {"force_terminal": False, "width": like.width, "no_color": True, "soft_wrap": True}
        yield Console(file=out, highlight=False, **(terminal if like.is_terminal else plain))
        self._block = out.getvalue()

    def show(self) -> None:
        """Show the version that was read last."""
        back = f"the storage is back ({time.strftime('%H:%M:%S')})\n" if self._away else ""
        self._away = ""
        if self._screen is not None:
            self._shown = self._block
            self._draw()
        elif self._block != self._shown:
            self._print(back + "\n" * bool(self._shown) + self._block)
            self._shown = self._block
        elif back:
            self._print(back)

    def away(self, why: str) -> None:
        """Say that the next version cannot be read, once until one can."""
        if not self._away:
            self._away = (
                f"cannot be read since {time.strftime('%H:%M:%S')} ({why}): tried again every {self.every_s:g} s"
            )
            if self._screen is None:
                self._print(f"{self._away}\n")
        if self._screen is not None:
            self._draw()

    def _draw(self) -> None:
        assert self._screen is not None
        width, height = self.console.size
        said = self._away or f"{time.strftime('%H:%M:%S')}, every {self.every_s:g} s; Ctrl-C ends"
        last = list(Text(said, style="reverse").wrap(self.console, width))
        lines = [one for line in self._shown.splitlines() for one in Text.from_ansi(line).wrap(self.console, width)]
        room = max(height - len(last), 1)
        if len(lines) > room:
            lines[room - 1 :] = [Text(f"and {len(lines) - room + 1} more lines, printed at the end", style="dim")]
        self._screen.update(Text("\n").join([*lines, *last]))

    def _print(self, text: str) -> None:
        self.console.file.write(text)
        self.console.file.flush()
