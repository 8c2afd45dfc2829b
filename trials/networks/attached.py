"""Files of a trial that trackers attach to its run: its config, its masks, and its network in forms of export."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from trials.networks.export import export
from trials.networks.stored import checkpoint, whole_masks
from trials.storage import files
from trials.storage.config_file import CONFIG
from trials.storage.place import Place
from trials.storage.safe_read import read_plain


def write_attached(trial: Place, folder: Path, wanted: Sequence[str]) -> dict[str, int]:
    """Write files of a trial's last committed network into a folder, and return their sizes in bytes by name.

    ``config.json`` is always among them: it says how the trial was run, and which files its network was made from.

    Args:
        trial: the trial's folder.
        folder: a folder that exists.
        wanted: ``masks``: masks.pt, the masks alone, bool, in the shapes of the whole model and under the names of its
            weights, one byte per weight. ``dense``, ``prune``, ``compact``: the network as
            :func:`trials.networks.export.export` writes it in this form. All are read by
            ``torch.load(weights_only=True)``.

    Raises:
        UserError: the folder holds no trial with a checkpoint, or a file cannot be written.
        OSError, DamagedFile: config.json or the storage cannot be read.
    """
    (folder / CONFIG).write_bytes(read_plain(trial / CONFIG))
    for one in wanted:
        to = folder / f"{one}.pt"
        if one == "masks":
            files.save(to, whole_masks(trial, checkpoint(trial)))
        else:
            export(trial, to, one)
    return {path.name: path.stat().st_size for path in sorted(folder.iterdir())}
