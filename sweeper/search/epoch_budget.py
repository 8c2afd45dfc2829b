"""How many epochs a sweep may train in all (``max_epochs``), and what its trials take of them.

Epochs of shared stages are nobody's: they are trained once for all sweeps of a storage. What a trial may still need is
set aside for it when it is scheduled, so that the budget is never overdrawn; what a trial that ended did not need is
given back.
"""

from __future__ import annotations

from sweeper.folder.sweep_folder import Record
from sweeper.space.space import Space
from trials.config.trial_config import TrialConfig
from trials.errors import DamagedFile
from trials.methods.dense import is_shared
from trials.methods.segments import planned_epochs
from trials.storage.trial_folder import State


def planned(config: TrialConfig) -> int:
    """The epochs that a trial of this config trains itself if it runs to its end.

    A stage that ends itself plans none: what it came to counts once the trial has ended.
    """
    return 0 if is_shared(config) else planned_epochs(config)


def trained(record: Record) -> int:
    """The epochs that a trial has trained itself, as committed: those of the segments that it continues are not."""
    state = record.state
    if state is None:
        return 0
    before = max((segment["until_epoch"] for segment in record.content.get("lineage") or ()), default=0)
    return max((int(state.result["epochs"]) if "epochs" in state.result else _epochs_in(record, state)) - before, 0)


def _epochs_in(record: Record, state: State) -> int:
    """Of the committed rows, those of epochs that were not copied from a shared stage."""
    try:
        table = record.folder.table(state.commits[-1], "epochs") if state.commits else None
    except (DamagedFile, OSError, ValueError):
        table = None
    rows = [] if table is None else table.select(["epoch", "stage_id"]).to_pylist()
    return sum(row["epoch"] > 0 and row["stage_id"] is None for row in rows)


class EpochBudget:
    """Follows a plan's trials."""

    def __init__(self, space: Space) -> None:
        self.space = space
        self.taken = 0
        self._by_trial: dict[str, int] = {}

    def follow(self, record: Record, over: bool) -> None:
        """A trial is scheduled, or is over: for good, by whatever end."""
        if self.space.max_epochs is None:
            return
        epochs = trained(record) if over else planned(record.config)
        self.taken += epochs - self._by_trial.get(record.id, 0)
        self._by_trial[record.id] = epochs

    def allows(self, epochs: int) -> bool:
        """Whether one more trial, of so many epochs, fits."""
        return self.space.max_epochs is None or self.taken + epochs <= self.space.max_epochs
