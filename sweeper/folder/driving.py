"""The right to drive a sweep: one process has it at a time."""

from __future__ import annotations

import errno
import os
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console

from sweeper.folder.sweep_folder import SweepFolder
from trials.errors import UserError
from trials.storage.leases.lease import HEARTBEAT_S, Lease
from trials.storage.leases.lease_store import require_locks
from trials.storage.outages import one_line_if_full, refused_at_start
from trials.storage.place import ObjectPath, Place


@contextmanager
def driving(folder: SweepFolder, console: Console) -> Iterator[Lease]:
    """Hold the lease that makes this process the sweep's one driver.

    Raises:
        UserError: another driver holds it, or the storage cannot be written or has no locks.
    """
    lease = Lease(folder.path / "lock")
    _require_lockable(folder.path / "lock")
    with refused_at_start(folder.path):  # while it starts: later, calls of the storage wait
        _require_folder(folder.stages)
        require_locks(folder.path / "lock")
        require_locks(folder.stages)
    with one_line_if_full(folder.path):
        if not lease.acquire() and not outlive(lease, console):
            raise UserError(
                f"{folder.path.name} is being run by {lease.owner()}, but a sweep has one driver: "
                "wait for it, stop it, or give another --name (--show follows it)"
            )
        with lease:
            yield lease


def _require_folder(stages: Place) -> None:
    """Check that nothing but a folder, or a link to one, lies in the place of the shared trials.

    Raises:
        UserError: something else does.
    """
    if isinstance(stages, ObjectPath) or not os.path.lexists(stages):
        return
    try:
        is_folder = stat.S_ISDIR(stages.stat().st_mode)
    except OSError as error:
        if error.errno not in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
            raise
        is_folder = False
    if not is_folder:
        raise UserError(f"{stages} is no folder, so no sweep can be run beside it: move it away")


def _require_lockable(lock: Place) -> None:
    """Check that this user may lock the sweep, which another one may have begun.

    Raises:
        UserError: the file that is locked is not writable, or is no file.
    """
    guard = lock / "lease.guard"
    for path, right, kind in ((lock, stat.S_ISDIR, "folder"), (guard, stat.S_ISREG, "file")):
        if isinstance(path, Path) and os.path.lexists(path) and not right(path.lstat().st_mode):
            raise UserError(f"{path} is no {kind}, so the sweep cannot be run: move it away")
    if isinstance(guard, Path) and guard.exists() and not os.access(guard, os.R_OK | os.W_OK):
        raise UserError(
            f"{guard} cannot be written by this user, so the sweep cannot be run: its owner ({_owner_of(guard)}) must "
            "allow it, as by chmod -R g+rwX on the sweep's folder"
        )


def _owner_of(path: Path) -> str:
    """The name of the user who owns a file; the number of one without a name, as of another machine."""
    try:
        return path.owner()
    except KeyError:
        return f"user {path.stat().st_uid}"


def outlive(lease: Lease, console: Console) -> bool:
    """Watch an owner on another host: take the lease over if its heartbeat stops, return False if it beats."""
    first = lease.owner()
    if first is None or first.near:
        return lease.acquire()
    console.print(f"the driver was {first}; waiting about a minute for a sign of life", markup=False)
    while lease.owner() == first:
        if lease.acquire():
            return True
        time.sleep(HEARTBEAT_S / 5)
    return lease.acquire()
