"""The storage of a cell's study: Optuna's own in memory, of which the last trial can be taken back."""

from __future__ import annotations

from optuna.storages import InMemoryStorage


class StudyStorage(InMemoryStorage):
    """Optuna's storage in memory, with :meth:`take_back`.

    Optuna cannot delete a trial, and one that is told as failed would count for samplers and pruners, and shift the
    numbers of those after it, which grids and brackets go by.
    """

    def take_back(self, study_id: int) -> None:
        """Remove the study's last trial, which must be the storage's last; its number and its id are given again."""
        with self._lock:
            last = self._studies[study_id].trials.pop()
            del self._trial_id_to_study_id_and_number[last._trial_id]
            self._max_trial_id = last._trial_id - 1
