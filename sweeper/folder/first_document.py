"""What of a sweep's first document holds for as long as the sweep goes on, however it is extended."""

from __future__ import annotations

from sweeper.folder.sweep_folder import SweepFolder


def first_samples(folder: SweepFolder) -> int | None:
    """Return the number of samples per cell with which the sweep began; None if its folder does not say it.

    Samplers make of it how many of a cell's samples are random at first. More samples must not raise that number: a
    search that has learned would draw at random again.

    Raises:
        UserError: ``sweep.yaml`` is damaged.
    """
    documents = folder.documents()
    space = documents[0].get("space") if documents and isinstance(documents[0], dict) else None
    samples = space.get("samples") if isinstance(space, dict) else None
    return samples if isinstance(samples, int) and not isinstance(samples, bool) and samples > 0 else None
