"""The page of a sweep that is served, and its parts as JSON: as new as the last look at the sweep."""

from __future__ import annotations

import gzip
import hashlib
import json
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass

from sweeper.report.following import FollowedSweep
from sweeper.report.gathered import Gathered
from sweeper.report.page import LiveSource, parts, report_html
from sweeper.report.written import said_of
from trials.storage.place import ObjectPath, Place

LOOK_EVERY_S = 1.0
LOOK_EVERY_S_IN_OBJECT_STORES = 10.0
"""Seconds between two looks at the sweep; every look lists the objects, which stores charge for."""

PAUSE_PER_LOOK = 3.0
"""A look that takes long is followed by a pause so many times as long: the sweep may need the processor."""

IDLE_AFTER_S = 30.0
"""Without a request for so long, the sweep is not looked at until the next one."""


@dataclass(frozen=True)
class Content:
    """What an answer holds: bytes, the same compressed, and a tag that changes with them."""

    plain: bytes
    packed: bytes
    tag: str

    @classmethod
    def of(cls, text: str) -> Content:
        """Encode a text."""
        plain = text.encode()
        return cls(plain, gzip.compress(plain, 5, mtime=0), hashlib.sha256(plain).hexdigest()[:24])


class LivePage:
    """Follows a sweep while somebody asks for its page.

    Args:
        path: the sweep's folder.
        source: where the page asks for its parts.
        say: prints a line.

    Raises:
        UserError: there is no such sweep.
    """

    def __init__(self, path: Place, source: LiveSource, say: Callable[[str], None]) -> None:
        self._followed, self._source, self._say = FollowedSweep(path), source, say
        self._every_s = LOOK_EVERY_S_IN_OBJECT_STORES if isinstance(path, ObjectPath) else LOOK_EVERY_S
        self._looking = threading.Lock()
        self._asked, self._over = threading.Event(), threading.Event()
        self._asked_at = self._looked_at = 0.0
        self._problem: str | None = None
        self._page: tuple[str, Content] | None = None
        found = self._followed.look()
        assert found is not None  # the first look always finds something
        self._take(found)
        self._looked_at = time.monotonic()
        self._thread = threading.Thread(target=self._follow, name="live page", daemon=True)
        self._thread.start()

    def page(self) -> Content:
        """Return the whole page."""
        self._wanted()
        if time.monotonic() - self._looked_at > 2 * self._every_s:  # nobody has asked for a while
            self._look()
        with self._looking:
            if self._page is None or self._page[0] != self._parts.tag:
                self._page = (self._parts.tag, Content.of(report_html(self._found, live=self._source)))
            return self._page[1]

    def parts(self) -> Content:
        """Return the parts that change, as of the last look."""
        self._wanted()
        return self._parts

    def end(self, patience_s: float = 0.5) -> bool:
        """Stop following, and return whether nothing is being read any more."""
        self._over.set()
        self._asked.set()
        self._thread.join(patience_s)
        return not self._thread.is_alive()

    def _wanted(self) -> None:
        self._asked_at = time.monotonic()
        self._asked.set()

    def _follow(self) -> None:
        pause_s = self._every_s
        while not self._over.wait(pause_s):
            if time.monotonic() - self._asked_at > IDLE_AFTER_S:
                self._asked.clear()
                self._asked.wait()
                if self._over.is_set():
                    return
            began = time.monotonic()
            self._look()
            pause_s = max(self._every_s, PAUSE_PER_LOOK * (time.monotonic() - began))

    def _look(self) -> None:
        """Take what has changed. What goes wrong is said once, and stands in the parts until it is over."""
        with self._looking:
            try:
                found = self._followed.look()
                if found is not None or self._problem is not None:
                    self._problem = None
                    self._take(found or self._found)
            except Exception as error:  # noqa: BLE001  what is shown stays, and the next look tries again
                self._fail(error)
            self._looked_at = time.monotonic()

    def _fail(self, error: Exception) -> None:
        said = said_of(error)
        if self._problem is None:
            name = self._followed.path.name
            self._say(f"{name} could not be read ({said}): what is shown is not up to date; it is tried again")
        if self._problem != said:
            self._problem = said
            self._pack()

    def _take(self, found: Gathered) -> None:
        self._found, self._of_found = found, parts(found)
        self._pack()

    def _pack(self) -> None:
        said = {"live": asdict(self._source), "problem": self._problem}
        self._parts = Content.of(json.dumps({**self._of_found, **said}, allow_nan=False))
