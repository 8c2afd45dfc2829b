"""The right to change what is packed: only the sweep's driver has it, and only in the sweep's own folder.

A process that was frozen while it packed may wake after another one has taken the sweep over, packed it, and ended.
What it knows by then is old: it must neither write its manifest nor delete what that does not name.
"""

from __future__ import annotations

from sweeper.folder.sweep_folder import SweepFolder
from trials.errors import DamagedFile, UserError
from trials.storage.leases.lease import Lease
from trials.storage.packed.manifest import MANIFEST, PACKED, Manifest
from trials.storage.packed.reading import forget_packs
from trials.storage.safe_read import read_plain, require_own_folder


def write_manifest(folder: SweepFolder, manifest: Manifest, instead_of: Manifest | None) -> None:
    """Replace the manifest of a sweep.

    Args:
        instead_of: what the file said when ``manifest`` was made; None if it was missing or damaged.

    Raises:
        UserError: another process has written the manifest since, or drives the sweep, or ``packed`` is no folder.
    """
    require_right(folder, instead_of)
    manifest.write(folder.path / PACKED)
    forget_packs(folder.path)


def require_right(folder: SweepFolder, stored: Manifest | None) -> None:
    """Check that this process may still change what is packed.

    Args:
        stored: what the manifest says, as far as this process knows; None if it is missing or damaged.

    Raises:
        UserError: as :func:`write_manifest`.
    """
    try:
        require_own_folder(folder.path / PACKED)
    except DamagedFile as damage:
        raise UserError(f"{damage}: nothing is packed; put a folder there, or move it away") from None
    owner = Lease(folder.path / "lock").owner()
    if owner is not None and not owner.is_this_process and not owner.surely_dead:
        raise UserError(f"{folder.path.name} is being run by {owner} by now, which packs its trials")
    if stored_manifest(folder) != stored:
        raise UserError(
            f"another process has packed trials of {folder.path.name} meanwhile: what this one began is void"
        )


def stored_manifest(folder: SweepFolder) -> Manifest | None:
    """What the manifest says now; None if it is missing or damaged."""
    where = folder.path / PACKED / MANIFEST
    try:
        return Manifest.read(read_plain(where), where)
    except (FileNotFoundError, NotADirectoryError, DamagedFile):
        return None
