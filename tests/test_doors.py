"""Every port that ``ray start`` opens with cluster.yaml's options refuses requests without the token, on one machine.

Between machines: tests/cluster/run.sh.
"""

from __future__ import annotations

import contextlib
import os
import random
import secrets
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from tests.cluster.doors import verdict
from tests.sockets import sockets
from tests.trials.processes import wait_for

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder with a short path, as paths of Ray's sockets in it are limited in length."""
    import shutil
    import tempfile

    path = Path(tempfile.mkdtemp(prefix="doors-", dir="/tmp"))
    yield path
    shutil.rmtree(path, ignore_errors=True)


def head_options(ports: dict[str, int]) -> list[str]:
    """The options of cluster.yaml's head, with these ports."""
    content = yaml.safe_load((ROOT / "cluster.yaml").read_text())
    words = content["head_start_ray_commands"][-1].split("ray start", 1)[1].split()
    kept = [word for word in words if word in ("--head", "--disable-usage-stats") or "dashboard-host" in word]
    assert len(kept) == 3
    return [*kept, *(f"--{name}={port}" for name, port in ports.items())]


def free_ports(count: int) -> list[int]:
    """Distinct ports that nobody listens on: none that Ray gives its workers, nor the kernel a connection meanwhile."""
    found: list[int] = []
    for port in random.sample(range(20_000, 32_000), 200):
        with contextlib.suppress(OSError), socket.create_server(("", port)):
            found.append(port)
        if len(found) == count:
            break
    return found


def processes(session: int) -> list[int]:
    """Processes of a Unix session. Ray's agents rename themselves, so a command line does not tell whose they are."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            fields = path.read_text().rpartition(")")[2].split()
            found += [int(path.parent.name)] if int(fields[3]) == session else []
    return found


def listening(session: int) -> dict[int, str]:
    """Address by port, of the ports on which a Unix session's processes listen.

    One reading can miss a port: the kernel's tables change while they are read.
    """
    inodes = {inode for process in processes(session) for inode in sockets(process)}
    ports = {}
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        for line in Path(table).read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == "0A" and fields[9] in inodes:
                address, port = fields[1].split(":")
                ports[int(port, 16)] = readable(address)
    return ports


def readable(address: str) -> str:
    """An IPv4 address as one writes it, of the kernel's table; IPv6 and "any" become loopback."""
    last_word = bytes.fromhex(address[-8:])[::-1]
    return socket.inet_ntoa(last_word) if any(last_word) else "127.0.0.1"


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("00000000", "127.0.0.1"),
        ("0100007F", "127.0.0.1"),
        ("020200C0", "192.0.2.2"),
        ("0" * 32, "127.0.0.1"),
        ("0000000000000000FFFF0000020200C0", "192.0.2.2"),
    ],
)
def test_addresses_of_the_kernel_are_read(address: str, expected: str) -> None:
    assert readable(address) == expected


def test_descriptors_that_close_meanwhile_hide_no_socket() -> None:
    busy = """
import os, socket
server = socket.create_server(("127.0.0.1", 0))
os.dup2(server.fileno(), 500)  # listed after those that come and go
server.close()
print(os.fstat(500).st_ino, flush=True)
while True:
    for descriptor in [os.open(os.devnull, os.O_RDONLY) for _ in range(50)]:
        os.close(descriptor)
"""
    with subprocess.Popen([sys.executable, "-c", busy], stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            inode = process.stdout.readline().strip()
            assert all(inode in sockets(process.pid) for _ in range(300))
        finally:
            process.kill()


def test_every_port_asks_for_the_token(folder: Path) -> None:
    token = folder / "home" / ".ray" / "auth_token"
    token.parent.mkdir(parents=True)
    token.touch(mode=0o600)
    token.write_text(secrets.token_hex(32))
    env = {**os.environ, "HOME": str(folder / "home"), "RAY_AUTH_MODE": "token", "RAY_enable_autoscaler_v2": "0"}
    names = (
        "port",
        "dashboard-port",
        "ray-client-server-port",
        "dashboard-agent-listen-port",
        "runtime-env-agent-port",
    )
    named = dict(
        zip(names, free_ports(len(names)), strict=True)
    )  # another Ray on this machine may have the default ones
    command = [sys.executable, "-m", "ray.scripts.scripts", "start", *head_options(named), "--num-cpus=1", "--block"]
    command += [
        "--node-ip-address=127.0.0.1",
        f"--temp-dir={folder}",
        "--object-store-memory=80000000",
        "--include-dashboard=true",
    ]
    with (folder / "log").open("wb") as log:
        ray = subprocess.Popen(command, env=env, stdout=log, stderr=log, start_new_session=True)
    try:
        ports: dict[int, str] = {}

        def all_opened() -> bool:
            ports.update(listening(ray.pid))
            return set(named.values()) <= set(ports) and len(ports) >= len(names) + 2  # the raylet chooses two itself

        wait_for(all_opened, f"Ray to listen on {named} and two more")
        said = {port: verdict(address, port) for port, address in ports.items()}
        assert all(shut for shut, _ in said.values()), said
        assert "UNAUTHENTICATED" in said[named["port"]][1]
        assert "UNAUTHENTICATED" in said[named["ray-client-server-port"]][1]
        assert "401" in said[named["dashboard-port"]][1]  # with the jobs API
        assert "401" in said[named["dashboard-agent-listen-port"]][1]
    finally:
        for process in [*processes(ray.pid), ray.pid]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)
        ray.wait()
