"""The panel of a running sweep, laid out for the width and the height of its terminal."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderResult
from rich.spinner import Spinner
from rich.text import Text

from sweeper.screen.fitted_table import filled_lines

_GAP, _INDENT = 2, 4

Line = tuple[str, str, str]
"""What it is, its cell, and what is said of it."""


@dataclass(frozen=True)
class TrialPanel:
    """What the panel shows. Nothing is cut: where a line is too long, each becomes two, which are
    broken if need be.

    A terminal with too few lines gets fewer of ``best`` and of ``running``, and how many there are beside these.

    Attributes:
        headline: its parts, between which it is broken.
        best: the best value of the cells that have one, the latest last.
        running: the trials that run.
        most: of ``best`` and of ``running``, how many are shown.
        spinner: what is done before the first trial has begun; None afterwards.
    """

    headline: Sequence[str]
    best: Sequence[tuple[str, str]]
    running: Sequence[Line]
    most: tuple[int, int]
    spinner: Spinner | None = None

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        width = options.max_width
        head = list(_headline(self.headline, width))
        yield from head
        used = len(head)
        if self.spinner is not None:
            used += len(console.render_lines(self.spinner, options, pad=False))
            yield self.spinner
        yield from self._lines(width, console.height - used if console.is_terminal else None)

    def _lines(self, width: int, room: int | None) -> Iterator[Text]:
        best, running = min(self.most[0], len(self.best)), min(self.most[1], len(self.running))
        lines = self._aligned(best, running, width)
        while room is not None and len(lines) > room and (best > 1 or running > 1):
            if best > max(running // 2, 1) or running <= 1:
                best -= 1
            else:
                running -= 1
            lines = self._aligned(best, running, width)
        yield from lines

    def _aligned(self, best: int, running: int, width: int) -> list[Text]:
        """The lines for so many of each."""
        rows: list[Line] = [("best" * (not i), *one) for i, one in enumerate(self.best[len(self.best) - best :])]
        if (others := len(self.best) - best) > 0:
            rows.append(("", f"and in {others} more cells", ""))
        rows += self.running[:running]
        if (more := len(self.running) - running) > 0:
            rows.append(("", f"and {more} more running", ""))
        widths = [max((cell_len(row[i]) for row in rows), default=0) for i in range(3)]
        if sum(widths) + 2 * _GAP <= width:
            return [Text((" " * _GAP).join(map(_padded, row, [*widths[:2], 0])).rstrip()) for row in rows]
        lines: list[str] = []
        for name, cell, text in rows:
            lines += filled_lines(f"{name}  {cell}" if name else cell, width, 0 if name else _INDENT)
            lines += filled_lines(text, width, _INDENT) if text else []
        return list(map(Text, lines))


def _padded(text: str, width: int) -> str:
    return text + " " * max(width - cell_len(text), 0)


def _headline(parts: Sequence[str], width: int) -> Iterator[Text]:
    line = ""
    for part in parts:
        if line and cell_len(f"{line} · {part}") > width:
            yield Text(line)
            line = part
        else:
            line = f"{line} · {part}" if line else part
    yield Text(line)
