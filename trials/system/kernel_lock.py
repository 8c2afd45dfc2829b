"""Locks of files that the kernel, or the file server, releases when their holder dies: ``flock``, and nothing else.

A file system without ``flock`` is an error here: a lock that is only a file would stay when its holder is killed.
"""

from __future__ import annotations

import errno
import fcntl
import math
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

LOCK_POLL_S = 0.02
"""Seconds between two tries for a lock that another process holds."""

LACKING = frozenset({errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP, errno.EINVAL, errno.ENOLCK})
"""What ``flock`` answers on file systems that have none; ENOLCK also when a server has run out of locks."""

_HELD = frozenset({errno.EAGAIN, errno.EWOULDBLOCK})


class FileLocked:
    """The lock on a file, created if it is missing; the file stays when the lock is released.

    Two locks of the same process on one file exclude each other, too.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file: int | None = None

    def acquire(self, limit_s: float = math.inf) -> None:
        """Wait until the lock is free, and take it.

        Raises:
            OSError: the file cannot be opened, its file system has no locks (``errno`` in :data:`LACKING`), or another
                process has held the lock for ``limit_s`` (ETIMEDOUT).
        """
        until = time.monotonic() + limit_s
        opened = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o666)
        try:
            while not _try(opened):
                if time.monotonic() >= until:
                    raise OSError(errno.ETIMEDOUT, "locked by another process", str(self.path))
                time.sleep(LOCK_POLL_S)
        except BaseException:
            os.close(opened)
            raise
        self._file = opened

    def release(self) -> None:
        """Give the lock back, if it is held."""
        opened, self._file = self._file, None
        if opened is not None:
            os.close(opened)


def _try(opened: int) -> bool:
    try:
        fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in _HELD:
            return False
        raise
    return True


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the lock on a file in this block; raises as :meth:`FileLocked.acquire` does."""
    lock = FileLocked(path)
    lock.acquire()
    try:
        yield
    finally:
        lock.release()
