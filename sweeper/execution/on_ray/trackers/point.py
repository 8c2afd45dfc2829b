"""Which point of a search a trial belongs to, so that trackers show its replicates and confirmations together."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from sweeper.folder.confirmations import confirmation_of
from sweeper.folder.replicates import replicate_of
from sweeper.folder.sweep_folder import read_samples
from trials.storage.config_file import read_config
from trials.storage.place import Place

MOST_CHARACTERS = 128
"""Length of a group's name (W&B's limit)."""


@dataclass(frozen=True)
class TrackedPoint:
    """What a trial is to its search.

    Attributes:
        name: its cell and the number of its sample, as ``density=0.5 #3``: the same for all replicates of a point and
            for its confirmations. In a population, the cell and the member, as ``density=0.5 member 2``.
        role: ``trial``, ``replicate``, ``confirmation`` or ``segment``.
        values: the cell's grid values and the sample's hyperparameters, by dotted path.
    """

    name: str = ""
    role: str = "trial"
    values: Mapping[str, Any] = field(default_factory=dict)

    @property
    def is_shared(self) -> bool:
        """Whether several trials are known to belong to it."""
        return self.role in ("replicate", "confirmation", "segment")


def point_of(trial_folder: Place, cell: str) -> TrackedPoint:
    """Read the point that a trial belongs to; of several, its first sample in ``cell``, searched rather than confirmed.

    Raises:
        OSError, DamagedFile: the trial's config.json cannot be read.
    """
    try:
        samples = read_samples(read_config(trial_folder).samples, trial_folder)
    except FileNotFoundError:
        return TrackedPoint()
    if not samples:
        return TrackedPoint()
    sample = min(samples, key=lambda one: (one.cell != cell, confirmation_of(one) is not None, one.number))
    role, place = "trial", f"#{sample.number}"
    if confirmation_of(sample) is not None:
        role = "confirmation"
    elif replicate_of(sample) is not None:
        role = "replicate"
    elif "pbt" in sample.attrs:
        role, place = "segment", f"member {sample.attrs['pbt'].get('member')}"
    return TrackedPoint(f"{sample.cell} {place}".strip(), role, {**sample.grid, **sample.params})


def group_name(sweep: str, begun: str, point: str) -> str:
    """Return what a point's trials are grouped under: the sweep, the point, and digits of when the sweep was begun.

    Sweeps of one name may share a project, and their points of one number are not the same.
    """
    whole = " ".join(filter(None, (sweep, point, f"({begun[:6]})" if begun else "")))
    if len(whole) <= MOST_CHARACTERS:
        return whole
    digest = hashlib.sha256(whole.encode()).hexdigest()[:8]
    return f"{whole[: MOST_CHARACTERS - len(digest) - 4]}... {digest}"
