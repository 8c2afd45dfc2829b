"""Which sockets a process has."""

from __future__ import annotations

import contextlib
from pathlib import Path


def sockets(process: int) -> set[str]:
    """Inodes of a process's sockets. A descriptor that is closed meanwhile is left out, not those beside it."""
    found = set()
    with contextlib.suppress(OSError):
        for descriptor in Path(f"/proc/{process}/fd").iterdir():
            with contextlib.suppress(OSError):
                target = str(descriptor.readlink())
                found |= {target[8:-1]} if target.startswith("socket:[") else set()
    return found
