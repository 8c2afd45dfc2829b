"""Leases on folders: one owner at a time, and takeover from owners that have died.

A lease names its owner (host, process, start time of the process) and holds a heartbeat counter that the owner
increments. Another process may take the lease over if the owner was a process of this host that no longer runs, or if
the heartbeat has not changed for ``patience_s`` on the observer's own monotonic clock (so clock skew and clock jumps do
no harm). ``lease_store.py`` stores the owner and resolves simultaneous claims.

A lease cannot prevent late writes by an owner that was frozen for longer than ``patience_s``. ``trial_folder.py``
refuses those by attempt number. An owner that was replaced notices at its next heartbeat.
"""

from __future__ import annotations

import threading
import time
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from types import TracebackType

from trials.storage.leases.lease_store import FileLeaseStore, LeaseStore, ObjectLeaseStore
from trials.storage.leases.owner import Owner
from trials.storage.outages import impatient, patiently
from trials.storage.place import Place

HEARTBEAT_S = 5.0
PATIENCE_S = 60.0


_HELD = set[str]()
"""Tokens of the leases that this process holds or asks for. Another one of its own was given up while the storage
erred, and could not be removed."""


class Lease:
    """A lease on a folder. Call :meth:`acquire`; once it returns True, ``with lease:`` releases it at the end."""

    def __init__(self, folder: Place, *, heartbeat_s: float = HEARTBEAT_S, patience_s: float = PATIENCE_S) -> None:
        self._folder = folder
        self._store: LeaseStore = FileLeaseStore(folder) if isinstance(folder, Path) else ObjectLeaseStore(folder)
        self._heartbeat_s, self._patience_s = heartbeat_s, patience_s
        self._mine: Owner | None = None
        self._seen: dict[str, tuple[Owner, float]] = {}
        self.lost = False
        """True once another process has taken the lease over; the holder must stop."""
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def owner(self) -> Owner | None:
        """Return the current owner, or None if the lease is free."""
        return patiently(self._store.owner, self._folder)

    @property
    def token(self) -> str:
        """This object's token while it holds the lease, else empty."""
        return self._mine.token if self._mine is not None else ""

    def acquire(self) -> bool:
        """Take the lease if it is free or its owner is dead; return whether it was taken.

        To wait for the lease, call this repeatedly: the heartbeat is compared between calls. Where the storage errs,
        comparing begins anew: the owner, too, may have been unable to write its heartbeat.

        Raises:
            OSError, StorageError: the storage errs (:mod:`.outages`).
        """
        me = Owner.me()
        _HELD.add(me.token)
        try:
            taken = patiently(lambda: self._take(me), self._folder)
        except BaseException:
            _HELD.discard(me.token)
            raise
        if not taken:
            _HELD.discard(me.token)
            return False
        self._mine, self.lost = me, False
        self._stop.clear()
        self._thread = threading.Thread(target=self._beat, name="lease", daemon=True)
        self._thread.start()
        return True

    def _take(self, me: Owner) -> bool:
        try:
            return self._store.take(me, self._gone)
        except OSError:
            self._seen.clear()
            raise

    def _gone(self, holder: Owner) -> bool:
        now = time.monotonic()
        seen = self._seen.get(holder.token)
        if seen is None or seen[0] != holder:
            seen = self._seen[holder.token] = (holder, now)
        given_up = holder.is_this_process and holder.token not in _HELD
        return holder.surely_dead or given_up or now - seen[1] > self._patience_s

    def _beat(self) -> None:
        while not self._stop.wait(self._heartbeat_s):
            assert self._mine is not None
            mine = replace(self._mine, beat=self._mine.beat + 1)
            try:
                kept = self._store.renew(mine)
            except OSError:  # full disk or unreachable store: the next heartbeat may succeed
                continue
            if not kept:
                self.lost = True
                return
            self._mine = mine

    def release(self) -> None:
        """Stop the heartbeat and give the lease back, unless another process has taken it over."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join()
        if self._mine is not None:
            with suppress(OSError), impatient():  # it errs: the lease ends with this process, or after its patience
                self._store.leave(self._mine)
            _HELD.discard(self._mine.token)
        self._mine = None

    def __enter__(self) -> Lease:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()
