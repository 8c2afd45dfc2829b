"""Who holds a lease, and whether that process lives, as far as this one can know."""

from __future__ import annotations

import functools
import os
import socket
import uuid
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Owner:
    """Who holds a lease.

    Attributes:
        started: when the process started, in the kernel's ticks since boot.
        kernel: the boot and the PID namespace that ``pid`` means something in. Two containers may share a host name,
            and a machine may come back under its old one; the number of a process says nothing there.
        beat: counts up while it lives.
    """

    host: str
    pid: int
    started: str
    token: str
    beat: int = 0
    kernel: str = ""

    @classmethod
    def me(cls) -> Owner:
        return cls(socket.gethostname(), os.getpid(), _start_of(os.getpid()), uuid.uuid4().hex, 0, _kernel())

    @property
    def near(self) -> bool:
        """Whether its process would be seen from here."""
        return self.host == socket.gethostname() and self.kernel == _kernel()

    @property
    def surely_dead(self) -> bool:
        """Whether the owner was a process of this machine that is gone (or whose number another process has now)."""
        return self.near and _start_of(self.pid) != self.started

    @property
    def is_this_process(self) -> bool:
        return self.near and self.pid == os.getpid()

    def document(self) -> dict[str, Any]:
        return asdict(self)

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host}"


@functools.cache
def _kernel() -> str:
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot}/{Path('/proc/self/ns/pid').readlink()}"
    except OSError:
        return ""


def _start_of(pid: int) -> str:
    """When a process of this machine started; empty if there is none."""
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
