"""One owner at a time, with takeover from the dead.

A lease names its owner (host, process, start of the process) and holds a heartbeat that its owner counts up. Whoever
finds it may take it over when the owner is a process of this machine that no longer lives, or when the heartbeat has
stood still for ``patience_s`` by the finder's own clock (so that clocks that jump or differ do no harm). Where the
owner is written, and how two who want it at the same time are kept apart, is ``seats.py``'s business.

Nobody can be stopped by a lease from writing late, when frozen for longer than others' patience: that is refused by the
number of the attempt (``ledger.py``). An owner that was succeeded learns of it at its next heartbeat.
"""

from __future__ import annotations

import threading
import time
from dataclasses import replace
from pathlib import Path
from types import TracebackType

from trials.storage.lease_store import FileLeaseStore, LeaseStore, ObjectLeaseStore
from trials.storage.owner import Owner
from trials.storage.place import Place

HEARTBEAT_S = 5.0
PATIENCE_S = 60.0


class Lease:
    """A lease on a folder: ``with Lease(folder) as lease`` after :meth:`acquire` has said yes."""

    def __init__(self, folder: Place, *, heartbeat_s: float = HEARTBEAT_S, patience_s: float = PATIENCE_S) -> None:
        self._seat: LeaseStore = FileLeaseStore(folder) if isinstance(folder, Path) else ObjectLeaseStore(folder)
        self._heartbeat_s, self._patience_s = heartbeat_s, patience_s
        self._mine: Owner | None = None
        self._seen: dict[str, tuple[Owner, float]] = {}
        self.lost = False
        """Somebody else has taken the lease over: whoever held it must stop."""
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def owner(self) -> Owner | None:
        """Who holds the lease now, if anybody."""
        return self._seat.owner()

    @property
    def token(self) -> str:
        """Of whoever holds the lease through this object; empty for nobody."""
        return self._mine.token if self._mine is not None else ""

    def acquire(self) -> bool:
        """Take the lease if it is free or its owner is dead. Call again to wait: patience is counted between calls."""
        me = Owner.me()
        if not self._seat.take(me, self._gone):
            return False
        self._mine, self.lost = me, False
        self._stop.clear()
        self._thread = threading.Thread(target=self._beat, name="lease", daemon=True)
        self._thread.start()
        return True

    def _gone(self, holder: Owner) -> bool:
        now = time.monotonic()
        seen = self._seen.get(holder.token)
        if seen is None or seen[0] != holder:
            seen = self._seen[holder.token] = (holder, now)
        return holder.surely_dead or now - seen[1] > self._patience_s

    def _beat(self) -> None:
        while not self._stop.wait(self._heartbeat_s):
            assert self._mine is not None
            mine = replace(self._mine, beat=self._mine.beat + 1)
            try:
                kept = self._seat.renew(mine)
            except OSError:  # a full disk, a store that does not answer: the next beat may come through
                continue
            if not kept:
                self.lost = True
                return
            self._mine = mine

    def release(self) -> None:
        """Give the lease back, unless somebody has taken it over."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join()
        if self._mine is not None:
            self._seat.leave(self._mine)
        self._mine = None

    def __enter__(self) -> Lease:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()
