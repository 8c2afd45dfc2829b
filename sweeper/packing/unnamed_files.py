"""Files among the packed ones that the manifest does not name: a kill has left them, or they were taken over."""

from __future__ import annotations

import re
from collections.abc import Iterator

from sweeper.folder.sweep_folder import SweepFolder
from sweeper.packing.right_to_pack import require_right
from trials.storage import files
from trials.storage.packed.manifest import FILE_NAME, PACKED, Manifest

_TEMPORARY = re.compile(r"\..+\.tmp")


def remove_unnamed(folder: SweepFolder, manifest: Manifest) -> None:
    """Remove what the manifest of a sweep does not name. Raises UserError if it is not this process's to do."""
    require_right(folder, manifest)
    for name in _unnamed(folder, manifest):
        (folder.path / PACKED / name).unlink(missing_ok=True)


def put_away_unnamed(folder: SweepFolder, manifest: Manifest) -> list[str]:
    """After the manifest was lost: set aside the files of parts without an index; return a line for each.

    Their trials run again.
    """
    lines, taken_over = [], {number for part in manifest.parts for number in part.replaces}
    for name in _unnamed(folder, manifest):
        match = FILE_NAME.fullmatch(name)
        if match is not None and int(match["number"]) not in taken_over:
            aside = files.set_aside(folder.path / PACKED / name).name
            lines.append(f"{folder.path / PACKED / name} belongs to no index that can be read; set aside as {aside}")
    return lines


def _unnamed(folder: SweepFolder, manifest: Manifest) -> Iterator[str]:
    for name in files.names(folder.path / PACKED):
        if (FILE_NAME.fullmatch(name) or _TEMPORARY.fullmatch(name)) and name not in manifest.names:
            yield name  # others are somebody's, and stay
