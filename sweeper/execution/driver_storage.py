"""How a driver waits for a storage that errs, and what ends its run if that lasts too long."""

from __future__ import annotations

import time
from collections.abc import Callable

from sweeper.execution.storage_news import StorageNews
from sweeper.search.plan import Assignment, Plan
from trials.errors import Preempted, StorageError
from trials.storage.outages import Outage, StoragePatience, errs

FULL_S = 5.0
"""Most seconds to pause scheduling after the storage erred."""


class DriverStorage:
    """The storage of a plan's driver.

    Args:
        note: shows a line.

    Attributes:
        news: what is said of the storage.
        patience: how long the driver's calls wait for it.
        interrupted: whether a signal came some seconds ago, so that they wait no longer.
        ended_by: what has ended the run.
        given_up: why a machine could not use the storage.
    """

    def __init__(self, plan: Plan, note: Callable[[str], None]) -> None:
        self.news = StorageNews(note)
        self.interrupted: Callable[[], bool] = lambda: False
        self.patience = StoragePatience(
            lambda text, errs: self.news.heard("", text, errs=errs),
            lambda: self.interrupted(),
            plan.space.storage_patience_s,
        )
        self.ended_by: StorageError | Preempted | None = None
        self.given_up: StorageError | None = None
        self._plan = plan
        self._outage: Outage | None = None  # of scheduling
        self._schedule_at = self._waited_s = 0.0

    @property
    def pauses(self) -> bool:
        """Whether nothing is scheduled now, since the storage has just erred."""
        return time.monotonic() < self._schedule_at

    def next_assignment(self) -> Assignment | None:
        """The plan's next assignment; None while the storage errs when it is to be scheduled."""
        try:
            assignment = self._plan.next()
        except OSError as error:
            if not errs(error):
                raise
            self._outage = self._outage or Outage(self.patience, self._plan.folder.trials)
            self._outage.failed(error)
            self._schedule_at = time.monotonic() + min(self._outage.next_pause(), FULL_S)
            return None
        if self._outage is not None:
            self._outage.end(waited=False)
            self._outage = None
        return assignment

    def newly_waited_s(self) -> float:
        """Seconds that calls have waited since this was last asked: nobody was listening to the trials."""
        before, self._waited_s = self._waited_s, self.patience.waited_s
        return self._waited_s - before
