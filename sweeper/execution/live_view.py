"""The live view of a running sweep: a panel on a terminal or in a notebook, plain lines elsewhere.

The driver's loop calls it thousands of times, so a call costs only microseconds: it updates counters. With a panel, a
thread draws the panel from the counters a few times a second. There are no locks, because a signal handler may call
:meth:`LiveView.note` at any point.
"""

from __future__ import annotations

import os
import threading
import time
from collections import deque
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any

from rich.console import Console
from rich.live import Live
from rich.spinner import Spinner
from rich.text import Text

from sweeper.console import NotebookConsole
from sweeper.execution.notebook_panel import NotebookPanel
from sweeper.screen.activity import REFRESHES_PER_SECOND, spinner_of
from sweeper.screen.number_texts import fixed
from sweeper.screen.trial_panel import TrialPanel
from trials.errors import one_line
from trials.storage.rows import FINISHED

CELLS_SHOWN = 12
RUNNING_SHOWN = 16
LINES_AT_ONCE = 8
LINES_PER_SECOND = 4.0
"""Without a terminal: the largest burst of lines, and the lines per second after it; further endings share a line."""

ABANDON_S = 0.2
"""Seconds that a terminal may take to get its cursor back before a process ends at once."""


@dataclass
class _Running:
    cell: str
    since: float
    row: dict[str, Any] | None = None


@dataclass
class _Sum:
    """Counts endings that got no line of their own."""

    count: int = 0
    warned: int = 0
    statuses: dict[str, int] = field(default_factory=dict)

    def add(self, status: str, warned: bool) -> None:
        self.count += 1
        self.warned += warned
        self.statuses[status] = self.statuses.get(status, 0) + 1

    def take(self) -> str:
        """Return the counts as text and reset them."""
        text = f"{self.count} trials: {', '.join(f'{n} {status}' for status, n in sorted(self.statuses.items()))}"
        text += f", {self.warned} with warnings" if self.warned else ""
        self.count, self.warned, self.statuses = 0, 0, {}
        return text


