"""Retry writes while the disk is full, so that a trial loses no work; elsewhere, say so in one line."""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TypeVar

from trials.errors import Preempted, UserError
from trials.storage.files import is_full
from trials.storage.place import Place

RETRY_S = 5.0
"""Seconds between retries."""

LITTLE = 2**20
"""A disk with fewer bytes free is named as the one that may be full."""

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


@contextmanager
def one_line_if_full(storage: Place) -> Iterator[None]:
    """Turn the error of a write that fails because a disk is full into a UserError that names the disk."""
    try:
        yield
    except OSError as error:
        if not is_full(error):
            raise
        raise UserError(
            f"no room to write ({error}){_nearly_full(storage)}: free space, then run the same command again; what is "
            "committed is kept"
        ) from None


def _nearly_full(storage: Place) -> str:
    """The folders whose disks have next to nothing left, as part of a message."""
    there = []
    for folder in (storage, Path(tempfile.gettempdir())):
        with suppress(OSError):
            if isinstance(folder, Path) and (free := shutil.disk_usage(folder).free) < LITTLE:
                there.append(f"{folder} has {free // 1024} KB free")
    return "".join(f", {text}" for text in there)
