"""Keeps ``report.html`` up to date while a sweep runs, by a process beside the driver."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import TracebackType

from trials.storage import files
from trials.storage.place import Place

REFRESH_AFTER_S = 60.0
"""Least seconds between two refreshes. A run that ends before has none."""

SHARE = 0.05
"""Processor time that the refreshes may take, as a part of the time that the driver runs."""

CHILD_END_S = 2.0
"""Seconds that the process has to end by itself."""

_ROOT = str(Path(__file__).absolute().parents[2])

_PROGRAM = """
import sys
_, called, root, *words = sys.argv
sys.argv[0] = called  # pages name the command as the driver was called
sys.path[:] = [path for path in sys.path if path]  # no modules of the working folder
root in sys.path or sys.path.insert(0, root)
from sweeper.report.refreshing import main
main(words)
"""


class ReportRefresher:
    """Rewrites a sweep's report from time to time. Use as a context manager around the run, in its driver.

    The process gets a session of its own, so that Ctrl-C reaches only the driver. It ends when its standard input does,
    so also with a driver that is killed.

    Args:
        path: the sweep's folder.
        note: shows a line, from any thread.
        every_s: least seconds between two refreshes, and until the first.
        share: processor time that the refreshes may take, as a part of the time that the driver runs.
    """

    def __init__(
        self, path: Place, note: Callable[[str], None], *, every_s: float = REFRESH_AFTER_S, share: float = SHARE
    ) -> None:
        self._path, self._note, self._every_s, self._share = path, note, every_s, share
        self._over, self._starting = threading.Event(), threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._thread = threading.Thread(target=self._follow, name="report", daemon=True)

    def __enter__(self) -> ReportRefresher:
        self._began = time.monotonic()
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        with self._starting:
            process = self._process
        if process is None:
            return
        assert process.stdin is not None
        with suppress(OSError):
            process.stdin.close()
        try:
            process.wait(CHILD_END_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            files.remove_leftovers(self._path, "report.html")
        self._thread.join(CHILD_END_S)

    def _follow(self) -> None:
        if self._over.wait(self._every_s):
            return
        try:
            process = self._start()
        except (OSError, ValueError) as error:
            self._note(f"report.html is written at the end only: no process could be started to refresh it ({error})")
            return
        if process is None:
            return
        assert process.stdout is not None
        with process.stdout:
            for line in process.stdout:
                self._note(line.decode(errors="replace").rstrip())
        code = process.wait()
        if not self._over.is_set():
            self._note(f"report.html is written at the end only: the process that refreshed it has ended (code {code})")

    def _start(self) -> subprocess.Popen[bytes] | None:
        with self._starting:
            if self._over.is_set():
                return None
            figures = (self._every_s, self._share, time.monotonic() - self._began)
            self._process = subprocess.Popen(
                [sys.executable, "-c", _PROGRAM, sys.argv[0], _ROOT, str(self._path), *map(str, figures)],
                env={**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
            )
            return self._process
