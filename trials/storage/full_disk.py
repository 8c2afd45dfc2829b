"""A full disk: whoever wants to write waits until there is room, says so once, and loses nothing of its work."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

from trials.errors import Preempted
from trials.storage.files import is_full

RETRY_S = 5.0
"""How often it is tried again."""

_T = TypeVar("_T")


def when_there_is_room(write: Callable[[], _T], tell: Callable[[str], None], should_stop: Callable[[], bool]) -> _T:
    """What ``write`` returns, once there is room for it. It must be possible to begin it anew.

    Raises:
        Preempted: asked to stop meanwhile.
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
