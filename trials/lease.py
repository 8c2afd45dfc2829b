"""One owner at a time, with takeover from the dead.

A lease is a file that names its owner (host, process, start of the process) and a heartbeat that its owner counts up.
Whoever finds it may take it over when the owner is a process of this host that no longer lives, or when the heartbeat
has stood still for ``patience_s`` by the finder's own clock (so that clocks that jump or differ do no harm). Changes of
the file are made under a file lock, which the kernel drops with its holder.
"""

from __future__ import annotations

import json
import os
import socket
import threading
import time
import uuid
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType

from filelock import FileLock

from trials import files

HEARTBEAT_S = 5.0
PATIENCE_S = 60.0


@dataclass(frozen=True)
class Owner:
    """Who holds a lease."""

    host: str
    pid: int
    started: str
    token: str
    beat: int = 0

    @classmethod
    def me(cls) -> Owner:
        return cls(socket.gethostname(), os.getpid(), _start_of(os.getpid()), uuid.uuid4().hex)

    @property
    def surely_dead(self) -> bool:
        """Whether the owner was a process of this host that is gone (or whose number another process has now)."""
        return self.host == socket.gethostname() and _start_of(self.pid) != self.started

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host}"


def _start_of(pid: int) -> str:
    """When a process of this host started, in the kernel's ticks since boot; empty if there is none."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return "" if Path("/proc/self").exists() or not _alive(pid) else "unknown"
    return "" if stat[0] == "Z" else stat[19]


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


class Lease:
    """A lease on a folder: ``with Lease(folder) as lease`` after :meth:`acquire` has said yes."""

    def __init__(self, folder: Path, *, heartbeat_s: float = HEARTBEAT_S, patience_s: float = PATIENCE_S) -> None:
        self.path = folder / "lease.json"
        self._guard = FileLock(str(folder / "lease.guard"))
        self._heartbeat_s, self._patience_s = heartbeat_s, patience_s
        self._mine: Owner | None = None
        self._seen: tuple[Owner, float] | None = None
        self.lost = False
        """Somebody else has taken the lease over: whoever held it must stop."""
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def owner(self) -> Owner | None:
        """Who holds the lease now, if anybody."""
        try:
            return Owner(**json.loads(self.path.read_text()))
        except (OSError, ValueError, TypeError):
            return None

    def acquire(self) -> bool:
        """Take the lease if it is free or its owner is dead. Call again to wait: patience is counted between calls."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self._guard:
            holder = self.owner()
            if holder is not None and not self._gone(holder):
                return False
            self._mine = Owner.me()
            self._write()
        self._stop.clear()
        self._thread = threading.Thread(target=self._beat, name="lease", daemon=True)
        self._thread.start()
        return True

    def _gone(self, holder: Owner) -> bool:
        now = time.monotonic()
        if self._seen is None or self._seen[0] != holder:
            self._seen = (holder, now)
        return holder.surely_dead or now - self._seen[1] > self._patience_s

    def _write(self) -> None:
        assert self._mine is not None
        files.write(self.path, json.dumps(asdict(self._mine)).encode())

    def _beat(self) -> None:
        while not self._stop.wait(self._heartbeat_s):
            with self._guard:
                holder, mine = self.owner(), self._mine
                if mine is None or holder is None or holder.token != mine.token:
                    self.lost = True
                    return
                self._mine = Owner(mine.host, mine.pid, mine.started, mine.token, mine.beat + 1)
                self._write()

    def release(self) -> None:
        """Give the lease back, unless somebody has taken it over."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join()
        with self._guard:
            holder = self.owner()
            if self._mine is not None and holder is not None and holder.token == self._mine.token:
                self.path.unlink(missing_ok=True)
        self._mine = None

    def __enter__(self) -> Lease:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()
