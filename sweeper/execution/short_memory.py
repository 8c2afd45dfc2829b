"""What a sweep does when memory runs short on a machine: Ray's memory monitor, or Linux, kills processes of trials.

Such a death is no fault of the trial if others ran beside it. Fewer trials run at once from then on.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

BY_RAY = "running low on memory"
"""What Ray's message says of a process that its memory monitor has killed."""

MEMORY_CALM_S = 20.0
"""Seconds without a new trial after such a death: those that run need the memory that it has left."""

TOGETHER_S = 5.0
"""Deaths within so many seconds are of trials that ran at the same time."""

RECOVER_S = 600.0
"""Seconds without such a death after which one trial more may run at once."""

VMSTAT = Path("/proc/vmstat")
"""Where Linux counts the processes that it has killed for lack of memory (``oom_kill``), since it started."""


class ShortMemory:
    """How many trials may run at once, after deaths for lack of memory; and which deaths these were.

    Args:
        clock: the time in seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._most: int | None = None
        self._last = -RECOVER_S
        self._why: dict[str, str] = {}
        self._kills = killed_by_linux()

    def died(self, trial_id: str, said: str, *, here: bool, beside: int, running: int) -> bool:
        """A trial's process has died; returns whether that was for lack of memory while others ran on its machine.

        Args:
            said: what Ray says of it.
            here: whether it ran on this machine.
            beside: how many other trials ran on its machine.
            running: how many other trials run.
        """
        kills, self._kills = self._kills, killed_by_linux()
        if BY_RAY in said:
            used = re.search(r"was ([\d.]+ ?\w+)(?: used)? / ([\d.]+ ?\w+)", said)
            how_full = f" ({used[1]} of {used[2]} were used)" if used else ""
            why = f"Ray's memory monitor killed its process, since memory ran short on its machine{how_full}"
        elif here and self._kills > kills:
            why = "its process died, and Linux has killed a process of this machine for lack of memory"
        else:
            return False
        together = self._clock() - self._last < TOGETHER_S
        self._last = self._clock()
        if beside or together:
            self._most = max(1, running if self._most is None else min(self._most - 1, running))
            why += f"; at most {self._most} at once for now"
        self._why[trial_id] = why
        return beside > 0 or together

    def why(self, trial_id: str) -> str:
        """Why a trial's process has died, as far as is known; forgets it."""
        return self._why.pop(trial_id, "its process died")

    def most(self, limit: int | None) -> int | None:
        """How many trials may run at once now; ``limit`` of them otherwise."""
        if self._most is not None and self._clock() - self._last >= RECOVER_S:
            self._most, self._last = self._most + 1, self._clock()
        return min((number for number in (limit, self._most) if number is not None), default=None)

    def refuses(self, running: int) -> bool:
        """Whether a further trial must not begin now beside those that run; one may always."""
        if not running or self._most is None:
            return False
        return self._clock() - self._last < MEMORY_CALM_S or running >= (self.most(None) or 1)


def killed_by_linux() -> int:
    """Number of processes that Linux has killed for lack of memory on this machine; 0 where it does not say."""
    with suppress(OSError, ValueError):
        for line in VMSTAT.read_text().splitlines():
            name, _, number = line.partition(" ")
            if name == "oom_kill":
                return int(number)
    return 0
