"""The replicates that a sweep has had: seeds may be added to them."""

from __future__ import annotations

from sweeper.folder.sweep_folder import SweepFolder
from sweeper.space.options.replicates import read_replicates
from trials.errors import UserError


def earlier_replicates(folder: SweepFolder) -> list[list[dict[str, int]]]:
    """Return by document of ``sweep.yaml``, oldest first, what each replicate of a point sets in its config.

    A document whose replicates cannot be read has none.

    Raises:
        UserError: ``sweep.yaml`` is damaged.
    """
    found = []
    for document in folder.documents():
        space = document.get("space") if isinstance(document, dict) else None
        try:
            replicates = read_replicates(space.get("replicates")) if isinstance(space, dict) else None
        except UserError:
            continue
        if replicates is not None:
            found.append(replicates.points())
    return found
