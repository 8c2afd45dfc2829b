"""A study of the copy that optuna-dashboard shows, kept equal to trials that change."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from datetime import datetime, timezone
from typing import Any

from optuna.storages import BaseStorage
from optuna.storages.journal import JournalFileBackend
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState


class TimedJournal(JournalFileBackend):
    """A journal whose trials began and ended when :meth:`at` says, not when the journal is written."""

    _times: Mapping[str, datetime | None] | None = None

    @contextmanager
    def at(self, start: datetime | None, complete: datetime | None) -> Iterator[None]:
        """For changes of a trial's state in this context: when it began and ended, in local time."""
        self._times = {"datetime_start": start, "datetime_complete": complete}
        try:
            yield
        finally:
            self._times = None

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        known = {name: _utc(time) for name, time in (self._times or {}).items() if time is not None}
        super().append_logs([{**log, **{name: known[name] for name in known.keys() & log.keys()}} for log in logs])


def _utc(local: datetime) -> str:
    return local.astimezone(timezone.utc).isoformat(timespec="microseconds")


class CopiedStudy:
    """A study in an Optuna storage; :meth:`show` makes its trials equal to those given.

    Optuna changes no trial that has ended, and no choices of a parameter. Where that would be needed (a failed trial
    runs again, the grid has grown), the study is written anew, under another number.
    """

    def __init__(
        self,
        storage: BaseStorage,
        journal: TimedJournal | None,
        name: str,
        directions: Sequence[StudyDirection],
        metric_names: Sequence[str],
    ) -> None:
        self._storage, self._journal, self._name = storage, journal, name
        self._directions, self._metric_names = directions, list(metric_names)
        self._begin()

    def _begin(self) -> None:
        self._id = self._storage.create_new_study(self._directions, self._name)
        self._storage.set_study_system_attr(self._id, "study:metric_names", self._metric_names)
        self._trials: dict[Hashable, tuple[int, FrozenTrial]] = {}
        self._attrs: dict[str, Any] = {}

    def show(self, trials: Mapping[Any, FrozenTrial]) -> None:
        """Add new trials, in the order given, and update those that have changed.

        Args:
            trials: all trials of the study by a name that they keep.
        """
        known = [(before, trials.get(name)) for name, (_, before) in self._trials.items()]
        if any(now is None or not _may_become(before, now) for before, now in known):
            self._storage.delete_study(self._id)
            self._begin()
        for name, trial in trials.items():
            if name not in self._trials:
                self._trials[name] = self._storage.create_new_trial(self._id, trial), trial
                continue
            trial_id, before = self._trials[name]
            if not before.state.is_finished() and _figures(before) != _figures(trial):
                self._go_on(trial_id, before, trial)
                self._trials[name] = trial_id, trial

    def describe(self, attrs: Mapping[str, Any]) -> None:
        """Set attributes of the study."""
        for key, value in attrs.items():
            if self._attrs.get(key) != value:
                self._storage.set_study_user_attr(self._id, key, value)
                self._attrs[key] = value

    def _go_on(self, trial_id: int, before: FrozenTrial, now: FrozenTrial) -> None:
        journal = self._journal
        with journal.at(now.datetime_start, now.datetime_complete) if journal else nullcontext():
            if before.state == TrialState.WAITING and now.state != TrialState.WAITING:
                self._storage.set_trial_state_values(trial_id, TrialState.RUNNING)
            for step, value in now.intermediate_values.items():
                if before.intermediate_values.get(step) != value:
                    self._storage.set_trial_intermediate_value(trial_id, step, value)
            for key, value in now.user_attrs.items():
                if key not in before.user_attrs or before.user_attrs[key] != value:
                    self._storage.set_trial_user_attr(trial_id, key, value)
            for key, value in now.system_attrs.items():
                self._storage.set_trial_system_attr(trial_id, key, value)
            if now.state.is_finished():
                self._storage.set_trial_state_values(trial_id, now.state, now.values)


def _may_become(before: FrozenTrial, now: FrozenTrial) -> bool:
    """Whether Optuna can change a trial of a storage into another one."""
    if before.distributions != now.distributions or before.params != now.params:
        return False
    if before.state.is_finished():
        return _figures(before) == _figures(now)
    return before.state == now.state or now.state != TrialState.WAITING


def _figures(trial: FrozenTrial) -> str:
    """What may change of a trial, as text: NaN equals itself there."""
    return repr((trial.state, trial.values, trial.intermediate_values, trial.user_attrs))
