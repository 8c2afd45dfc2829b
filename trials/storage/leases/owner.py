"""The owner of a lease, and whether its process still runs as far as this process can tell."""

from __future__ import annotations

import functools
import hashlib
import os
import re
import socket
import uuid
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from trials.errors import one_line, shown


@dataclass(frozen=True)
class Owner:
    """The process that holds a lease.

    Attributes:
        started: start time of the process, in kernel ticks since boot.
        kernel: boot id and PID namespace in which ``pid`` is valid. Two containers may share a host name, and a host
            may reboot under its old name; ``pid`` alone would be ambiguous then.
        beat: heartbeat counter.
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

    @classmethod
    def read(cls, document: object) -> Owner:
        """Rebuild from the result of :meth:`document`; raises ValueError or TypeError if it is none.

        The token names a file in an object store.
        """
        if not isinstance(document, dict):
            raise TypeError(f"an owner is {document!r}")
        owner = cls(**document)
        texts, numbers = (owner.host, owner.started, owner.token, owner.kernel), (owner.pid, owner.beat)
        if not all(isinstance(text, str) for text in texts) or not all(type(number) is int for number in numbers):
            raise TypeError(f"an owner is {document!r}")
        if not (0 < owner.pid < 2**31 and 0 <= owner.beat < 2**63):
            raise ValueError(f"an owner is process {shown(owner.pid)} with the heartbeat {shown(owner.beat)}")
        if not _TOKEN_OF_OWNER.fullmatch(owner.token):
            raise ValueError(f"an owner has the token {owner.token!r}")
        return owner

    @property
    def near(self) -> bool:
        """Whether the owner runs in this host's PID namespace, so that its process can be looked up."""
        return self.host == socket.gethostname() and self.kernel == _kernel()

    @property
    def surely_dead(self) -> bool:
        """Whether the owner was a process of this host that has ended (or whose PID another process has now)."""
        return self.near and _start_of(self.pid) not in (self.started, _UNKNOWN)

    @property
    def is_this_process(self) -> bool:
        return self.near and self.pid == os.getpid()

    def document(self) -> dict[str, Any]:
        return asdict(self)

    def __str__(self) -> str:
        return f"process {self.pid} on {one_line(self.host)}"


_TOKEN_OF_OWNER = re.compile(r"[\w-]{1,64}", re.ASCII)

OWNER_KEYS = frozenset(field.name for field in fields(Owner))
_TOKEN = re.compile(r"([0-9a-f]{8})-(\d+)-(\d+)-[0-9a-f]{12}")

_UNKNOWN = "unknown"
"""Start time of a process that lives and of which this process may read nothing, as /proc with ``hidepid`` hides it."""


def new_token() -> str:
    """Part of a name that no other process has, on any machine, nor this one twice.

    It says which process made it, so that others of the same machine can see whether that has ended.
    """
    return f"{_process(os.getpid())}-{uuid.uuid4().hex[:12]}"


def is_token(text: str) -> bool:
    """Whether a text has the form of :func:`new_token`."""
    return _TOKEN.fullmatch(text) is not None


def has_ended(token: str) -> bool:
    """Whether a token is that of a process of this machine that has ended; False if that is not known."""
    match = _TOKEN.fullmatch(token)
    if match is None or not _kernel() or match[1] != _machine():
        return False
    return _start_of(int(match[2])) not in (match[3], _UNKNOWN)


@functools.lru_cache(maxsize=2)  # by number: a fork is another process
def _process(pid: int) -> str:
    started = _start_of(pid)
    return f"{_machine()}-{pid}-{started if started.isdecimal() else 0}"


@functools.cache
def _machine() -> str:
    """This host's PID namespace, until its next boot."""
    return hashlib.sha256(f"{socket.gethostname()}/{_kernel()}".encode()).hexdigest()[:8]


@functools.cache
def _kernel() -> str:
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot}/{Path('/proc/self/ns/pid').readlink()}"
    except OSError:
        return ""


def _start_of(pid: int) -> str:
    """Start time of a process of this host; empty if there is no such process, ``unknown`` if it is hidden."""
    try:
        stat = _stat_of(pid).rpartition(b")")[2].decode().split()
    except OSError:
        return _UNKNOWN if _alive(pid) else ""
    return "" if stat[0] == "Z" else stat[19]


def _stat_of(pid: int) -> bytes:
    """What the kernel tells of a process. Its name, in parentheses, may be cut within a character."""
    return Path(f"/proc/{pid}/stat").read_bytes()


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
