"""Trials whose last attempt has failed, but which run again: they have not failed yet."""

from __future__ import annotations

from dataclasses import replace
from typing import TypeVar

from sweeper.results.frames import SweepTables
from sweeper.results.stored_space import StoredSpace
from trials.errors import TIME_LIMIT

TO_RETRY = "to retry"
"""What such a trial's status is called in reports."""

_Tables = TypeVar("_Tables", bound=SweepTables)


def with_retries(sweep: _Tables, space: StoredSpace) -> _Tables:
    """Return the tables with the status :data:`TO_RETRY` for failed trials that have retries left."""
    trials = sweep.trials
    left = (trials["status"] == "failed") & (trials["failures"].fillna(0) <= space.retries)
    left &= trials["error_type"] != TIME_LIMIT
    if not left.any():
        return sweep
    return replace(sweep, trials=trials.assign(status=trials["status"].mask(left.astype(bool), TO_RETRY)))
