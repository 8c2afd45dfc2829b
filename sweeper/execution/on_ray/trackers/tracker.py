"""How a callback of a space is made, and where it stands."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from ray import tune

from sweeper.execution.told_rows import ToldRows


@dataclass(frozen=True)
class Tracker:
    """A callback, before it is made.

    Attributes:
        name: as the space has it.
        sweep: the sweep's name.
        make: makes it; runs in the callback's thread.
        folder: where its files lie, a folder for each trial.
        told: what it was told in earlier runs.
        timeout_s: seconds that one call of it may take.
        begun: digits that tell the sweep from others of its name; empty if unknown.
        artifacts: what of a complete trial is attached to its run (:data:`trials.networks.attached.ATTACHED`).
        groups: whether points of the sweep have several trials: replicates, confirmations or segments.
    """

    name: str
    sweep: str
    make: Callable[[], tune.Callback]
    folder: Path
    told: ToldRows
    timeout_s: float
    begun: str = ""
    artifacts: tuple[str, ...] = ()
    groups: bool = False
