"""How attempts at trials ended, on the driver's display."""

from __future__ import annotations

from collections.abc import Callable

from sweeper.execution.live_view import LiveView
from sweeper.search.plan import Ending, Plan


class ShownEndings:
    """Shows endings.

    Args:
        why: says why a trial's process has died.
    """

    def __init__(self, plan: Plan, display: LiveView, why: Callable[[str], str]) -> None:
        self._plan, self._display, self._why = plan, display, why

    def show(self, endings: list[Ending]) -> None:
        """Show how an attempt at a trial ended, for each sample that the trial serves."""
        for ending in endings:
            self.count(ending, already=False)
        self.say_ended_searches()
        ending = endings[0]
        name = f"{ending.trial_id} ({ending.cell})"
        if ending.error is not None:
            self._display.note(f"{name} failed: {ending.error}{'; tried again' if ending.again else ''}")
        elif ending.status == "died" and not self._plan.stopping:
            self._display.note(f"{name}: {self._why(ending.trial_id)}; it resumes from its last commit")
        elif ending.empty_layers:
            self._display.note(f"{name}: {ending.empty_layers} layers have no weights left")

    def say_ended_searches(self) -> None:
        """Say which cells' searches have ended early."""
        while self._plan.shorter.notes:
            self._display.note(self._plan.shorter.notes.popleft())

    def count(self, ending: Ending, *, already: bool) -> None:
        """Count an ending among those of its cell; ``already``: the trial had ended when the sample was asked for."""
        self._display.resize(ending.cell, self._plan.totals[ending.cell])
        self._display.ended(
            ending.trial_id,
            ending.cell,
            ending.status,
            ending.value,
            already=already,
            warnings=ending.warnings,
            confirms=ending.confirms,
        )
