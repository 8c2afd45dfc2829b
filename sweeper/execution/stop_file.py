"""How a running sweep is asked to stop from anywhere: a file in its folder. While it is there, running trials commit
what they have and end, and nothing more is handed out."""

from __future__ import annotations

import math
import time
from pathlib import Path

from trials.storage.place import Place

ASK_STORE_EVERY_S = 5.0
"""An object store is asked no more often than this by one process; a path, whenever somebody wants to know."""


class StopFile:
    """``<sweep>/stop``."""

    def __init__(self, path: Place) -> None:
        self.path = path
        self._every_s = 0.0 if isinstance(path, Path) else ASK_STORE_EVERY_S
        self._asked_at, self._there = -math.inf, False

    def there(self) -> bool:
        """Whether somebody wants the sweep to stop, as of at most :data:`ASK_STORE_EVERY_S` ago."""
        if time.monotonic() - self._asked_at >= self._every_s:
            try:
                self._there = self.path.exists()
            except OSError:  # a store that does not answer now
                return self._there
            self._asked_at = time.monotonic()
        return self._there

    def put(self, driver: str) -> None:
        """Ask the driver whose lease has this token."""
        self.path.write_bytes(driver.encode())
        self._there = True

    def remove_unless_for(self, driver: str) -> None:
        """Remove what was meant for a driver before this one, who could not remove it."""
        try:
            if self.path.read_bytes() != driver.encode():
                self.remove()
        except FileNotFoundError:
            pass

    def remove(self) -> None:
        self.path.unlink(missing_ok=True)
        self._there = False
