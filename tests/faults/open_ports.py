"""Which ports the processes of a run listen on, and whose they are."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import NamedTuple

from tests.sockets import sockets

MARK = "SPARSITY_SWEEPER_TEST_RUN"
"""A variable that the run's processes inherit: Ray's agents rename themselves, and some have sessions of their own."""

_LISTENS = {"tcp": "0A", "udp": "07"}
"""By protocol, the state of a socket in the kernel's table that waits for anybody."""


class OpenPort(NamedTuple):
    """A socket that waits for anybody."""

    protocol: str
    address: str
    port: int
    owner: str


def marked(mark: str) -> dict[int, str]:
    """The name, by process, of every process whose environment holds the mark."""
    found = {}
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if f"{MARK}={mark}".encode() in (folder / "environ").read_bytes().split(b"\0"):
                found[int(folder.name)] = _name(folder)
    return found


def _name(folder: Path) -> str:
    """What a process is, by its command line: gcs_server, raylet, dashboard_agent, a worker, the driver."""
    line = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    known = {
        "gcs_server": "gcs_server",
        "raylet/raylet": "raylet",
        "agent/dashboard_agent": "dashboard_agent",
        "DashboardAgent": "dashboard_agent",
        "RuntimeEnvAgent": "runtime_env_agent",
        "runtime_env/agent": "runtime_env_agent",
        "log_monitor": "log_monitor",
        "monitor.py": "monitor",
        "dashboard/dashboard": "dashboard",
        "ray::": "worker",
        "default_worker": "worker",
        "sweep.py": "driver",
    }
    return next((name for part, name in known.items() if part in line), line[:80])


def open_ports(mark: str) -> set[OpenPort]:
    """Every port, of IPv4 and IPv6, TCP and UDP, on which a marked process waits for anybody.

    One reading can miss a port: the kernel's tables change while they are read.
    """
    owners: dict[str, str] = {}
    for process, name in marked(mark).items():
        owners |= dict.fromkeys(sockets(process), name)
    found = set()
    for protocol, state in _LISTENS.items():
        for table in (Path(f"/proc/net/{protocol}"), Path(f"/proc/net/{protocol}6")):
            for line in table.read_text().splitlines()[1:] if table.exists() else ():
                fields = line.split()
                if fields[3] == state and fields[9] in owners:
                    address, port = fields[1].split(":")
                    found.add(OpenPort(protocol, address, int(port, 16), owners[fields[9]]))
    return found
