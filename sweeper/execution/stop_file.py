"""The stop file: a file in a sweep's folder with which any machine asks the running sweep to stop.

While it exists, running trials commit their work and end, and no further trial is started.
"""

from __future__ import annotations

import math
import time
from pathlib import Path

from trials.errors import DamagedFile
from trials.storage import files
from trials.storage.outages import impatient
from trials.storage.place import Place, as_stored
from trials.storage.safe_read import read_plain

STOP_BYTES = 1024
"""Most bytes of the file."""

ASK_STORE_EVERY_S = 5.0
"""Minimum seconds between two requests of one process to an object store; a path is checked on every call."""


class StopFile:
    """The file ``<sweep>/stop``, which contains the token of the driver that should stop."""

    def __init__(self, path: Place) -> None:
        self.path = as_stored(path)
        self._every_s = 0.0 if isinstance(path, Path) else ASK_STORE_EVERY_S
        self._asked_at, self._there = -math.inf, False

    def there(self) -> bool:
        """Whether the file exists; in an object store, as of at most :data:`ASK_STORE_EVERY_S` seconds ago."""
        if time.monotonic() - self._asked_at >= self._every_s:
            try:
                with impatient():  # who waits for the storage asks, too
                    self._there = self._exists()
            except OSError:  # the storage does not answer now
                return self._there
            self._asked_at = time.monotonic()
        return self._there

    def _exists(self) -> bool:
        if isinstance(self.path, Path):
            return self.path.exists()
        try:
            return bool(self.path.read_bytes(STOP_BYTES))  # one request if there is none, and not two
        except FileNotFoundError:
            return False
        except DamagedFile:
            return True

    def put(self, driver: str) -> None:
        """Write the file, for the driver whose lease has this token. A reader never sees a part of it."""
        files.write(self.path, driver.encode())
        self._there = True

    def remove_unless_for(self, driver: str) -> None:
        """Remove the file if it was written for an earlier driver, which could not remove it."""
        try:
            if read_plain(self.path, STOP_BYTES) != driver.encode():
                self.remove()
        except FileNotFoundError:
            pass
        except DamagedFile:  # no file of ours, such as a named pipe
            self.remove()

    def remove(self) -> None:
        """Remove the file if it exists; a folder in its place is set aside."""
        try:
            self.path.unlink(missing_ok=True)
        except (IsADirectoryError, PermissionError):
            if not self.path.is_dir():
                raise
            files.set_aside(self.path)
        self._there = False
