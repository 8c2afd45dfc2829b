"""Every port that a local run opens, whose it is, and that each asks for the token; and who may read what it leaves."""

from __future__ import annotations

import os
import re
import socket
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster.doors import verdict
from tests.faults.open_ports import MARK, OpenPort, marked, open_ports
from tests.trials.processes import wait_for

pytestmark = [pytest.mark.slow, pytest.mark.slow_faults]

ROOT = Path(__file__).resolve().parents[2]

SPACE = """
trial: {method: one_shot, dataset: digits, model: tiny, pretrain: {epochs: 1}, finetune: {epochs: 100000}}
grid: {density: [0.5]}
"""

SETTLED_S = 5.0


def owners_in_the_page() -> set[str]:
    """The owners of ports that the table of docs/security.md allows."""
    page = (ROOT / "docs" / "security.md").read_text()
    table = page.partition("| a local run's process |")[2].partition("\n\n")[0]
    return set(re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE))


@pytest.fixture
def run(tmp_path: Path) -> Iterator[tuple[str, Path]]:
    """A sweep that runs with a home of its own, and asks for a token; gives its mark, and the home."""
    home = tmp_path / "home"
    home.mkdir()
    (tmp_path / "long.yaml").write_text(SPACE)
    mark = f"{os.getpid()}-{time.monotonic_ns()}"
    env = {**os.environ, "HOME": str(home), MARK: mark, "RAY_AUTH_MODE": "token"}
    command = [sys.executable, str(ROOT / "sweep.py"), "--space", "long.yaml", "--storage", "storage"]
    driver = subprocess.Popen(command, env=env, cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        wait_for(lambda: list(tmp_path.glob("storage/*/trials/*/state.json")), "a trial to run", 120)
        yield mark, home
    finally:
        driver.terminate()
        driver.wait(90)
        wait_for(lambda: not marked(mark), "every process to end", 60)


def seen(mark: str) -> set[OpenPort]:
    found: set[OpenPort] = set()
    end = time.monotonic() + SETTLED_S
    while time.monotonic() < end:  # one reading of the kernel's tables may miss a port
        found |= open_ports(mark)
        time.sleep(0.2)
    return found


@pytest.mark.fault("token-readable")
def test_every_port_of_a_local_run_is_known_and_asks_for_the_token(run: tuple[str, Path]) -> None:
    mark, home = run
    found = seen(mark)
    assert {port.protocol for port in found} == {"tcp"}
    assert {port.owner for port in found} <= owners_in_the_page()
    assert {"gcs_server", "raylet"} <= {port.owner for port in found}
    said = {port: verdict(_reachable(port), port.port) for port in found}
    assert all(shut for shut, _ in said.values()), said
    assert stat.S_IMODE((home / ".ray" / "auth_token").stat().st_mode) == 0o600
    token = (home / ".ray" / "auth_token").read_text()
    _require_private(Path(tempfile.gettempdir()), token)


def _reachable(port: OpenPort) -> str:
    word = bytes.fromhex(port.address[-8:])[::-1]
    return socket.inet_ntoa(word) if any(word) else "127.0.0.1"


def _require_private(temporary: Path, token: str) -> None:
    """Scratch folders are the user's alone, Ray's sockets take nobody else, and no log holds the token."""
    for folder in temporary.glob("sweeper-run-*"):
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    session = (temporary / "ray" / "session_latest").resolve()
    for path in session.glob("sockets/*"):
        assert not stat.S_IMODE(path.stat().st_mode) & stat.S_IWOTH
    for log in session.glob("logs/**/*.log"):
        assert token not in log.read_text(errors="replace")
