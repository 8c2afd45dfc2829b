"""Folders for a process's own files, as of a run, and the removal of those that dead processes have left.

A folder belongs to the process that holds the lock on its file ``alive``. The kernel releases the lock when the process
ends, however that happens, so the next one may remove the folder. A lock, unlike a process id, is also right for
drivers in other containers of the machine that share the temporary folder. The folder itself is locked too: systemd
(tmpfiles.d) removes what is old in temporary folders, but nothing in a folder with a lock.
"""

from __future__ import annotations

import atexit
import fcntl
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from trials.errors import UserError

PREFIX = "sweeper-run-"

_ALIVE = "alive"

YOUNG_S = 3600.0
"""Seconds for which a folder without the file is left alone: its driver may be about to write it."""


@contextmanager
def scratch_folder() -> Iterator[Path]:
    """Yield a new folder in the temporary folder, and remove it afterwards. First remove those of dead processes.

    Raises:
        UserError: the temporary folder cannot be written.
    """
    remove_dead()
    folder: Path | None = None
    locked: list[int] = []
    try:
        folder = Path(tempfile.mkdtemp(prefix=PREFIX))
        locked.append(os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC))
        locked.append(os.open(folder / f"{_ALIVE}.new", os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600))
        for file in locked:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        (folder / f"{_ALIVE}.new").rename(folder / _ALIVE)  # locked before anybody looks for it
    except OSError as error:
        if folder is not None:
            shutil.rmtree(folder, ignore_errors=True)
        _close(locked)
        raise UserError(f"{tempfile.gettempdir()} cannot be written ({error}): make room, or set TMPDIR") from None
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        _close(locked)


def _close(files: list[int]) -> None:
    for file in files:
        os.close(file)


def scratch_until_exit() -> Path:
    """Return a new folder as :func:`scratch_folder` makes it, which is removed when the process ends.

    Raises:
        UserError: the temporary folder cannot be written.
    """
    stack = ExitStack()
    folder = stack.enter_context(scratch_folder())
    atexit.register(stack.close)
    return folder


def remove_dead() -> None:
    """Remove the folders of this user's processes that have ended without doing so, as after SIGKILL."""
    with suppress(OSError):
        for folder in Path(tempfile.gettempdir()).glob(f"{PREFIX}*"):
            with suppress(OSError):
                if _is_dead(folder):
                    shutil.rmtree(folder, ignore_errors=True)


def _is_dead(folder: Path) -> bool:
    found = folder.lstat()
    if found.st_uid != os.geteuid() or folder.is_symlink() or not folder.is_dir():
        return False
    try:
        alive = os.open(folder / _ALIVE, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
    except FileNotFoundError:
        return time.time() - found.st_mtime > YOUNG_S
    try:
        fcntl.flock(alive, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    finally:
        os.close(alive)
    return True
