"""What a plan hands to a worker, and what it says of an attempt that has ended."""

from __future__ import annotations

from dataclasses import dataclass

from trials.config.trial_config import TrialConfig


@dataclass(frozen=True)
class Assignment:
    """A trial to run now."""

    trial_id: str
    config: TrialConfig
    cell: str
    alone: bool = False
    """True if the trial ran out of memory on a shared device: now no other trial may use its device."""
    avoid: tuple[str, ...] = ()
    """Machines (Ray's node ids) that may not run it."""


@dataclass(frozen=True)
class Ending:
    """The state of one sample's trial: after an attempt at it, or as it was before this driver began.

    Attributes:
        status: as committed; ``died`` (``preempted`` if the plan is stopping) for a process that committed none.
        again: whether the trial will be assigned again.
        warnings: codes of the trial's result.
        confirms: whether the sample is a confirmation, which is never a cell's best.
    """

    trial_id: str
    cell: str
    status: str
    value: float | None = None
    error: str | None = None
    again: bool = False
    empty_layers: int = 0
    warnings: tuple[str, ...] = ()
    confirms: bool = False
