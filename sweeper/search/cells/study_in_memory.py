"""Optuna's study of a cell, kept in memory, and how a sampler and a pruner get to it."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from typing import Any

import optuna
from optuna.pruners import BasePruner, NopPruner
from optuna.samplers import BaseSampler
from optuna.storages import InMemoryStorage
from optuna.trial import FrozenTrial, TrialState, create_trial

from sweeper.search.outcomes import Outcome
from sweeper.search.pruning.cell_pruner import CellPruner
from sweeper.search.warm_start import NO_WARM_START, WarmStart
from sweeper.space.checks import question_of
from sweeper.space.grid.cells import Cell
from sweeper.space.space import Space
from trials.seeding import derive_seed

optuna.logging.set_verbosity(optuna.logging.WARNING)


@contextmanager
def knowingly() -> Iterator[None]:
    """Suppress Optuna's experimental warning: a space that asks for NSGA-III, QMC, groups or patience means it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        yield


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


class StudyInMemory:
    """The Optuna study of a cell, in memory, and the trials that it was told of.

    Args:
        first_samples: number of samples per cell with which the sweep began, by which samplers go; by default the
            space's.
    """

    def __init__(
        self, space: Space, cell: Cell, warm: WarmStart = NO_WARM_START, first_samples: int | None = None
    ) -> None:
        self.space, self.cell, self.warm = space, cell, warm
        self.question = question_of(space, cell, first_samples)
        self._distributions = {path: d.optuna_distribution() for path, d in self.question.search.items()}
        self._storage = StudyStorage()
        self._study: optuna.Study | None = None
        self._trials: dict[int, int] = {}  # sample number -> id of the study's trial
        self._samples: dict[int, int] = {}  # id of the study's trial -> sample number

    @property
    def study(self) -> optuna.Study:
        """The study, created on first use; observations of an earlier sweep are its first trials."""
        if self._study is None:
            self._study = optuna.create_study(
                storage=self._storage,
                study_name=f"{self.space.seed}:{self.cell.key}",
                directions=[objective.direction for objective in self.space.objectives],
                sampler=self._sampler(0),
                pruner=self._pruner(),
            )
            self._study.pruner.prune(self._study, create_trial(state=TrialState.RUNNING))  # Hyperband forms brackets
            for observation in self.warm.observations:
                self._add(observation.params, Outcome(TrialState.COMPLETE, observation.values, observation.violations))
        return self._study

    @cached_property
    def pruning(self) -> CellPruner | None:
        """What stops trials of the cell early; None without a pruner."""
        if self.space.pruner is None or not self.space.search:
            return None
        return CellPruner(self.space, self.cell, first=len(self.warm.observations))

    def _pruner(self) -> BasePruner:
        """The study's own pruner, by whose brackets samplers tell trials apart. It stops none: :attr:`pruning` does."""
        if self.space.pruner is None or self.pruning is None:
            return NopPruner()
        with knowingly():
            return self.space.pruner.make(self.pruning.steps.total)

    def _sampler(self, number: int, again: int = 0) -> BaseSampler:
        """A sampler seeded by (seed, cell, sample number), so that a rebuilt study does not repeat suggestions.

        ``again``: how many suggestions for this number were repeats.
        """
        parts = (number, "again", again) if again else (number,)
        seed, cell_seed = (derive_seed(self.space.seed, self.cell.key, *n) % 2**32 for n in (parts, ("cell",)))
        with knowingly():
            return self.space.sampler.make(self.question, seed, cell_seed)

    def _know(self, number: int, trial_id: int) -> None:
        self._trials[number], self._samples[trial_id] = trial_id, number

    def _study_attrs(self) -> dict[str, Any]:
        return self._storage.get_study_system_attrs(self.study._study_id)

    def _portable(self, key: str, value: Any) -> Any:
        """A genetic sampler's parents by sample numbers, since trial ids differ in a rebuilt study."""
        return [self._samples[trial_id] for trial_id in value] if ":parent:" in key else value

    def _add(self, params: dict[str, Any], outcome: Outcome, attrs: dict[str, Any] | None = None) -> int:
        """Add a trial to the study and return its id."""
        template = create_trial(
            state=outcome.state,
            values=outcome.values,
            params=params,
            distributions={path: self._distributions[path] for path in params},
            system_attrs=attrs,
            intermediate_values=self._curve(outcome),
            constraints=outcome.violations,
        )
        return self._storage.create_new_trial(self.study._study_id, template)

    def _curve(self, outcome: Outcome) -> dict[int, float]:
        """What the study holds of a trial's values: those that are comparable, at the pruner's steps."""
        return dict(outcome.curve) if self.pruning is None else self.pruning.curve(outcome)

    def _frozen(self, trial_id: int) -> FrozenTrial:
        return self._storage.get_trial(trial_id)
