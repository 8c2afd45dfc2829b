"""Writes a sweep's tables while it runs, so that --show and load stay fast elsewhere."""

from __future__ import annotations

import contextlib
import time

from sweeper.folder.sweep_folder import SweepFolder
from sweeper.results.tables import compact_tables

COMPACT_EVERY_S = 60.0
"""Seconds between two writes of the tables."""

COMPACT_SHARE = 0.05
"""Upper bound on the share of driver time spent writing tables; on slow storage they are written less often."""


class TableWriter:
    """Knows when a sweep's tables are due."""

    def __init__(self, folder: SweepFolder) -> None:
        self.folder = folder
        self._due = time.monotonic() + COMPACT_EVERY_S

    def write_if_due(self) -> None:
        """Write the tables, if they are due."""
        began = time.monotonic()
        if began > self._due:
            with contextlib.suppress(OSError):  # the tables are derived: the next time will do
                compact_tables(self.folder)
            took = time.monotonic() - began
            self._due = time.monotonic() + max(COMPACT_EVERY_S, took / COMPACT_SHARE)
