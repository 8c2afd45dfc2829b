"""Drivers of sweeps, each leader of its own session, so that the processes it starts can be found and killed."""

from __future__ import annotations

import contextlib
import os
import pty
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.trials.processes import wait_for

ROOT = Path(__file__).resolve().parent.parent.parent

LAST_WORDS_S = 30.0
"""Seconds in which processes that outlive a killed driver must end by themselves."""

BUSY_S = 240.0
"""Most seconds that any step of Ray or a driver may take on a busy machine."""

AGENTS = ("ray::DashboardAgent", "ray::RuntimeEnvAgent")
"""Ray's own processes; after a SIGKILL of the driver they end within a minute, when they notice the lost raylet."""


class Driver:
    """One run of sweep.py."""

    def __init__(
        self, folder: Path, arguments: tuple[str, ...], *, terminal: bool = False, address: str = "local"
    ) -> None:
        command = [sys.executable, str(ROOT / "sweep.py"), "--address", address, *arguments]
        self.said = ""
        self._lock = threading.Lock()
        source, sink = pty.openpty() if terminal else os.pipe()
        self.process = subprocess.Popen(
            command,
            cwd=folder,
            stdin=sink if terminal else subprocess.DEVNULL,
            stdout=sink,
            stderr=sink,
            start_new_session=not terminal,
            preexec_fn=_own_the_terminal if terminal else None,
        )
        os.close(sink)
        self._source = source
        self._closed = threading.Event()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        while not self._closed.is_set():
            try:
                part = os.read(self._source, 65536)
            except OSError:
                return
            if not part:
                return
            with self._lock:
                self.said += part.decode(errors="replace")

    @property
    def ended(self) -> bool:
        return self.process.poll() is not None

    def wait(self, timeout: float = 240) -> int:
        code = self.process.wait(timeout)
        self._reader.join(5)
        return code

    def wait_until(self, condition: Callable[[], object], what: str) -> None:
        """Wait until the condition holds or the driver has ended."""
        wait_for(lambda: self.ended or condition(), what, BUSY_S)

    def processes(self) -> dict[int, str]:
        """Living processes of the driver's session, itself included: name by process id."""
        return {pid: name for pid, (session, name) in living().items() if session == self.process.pid}

    def workers(self) -> list[int]:
        """Processes in which trials run."""
        return [pid for pid, name in self.processes().items() if name.startswith("ray::TrialWorker")]

    def signal_all(self, number: signal.Signals) -> None:
        """Signal the driver's whole process group, as a terminal does."""
        os.killpg(self.process.pid, number)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def hang_up(self) -> None:
        """Close the terminal."""
        self._closed.set()
        os.close(self._source)


def _own_the_terminal() -> None:
    import fcntl
    import termios

    os.setsid()
    signal.signal(signal.SIGHUP, signal.SIG_DFL)  # also if these tests were started by nohup
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)


class Drivers:
    """All drivers of a test."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.started: list[Driver] = []

    def start(self, *arguments: str, **options: Any) -> Driver:
        self.started.append(Driver(self.folder, arguments, **options))
        return self.started[-1]

    def run(self, *arguments: str) -> Driver:
        driver = self.start(*arguments)
        driver.wait()
        return driver

    def left(self) -> dict[int, str]:
        """Living processes of all sessions, without Ray's agents."""
        return {pid: name for driver in self.started for pid, name in driver.processes().items() if name not in AGENTS}

    def end(self) -> dict[int, str]:
        """Wait for every process to end; kill and return those that do not."""
        for driver in self.started:
            if not driver.ended:
                driver.process.kill()
                driver.process.wait()
        end = time.monotonic() + LAST_WORDS_S
        while self.left() and time.monotonic() < end:
            time.sleep(0.2)
        left = self.left()
        for driver in self.started:
            for pid in driver.processes():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        return left


def living() -> dict[int, tuple[int, str]]:
    """Session and name of every living process, by process id."""
    found = {}
    for path in Path("/proc").iterdir():
        if not path.name.isdigit():
            continue
        try:
            state, _, _, session = (path / "stat").read_text().rpartition(")")[2].split()[:4]
            name = (path / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
        except OSError:
            continue
        if state != "Z":
            found[int(path.name)] = (int(session), name)
    return found
