"""Pack a sweep that no driver runs: ``--pack``, and ``Sweep.pack`` in Python."""

from __future__ import annotations

from rich.console import Console

from sweeper.console import print_line
from sweeper.folder.driving import driving
from sweeper.folder.sweep_folder import SweepFolder
from sweeper.packing.kept_checkpoints import everything, kept_checkpoints
from sweeper.packing.packing import Packing, drop_packed_checkpoints, pack_finished
from sweeper.packing.repairing import repair_packed
from sweeper.results.report import count_standing
from sweeper.results.tables import read
from trials.storage.outages import acting, one_line_if_full
from trials.storage.place import Place


def pack_whole(path: Place, console: Console) -> Packing:
    """Put the finished trials of a sweep that no driver runs into few files.

    Args:
        console: is told of packed files that were damaged, and of the wait for a driver that may be dead.

    Raises:
        UserError: ``path`` is not a sweep's folder, a driver runs it, or the storage is full.
    """
    read(path, rows=())
    folder = SweepFolder(path)
    with driving(folder, console), one_line_if_full(path), acting():
        for line in repair_packed(folder):
            print_line(console, line)
        standing = count_standing(read(path, rows=()))  # the last driver has ended by now
        keeps = kept_checkpoints(folder, over=not (standing.running or standing.left))
        if keeps is not everything:
            drop_packed_checkpoints(folder, keeps)
        return pack_finished(folder, keeps)
