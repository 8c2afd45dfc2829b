"""Retry writes while the disk is full, with one warning, so that a trial loses no work."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

from trials.errors import Preempted
from trials.storage.files import is_full

RETRY_S = 5.0
"""Seconds between retries."""

_T = TypeVar("_T")


def when_there_is_room(write: Callable[[], _T], tell: Callable[[str], None], should_stop: Callable[[], bool]) -> _T:
    """Call ``write`` until it no longer fails because the disk is full, and return its result.

    ``write`` must be safe to repeat. ``tell`` is called once, at the first failure.

    Raises:
        Preempted: ``should_stop`` returned True while waiting.
    """
    said = False
    while True:
        try:
            return write()
        except OSError as error:
            if not is_full(error):
                raise
            if not said:
                tell(f"no room to write ({error}): waiting until there is")
                said = True
            if should_stop():
                raise Preempted from error
            time.sleep(RETRY_S)
