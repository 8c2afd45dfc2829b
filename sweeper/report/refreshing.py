"""The process that rewrites ``report.html`` while a sweep runs; its driver starts it, and it ends with its driver.

A process of its own, since the driver's thread answers workers: drawing 1,000 trials would hold Python's lock for
seconds. Its arguments are the sweep's folder, the least seconds between two refreshes, the part of the driver's time
that their processor time may be, and how long the driver has run. Lines that it writes are for the driver to show.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from trials.storage.place import Place, place
from trials.system.stop_signals import BATCH_WARNINGS

_FIRST_PER_START = 2.0
"""The first refresh is taken to cost so many times what it costs to start this process, which is more than it does for
1,000 trials."""

_LAST_WRITE_S = 5.0
"""Seconds that a write which has begun may take once the driver has ended."""


@dataclass
class Pace:
    """When refreshes may begin.

    Attributes:
        every_s: least seconds between two of them.
        share: processor time that all of them may take, as a part of the time that the driver has run.
        began: when the driver began, in seconds of ``time.monotonic``.
        spent_s: processor time of this process so far, its start included.
        last_s: processor time of the last refresh; before the first, a guess.
    """

    every_s: float
    share: float
    began: float
    spent_s: float
    last_s: float

    def first(self, now: float) -> float:
        """Seconds to wait until the first refresh."""
        return max(0.0, (self.spent_s + self.last_s) / self.share - (now - self.began))

    def next(self, at: float, now: float) -> float:
        """Seconds to wait, after a refresh that began ``at``, until one that costs as much keeps within the share."""
        return max(0.0, self.every_s - (now - at), self.last_s / self.share - (now - at), self.first(now))

    def took(self, seconds: float, *, drawn: bool) -> None:
        """Count a refresh; one that found nothing new says nothing of the next."""
        self.spent_s += seconds
        self.last_s = seconds if drawn else self.last_s


def main(words: Sequence[str]) -> None:
    """Refresh a sweep's report until the standard input ends."""
    writing = threading.Lock()
    threading.Thread(target=_end_with_driver, args=(writing,), daemon=True).start()
    _step_back()
    path, (every_s, share, ran_s) = place(words[0]), map(float, words[1:])
    began = time.monotonic() - ran_s
    refresh, complained = _refresher(path, writing), False
    start_s = time.process_time()
    pace = Pace(every_s, share, began, start_s, _FIRST_PER_START * start_s)
    time.sleep(pace.first(time.monotonic()))
    while True:
        before, at = time.process_time(), time.monotonic()
        try:
            drawn = refresh()
        except Exception as error:  # noqa: BLE001  one line, and the next refresh tries again
            drawn = True
            if not complained:
                print(_complaint(error), flush=True)
            complained = True
        pace.took(time.process_time() - before, drawn=drawn)
        time.sleep(pace.next(at, time.monotonic()))


def _refresher(path: Place, writing: threading.Lock) -> Callable[[], bool]:
    """Return a function that writes the report if the sweep has changed, and returns whether it did."""
    from sweeper.report.following import FollowedSweep
    from sweeper.report.page import report_html
    from sweeper.report.written import REPORT
    from trials.storage import files

    # of a bucket, only what the driver writes each minute: each trial's own files would be six requests more
    followed = FollowedSweep(path, as_written=not isinstance(path, Path))

    def refresh() -> bool:
        found = followed.look()
        if found is None:
            return False
        content = report_html(found).encode()
        with writing:
            files.write(path / REPORT, content)
        return True

    return refresh


def _complaint(error: Exception) -> str:
    from sweeper.report.written import REPORT, said_of

    return f"{REPORT} could not be refreshed ({said_of(error)}): tried again; it is written at the end, too"


def _step_back() -> None:
    """Let everything else go first: lowest priority, and the first process to go when memory is short."""
    for number in (signal.SIGINT, *BATCH_WARNINGS):
        signal.signal(number, signal.SIG_IGN)
    with suppress(OSError):
        os.nice(19)
    with suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000")


def _end_with_driver(writing: threading.Lock) -> None:
    """Exit when the driver has closed the pipe, or has died; a write that has begun is completed."""
    with suppress(OSError):
        while os.read(0, 4096):
            pass
    writing.acquire(timeout=_LAST_WRITE_S)
    os._exit(0)


if __name__ == "__main__":
    main(sys.argv[1:])
