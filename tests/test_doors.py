"""Every port that ``ray start`` opens with cluster.yaml's options refuses requests without the token, on one machine.

Between machines: tests/cluster/run.sh.
"""

from __future__ import annotations

import os
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


def head_options() -> list[str]:
    """The options of cluster.yaml's head, with this machine's loopback address and free ports."""
    content = yaml.safe_load((ROOT / "cluster.yaml").read_text())
    words = content["head_start_ray_commands"][-1].split("ray start", 1)[1].split()
    kept = [word for word in words if word in ("--head", "--disable-usage-stats") or "dashboard-host" in word]
    assert len(kept) == 3
    ports = [f"--{name}={free_port()}" for name in ("port", "dashboard-port", "ray-client-server-port")]
    return [*kept, *ports, "--node-ip-address=127.0.0.1"]


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def processes(folder: Path) -> list[int]:
    """Processes of the Ray whose files are in a folder."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if str(folder).encode() in path.read_bytes():
                found.append(int(path.parent.name))
        except OSError:
            continue
    return found


def listening(folder: Path) -> dict[int, str]:
    """Address (hexadecimal) by port, of the ports on which the Ray of a folder listens."""
    inodes = set()
    for process in processes(folder):
        for descriptor in Path(f"/proc/{process}/fd").glob("*"):
            try:
                target = str(descriptor.readlink())
            except OSError:
                continue
            inodes |= {target[8:-1]} if target.startswith("socket:[") else set()
    ports = {}
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        for line in Path(table).read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == "0A" and fields[9] in inodes:
                address, port = fields[1].split(":")
                ports[int(port, 16)] = address
    return ports


def test_every_port_asks_for_the_token(folder: Path) -> None:
    token = folder / "home" / ".ray" / "auth_token"
    token.parent.mkdir(parents=True)
    token.touch(mode=0o600)
    token.write_text(secrets.token_hex(32))
    env = {**os.environ, "HOME": str(folder / "home"), "RAY_AUTH_MODE": "token", "RAY_enable_autoscaler_v2": "0"}
    command = [sys.executable, "-m", "ray.scripts.scripts", "start", *head_options(), "--num-cpus=1", "--block"]
    command += [f"--temp-dir={folder}", "--object-store-memory=80000000", "--include-dashboard=true"]
    with socket.socket() as free:  # the agent's default port may belong to another Ray
        free.bind(("127.0.0.1", 0))
        command.append(f"--dashboard-agent-listen-port={free.getsockname()[1]}")
    with (folder / "log").open("wb") as log:
        ray = subprocess.Popen(command, env=env, stdout=log, stderr=log, start_new_session=True)
    try:
        session = folder / "session_latest" / "logs"
        wait_for(lambda: b"Ray runtime started" in (folder / "log").read_bytes(), "Ray")
        wait_for(lambda: (session / "dashboard_agent.log").exists(), "the agent of the dashboard")
        wait_for(lambda: len(listening(folder)) >= 5, "all that listens: the agent does so last")
        ports = listening(folder)
        said = {port: verdict("127.0.0.1", port) for port in ports}
        assert all(shut for shut, _ in said.values()), said
        assert any("UNAUTHENTICATED" in text for _, text in said.values())
        assert any("401" in text for _, text in said.values())  # the dashboard, with the jobs API
    finally:
        for process in [*processes(folder), ray.pid]:
            try:
                os.kill(process, signal.SIGKILL)
            except ProcessLookupError:
                continue
        ray.wait()