class LiveView:
    """Shows the progress that the driver reports. Use as a context manager.

    Args:
        totals: by cell, the number of samples that it will have in the end; a cell is done when these have ended.
        console: where to print: one panel on a terminal or in a notebook, otherwise lines.
        objective: name of the trials' values.
        direction: ``maximize`` or ``minimize``.
    """

    def __init__(self, totals: Mapping[str, int], console: Console, objective: str, direction: str) -> None:
        self.total, self.console, self.objective = sum(totals.values()), console, objective
        self.done = self.failed = self.already = self.warned = 0
        self.running: dict[str, _Running] = {}
        self._sign = 1 if direction.startswith("max") else -1
        self._totals = dict(totals)
        self._best: dict[str, float] = {}  # by cell; the cell that improved last is last
        self._ended_in: dict[str, int] = {}  # by cell
        self._over: set[str] = set()  # cells
        self._failed: dict[str, list[str]] = {}  # by failed trial that was not started again: each sample's cell
        self._began = time.monotonic()
        self._live: Live | NotebookPanel | None = None
        self._unsaid, self._allowance, self._allowed_at = _Sum(), float(LINES_AT_ONCE), self._began
        self._known = _Sum()
        self._lines: deque[str] = deque()
        self._printing = False
        self._spinner = Spinner(spinner_of(console))
        self._asked = self._answered = False  # whether a worker was asked to begin a trial, and one has begun
        self._doing: tuple[str, float] | None = None  # what, and since when

    def __enter__(self) -> LiveView:
        self._began = self._allowed_at = time.monotonic()
        if self.console.is_terminal:
            self._live = Live(
                console=self.console,
                get_renderable=self._render,
                refresh_per_second=REFRESHES_PER_SECOND,
                transient=True,
            )
            self._live.start()
        elif isinstance(self.console, NotebookConsole):
            self._live = NotebookPanel(self._render)
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live is not None:
            self._live.stop()
            self._live = None
        self._say_sums()

    def doing(self, text: str) -> None:
        """Show beside a spinner what is done before the first trial reports anything; without a panel, nothing."""
        self._doing = (text, time.monotonic())

    def abandon(self) -> None:
        """Give the terminal its cursor back before the process ends at once. May be called from a signal handler.

        Waits for the terminal no longer than a moment, since it may take no output any more.
        """
        if self._live is not None and not isinstance(self._live, NotebookPanel):
            with suppress(OSError, ValueError):  # no terminal any more
                fd = self.console.file.fileno()
                writer = threading.Thread(target=os.write, args=(fd, b"\x1b[?25h\r\n"), daemon=True)
                writer.start()
                writer.join(ABANDON_S)

    def answered(self, trial_id: str) -> None:
        """Show that a worker has begun a trial."""
        if not self._answered:
            self._answered = True
            self.doing(f"{trial_id} has started: it reads its data and builds its model")

    def started(self, trial_id: str, cell: str) -> None:
        """Show that a trial was handed to a worker, for the first time or again."""
        if not (self._asked or self._answered):
            self._asked = True
            self.doing("waiting for the first worker, whose process imports torch")
        self.running[trial_id] = _Running(cell, time.monotonic())
        for counted in self._failed.pop(trial_id, ()):
            self.failed -= 1
            self._count(counted, -1)
        self._catch_up()

    def resize(self, cell: str, samples: int) -> None:
        """Show that a cell will have ``samples`` in the end: fewer than before if its population has died out."""
        self.total += samples - self._totals[cell]
        self._totals[cell] = samples
        self._count(cell, 0)

    def row(self, trial_id: str, row: dict[str, Any]) -> None:
        """Show a row of ``epochs`` that a running trial has reported."""
        running = self.running.get(trial_id)
        if running is not None:
            running.row, self._doing = row, None
        self._catch_up()

    def ended(
        self,
        trial_id: str,
        cell: str,
        status: str,
        value: float | None,
        already: bool,
        warnings: Sequence[str] = (),
        confirms: bool = False,
    ) -> None:
        """Count one sample of a trial whose attempt has ended: call once per sample that the trial serves.

        Args:
            already: the trial ended earlier, and gets no line of its own.
            warnings: codes of its result.
            confirms: the sample is a confirmation, whose value is never the cell's best.
        """
        if status == "complete" and value is not None and not confirms:
            self._note_best(cell, value)
        now = time.monotonic()
        running = self.running.pop(trial_id, None)
        self._doing = self._doing if already else None
        if status in FINISHED:
            self.done += 1
            self.already += already
            self.warned += bool(warnings)
            self._count(cell, 1)
        elif status == "failed":
            self.failed += 1
            self._failed.setdefault(trial_id, []).append(cell)
            self._count(cell, 1)
        if self._live is not None:
            return
        if already:
            self._known.add(status, bool(warnings))
        elif self._may_speak(now):
            self._say_sums()
            said = f"{cell} confirmation".strip() if confirms else cell
            line = self._line(trial_id, said, status, value, now - running.since if running else None)
            self._say(f"{line} [{', '.join(warnings)}]" if warnings else line)
        else:
            self._unsaid.add(status, bool(warnings))

    def note(self, text: str) -> None:
        """Print a line, e.g. a warning. May be called from a signal handler."""
        self._say(text)

    def _count(self, cell: str, change: int) -> None:
        ended = self._ended_in[cell] = self._ended_in.get(cell, 0) + change
        if ended >= self._totals[cell]:
            self._over.add(cell)
        else:
            self._over.discard(cell)

    def _note_best(self, cell: str, value: float) -> None:
        best = self._best.get(cell)
        if best is None or self._sign * value > self._sign * best:
            self._best.pop(cell, None)
            self._best[cell] = value

    def _may_speak(self, now: float) -> bool:
        """Whether a line may be printed now: takes a token from a bucket that fills at LINES_PER_SECOND."""
        filled = self._allowance + (now - self._allowed_at) * LINES_PER_SECOND
        self._allowance, self._allowed_at = min(float(LINES_AT_ONCE), filled), now
        if self._allowance < 1:
            return False
        self._allowance -= 1
        return True

    def _line(self, trial_id: str, cell: str, status: str, value: float | None, seconds: float | None) -> str:
        figure = "" if value is None else f" {self.objective} {fixed(value, 4)}"
        took = "" if seconds is None else f" ({seconds:.1f} s)"
        return f"{self._progress()} {trial_id} {cell} {status}{figure}{took}".replace("  ", " ")

    def _progress(self) -> str:
        return f"{self.done + self.failed}/{self.total}"

    def _catch_up(self) -> None:
        if (self._unsaid.count or self._known.count) and self._may_speak(time.monotonic()):
            self._say_sums()

    def _say_sums(self) -> None:
        if self._known.count:
            self._say(f"already finished: {self._known.take()}")
        if self._unsaid.count:
            self._say(f"{self._progress()} and {self._unsaid.take()}")

    def _say(self, text: str) -> None:
        """Print a line. Streams are not reentrant: a signal handler's line waits until the current one is printed."""
        text = one_line(text)
        if isinstance(self._live, NotebookPanel):
            self._live.note(text)
            return
        self._lines.append(text)
        if self._printing:
            return
        self._printing = True
        try:
            while self._lines:
                self.console.print(self._lines.popleft(), soft_wrap=True, markup=False, highlight=False)
        finally:
            self._printing = False

    def _render(self) -> TrialPanel:
        """The panel on a terminal, built from the counters."""
        now = time.monotonic()
        # Copied, because the driver's thread changes them meanwhile.
        running, best, over = list(self.running.items()), list(self._best.items()), len(self._over)
        cells = len({trial.cell for _, trial in running} - self._over)
        warned = f", {self.warned} with warnings" if self.warned else ""
        headline = [
            f"cells {over} done, {cells} running, {len(self._totals) - over - cells} left",
            f"trials {self._progress()}, {len(running)} running, {self.failed} failed{warned}",
            self._times(now),
        ]
        return TrialPanel(
            headline,
            [(cell, f"{self.objective} {fixed(value, 4)}") for cell, value in best],
            [(name, t.cell, f"{_where(t.row)} ({_duration(now - t.since)})") for name, t in running],
            (CELLS_SHOWN, RUNNING_SHOWN),
            self._spinner_at(now),
        )

    def _spinner_at(self, now: float) -> Spinner | None:
        doing = self._doing
        if doing is None:
            return None
        self._spinner.update(text=Text(f"{doing[0]} ({_duration(now - doing[1])})"))
        return self._spinner

    def _times(self, now: float) -> str:
        """Time elapsed, and time left as estimated from the trials that ended in this run."""
        elapsed, ended = now - self._began, self.done + self.failed - self.already
        if ended <= 0:
            return _duration(elapsed)
        left = elapsed / ended * max(0, self.total - self.done - self.failed)
        return f"{_duration(elapsed)}, about {_duration(left)} left"


def _where(row: dict[str, Any] | None) -> str:
    if row is None:
        return "starting"
    accuracy = row.get("val_accuracy")
    reached = "" if accuracy is None else f", val_accuracy {accuracy:.4f}"
    return f"{row.get('stage')}, level {row.get('level')}, epoch {row.get('epoch')}{reached}"


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
