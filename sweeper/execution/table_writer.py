"""Packs a sweep's finished trials and writes its tables while it runs, so that --show and load stay fast elsewhere."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Collection
from functools import partial

from sweeper.folder.sweep_folder import SweepFolder
from sweeper.packing.automatic import pack_if_many
from sweeper.results.table_cache import FinishedRecords
from sweeper.results.tables import compact_tables
from trials.errors import UserError
from trials.storage.outages import impatient

COMPACT_EVERY_S = 60.0
"""Seconds between two writes of the tables."""

COMPACT_SHARE = 0.05
"""Upper bound on the share of driver time spent writing tables; on slow storage they are written less often."""


class TableWriter:
    """Knows when a sweep's tables are due."""

    def __init__(self, folder: SweepFolder, known: FinishedRecords | None = None) -> None:
        self.folder, self._known = folder, known
        self._due = time.monotonic() + COMPACT_EVERY_S
        self._took_s = 0.0

    def write_if_due(self, running: Collection[str] = ()) -> None:
        """Write the tables if they are due, after packing what is finished if that is much; ``running`` is not."""
        began = time.monotonic()
        if began > self._due:
            for act in (
                partial(pack_if_many, self.folder, running),
                partial(compact_tables, self.folder, self._known),
            ):
                with contextlib.suppress(OSError, UserError), impatient():  # nothing is lost: the next time will do
                    act()
            took = time.monotonic() - began
            self._took_s += took
            self._due = time.monotonic() + max(COMPACT_EVERY_S, took / COMPACT_SHARE)

    def newly_took_s(self) -> float:
        """Seconds that this took since the last call, in which the driver heard of no trial."""
        took, self._took_s = self._took_s, 0.0
        return took
