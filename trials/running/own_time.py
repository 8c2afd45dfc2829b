"""The wall-clock time of a trial over its attempts, without that of its shared trials, and the limit on it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from trials.errors import TimeLimit
from trials.storage.trial_folder import State


class OwnTime:
    """Counts the seconds of one attempt from its construction on, on top of those that the trial has committed.

    Seconds between the last commit and the death of a process are not counted.

    Args:
        state: that of the trial when the attempt begins.
        limit_s: seconds that the trial may take in all; None: any number.
    """

    def __init__(self, state: State, limit_s: float | None) -> None:
        self.limit_s = limit_s
        committed = state.progress.get(OWN_SECONDS, state.seconds)
        self._before = float(committed) - time.monotonic()
        self._paused_at: float | None = None

    @property
    def seconds(self) -> float:
        """Seconds so far."""
        return self._before + (time.monotonic() if self._paused_at is None else self._paused_at)

    @property
    def over(self) -> bool:
        """Whether the trial has taken as long as it may."""
        return self.limit_s is not None and self.seconds >= self.limit_s

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Do not count the time within the context, in which other trials are computed or waited for."""
        if self._paused_at is not None:
            yield
            return
        self._paused_at = time.monotonic()
        try:
            yield
        finally:
            self._before -= time.monotonic() - self._paused_at
            self._paused_at = None

    def require(self) -> None:
        """Raise TimeLimit if the trial has taken as long as it may."""
        if self.limit_s is not None and self.over:
            raise TimeLimit(
                f"it has taken {self.seconds / 3600:.3g} h, but trial_hours is {self.limit_s / 3600:g}: raise it and "
                "add --retry-failed, and the trial goes on from its last commit"
            )


OWN_SECONDS = "own_seconds"
"""Key of these seconds in the progress of a committed state."""
