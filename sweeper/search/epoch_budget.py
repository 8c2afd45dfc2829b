"""The number of epochs that a sweep may train (``max_epochs``), and the share of it that its trials take.

Epochs of shared trials do not count: they are trained once for all sweeps of a storage. The planned epochs of a trial
are reserved when it is scheduled, so that planned epochs never overdraw the budget; those that it did not train are
released when it has ended.
"""

from __future__ import annotations

from sweeper.folder.sweep_folder import Record
from sweeper.space.space import Space
from trials.config.trial_config import TrialConfig
from trials.errors import DamagedFile, UserError
from trials.methods.dense import copies_shared
from trials.methods.segments import planned_epochs
from trials.storage.outages import errs
from trials.storage.trial_folder import State


def planned(config: TrialConfig) -> int:
    """Number of epochs that a trial of this config trains itself if it runs to its end.

    Stages that decide when to stop count 0; their epochs count once the trial has ended.
    """
    return 0 if copies_shared(config) else planned_epochs(config)


def trained(record: Record) -> int:
    """Number of committed epochs that a trial trained itself, without those of the segments that it continues."""
    state = record.state
    if state is None:
        return 0
    before = max((segment["until_epoch"] for segment in record.content.get("lineage") or ()), default=0)
    return max((int(state.result["epochs"]) if "epochs" in state.result else _epochs_in(record, state)) - before, 0)


def _epochs_in(record: Record, state: State) -> int:
    """Number of committed epoch rows that were not copied from a shared trial."""
    try:
        table = record.folder.table(state.commits[-1], "epochs") if state.commits else None
        rows = [] if table is None else table.select(["epoch", "stage_id"]).to_pylist()
    except (DamagedFile, OSError, ValueError, KeyError) as error:
        if errs(error):
            raise
        rows = []
    return sum(row["epoch"] > 0 and row["stage_id"] is None for row in rows)


def _reserved(record: Record) -> int:
    """Planned epochs of a scheduled trial; 0 if its config cannot be read, because such a trial fails untrained."""
    try:
        return planned(record.config)
    except UserError:
        return 0


class EpochBudget:
    """Counts the epochs that a plan's trials have reserved or trained."""

    def __init__(self, space: Space) -> None:
        self.space = space
        self.taken = 0
        self._by_trial: dict[str, int] = {}

    def follow(self, record: Record, over: bool) -> None:
        """Reserve a trial's planned epochs; if it is ``over`` for good, count those that it trained instead."""
        if self.space.max_epochs is None:
            return
        epochs = trained(record) if over else _reserved(record)
        self.taken += epochs - self._by_trial.get(record.id, 0)
        self._by_trial[record.id] = epochs

    def allows(self, epochs: int) -> bool:
        """Whether the budget has room for one more trial of so many epochs."""
        return self.space.max_epochs is None or self.taken + epochs <= self.space.max_epochs
