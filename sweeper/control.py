"""Commands on sweeps, from any machine that sees their storage: list them, watch one, cancel one."""

from __future__ import annotations

import time
from contextlib import suppress

from rich.console import Console

from sweeper.console import print_line
from sweeper.execution.stop_file import StopFile
from sweeper.folder.sweep_folder import SweepFolder
from sweeper.packing.whole_sweep import pack_whole
from sweeper.results.report import ROWS_SHOWN, show_tables, standing
from sweeper.results.tables import TablesReader, read
from sweeper.screen.watched import Watched
from trials.errors import UserError
from trials.storage import files
from trials.storage.leases.lease import Lease
from trials.storage.leases.owner import Owner
from trials.storage.outages import is_by_hand
from trials.storage.place import Place
from trials.storage.sweep_path import STAGES, is_sweep_name

CANCEL_S = 120.0
"""Seconds to wait for a driver to stop; its trials have a minute to commit."""

CANCEL_POLL_S = 0.5


def list_sweeps(storage: Place, console: Console) -> None:
    """Print one line per sweep of a storage: its progress and its driver, or what is wrong with its sweep.yaml.

    A sweep that cannot be read is no error of the command, which still exits with code 0.
    """
    found = False
    for path in (storage / name for name in files.names(storage) if name != STAGES and is_sweep_name(name)):
        try:
            if not ((path / "trials").is_dir() or (path / "sweep.yaml").is_file()):
                continue
            line = standing(read(path, rows=()))
        except UserError as error:
            line = f"{path.name}: {error}"
        except PermissionError as error:
            line = f"{path.name}: {error.strerror}, so this user cannot read it"
        print_line(console, line)
        found = True
    if not found:
        print_line(console, f"no sweeps in {storage}")


def watch_sweep(path: Place, console: Console, every_s: float) -> None:
    """Print what ``--show`` prints, and again when it has changed, until the sweep has ended or at KeyboardInterrupt.

    On a terminal the screen shows it, as much as there is room for, and what was read last is printed at the end. Only
    trials that have committed something are read again, and nothing is written. A sweep has ended if nothing of it runs
    or is left, or if its driver has gone since. A storage that cannot be read is waited for, after a line.

    Raises:
        UserError: ``path`` is not a sweep's folder to begin with, or its sweep.yaml is damaged.
        OSError: this user may not read it.
    """
    following = TablesReader(path, ROWS_SHOWN)
    with Watched(console, every_s) as watched, suppress(KeyboardInterrupt):
        driven, begun = False, False
        while True:
            try:
                with watched.reading() as block:
                    found = show_tables(following.read(), block)
            except (OSError, UserError) as error:
                if not begun and (isinstance(error, UserError) or is_by_hand(error)):
                    raise
                watched.away(" ".join(str(error).split()))
            else:
                begun, was_driven, driven = True, driven, found.is_driven
                watched.show()
                if not (found.running or found.left) or (was_driven and not driven):
                    return
            time.sleep(every_s)


def cancel(path: Place, console: Console) -> None:
    """Ask the driver of a sweep to commit everything and stop, and wait until it has stopped.

    Raises:
        UserError: ``path`` is not a sweep's folder, or the driver has not stopped within ``CANCEL_S``.
    """
    sweep = read(path, rows=())
    lease = Lease(path / "lock")
    owner = lease.owner()
    if owner is None or owner.surely_dead:
        print_line(console, f"{standing(sweep)}; there is nothing to cancel")
        return
    try:
        StopFile(SweepFolder(path).stop).put(owner.token)
    except OSError as error:
        raise UserError(
            f"{path.name}: {owner} cannot be asked to stop, since the folder cannot be written ({error}): give the "
            "command where it can"
        ) from None
    print_line(console, f"{path.name}: asked {owner} to stop; its trials commit what they have")
    end = time.monotonic() + CANCEL_S
    while _drives(lease, owner):
        if time.monotonic() > end:
            raise UserError(
                f"{path.name}: {owner} has not stopped within {CANCEL_S:g} s: it stops when it sees the request; "
                "if it is dead, the next driver takes over"
            )
        time.sleep(CANCEL_POLL_S)
    print_line(console, f"{standing(read(path, rows=()))}; run the same command again to resume")


def pack_sweep(path: Place, console: Console) -> None:
    """Put the finished trials of a sweep that no driver runs into few files, and say how many there are.

    Raises:
        UserError: ``path`` is not a sweep's folder, a driver runs it, or the storage is full.
    """
    print_line(console, f"{path.name}: {pack_whole(path, console)}")


def _drives(lease: Lease, owner: Owner) -> bool:
    now = lease.owner()
    return now is not None and now.token == owner.token and not now.surely_dead
