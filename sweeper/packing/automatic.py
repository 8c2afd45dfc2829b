"""What a run packs by itself: finished trials, once there are many of them; and the checkpoints that it drops."""

from __future__ import annotations

from collections.abc import Collection

from sweeper.folder.sweep_folder import SweepFolder
from sweeper.packing.kept_checkpoints import everything, kept_checkpoints
from sweeper.packing.own_files import drop_checkpoint
from sweeper.packing.packing import Packing, drop_packed_checkpoints, pack_finished
from trials.storage import files
from trials.storage.packed.manifest import PART_TRIALS

PACK_ABOVE = PART_TRIALS
"""A run packs by itself when more finished trials than this have folders of their own: they fill a part, and fewer
trials do no harm to a file system, and are easier to look at."""


def drop_and_pack(folder: SweepFolder, *, over: bool) -> None:
    """Pack the trials of a sweep at the end of a run if they are many; drop checkpoints that its space does not keep.

    For the holder of the sweep's lease.

    Args:
        over: whether the sweep is complete.

    Raises:
        OSError: the storage does not take it; nothing is lost.
        UserError: ``sweep.yaml`` is damaged.
    """
    pack_if_many(folder, over=over)
    keeps = kept_checkpoints(folder, over=over)
    if over and keeps is not everything:
        drop_packed_checkpoints(folder, keeps)
        for name in files.names(folder.trials):
            if not keeps(name):
                drop_checkpoint(folder, name)


def pack_if_many(folder: SweepFolder, running: Collection[str] = (), *, over: bool = False) -> Packing | None:
    """Pack the finished trials of a sweep if more than ``PACK_ABOVE`` may be there; None if they are fewer."""
    if len(files.names(folder.trials)) - len(running) <= PACK_ABOVE:
        return None
    return pack_finished(folder, kept_checkpoints(folder, over=over), running)
