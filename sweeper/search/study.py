"""The Optuna study of a cell, kept in memory and rebuilt from the committed samples, which are the only truth."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from functools import cached_property
from typing import Any

import optuna
from optuna.pruners import BasePruner, NopPruner
from optuna.samplers import BaseSampler
from optuna.storages import InMemoryStorage
from optuna.trial import FrozenTrial, TrialState, create_trial

from sweeper.folder.sweep_folder import Record, Sample
from sweeper.search.cell_pruner import CellPruner
from sweeper.search.epoch_budget import planned
from sweeper.search.outcomes import Outcome
from sweeper.search.positions import Position, position_after
from sweeper.search.warm_start import NO_WARM_START, WarmStart
from sweeper.space.checks import question_of
from sweeper.space.grid import conditions
from sweeper.space.grid.cells import Cell
from sweeper.space.options.samplers import SAMPLERS
from sweeper.space.pruner_steps import Spans, epoch_spans
from sweeper.space.space import Space
from trials.config.trial_config import TrialConfig
from trials.plugins.blaming import blaming
from trials.seeding import derive_seed

optuna.logging.set_verbosity(optuna.logging.WARNING)

STUDY = "study"
"""Key, among a sample's attributes, of what its suggestion changed on the study rather than on its trial."""


@contextmanager
def knowingly() -> Iterator[None]:
    """Suppress Optuna's experimental warning: a space that asks for NSGA-III, QMC, groups or patience means it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        yield


class CellStudy:
    """The study of one cell. Trials of different cells are never compared."""

    def __init__(self, space: Space, cell: Cell, warm: WarmStart = NO_WARM_START) -> None:
        self.space, self.cell, self.warm = space, cell, warm
        self._first = (*space.enqueue, *warm.points)
        self.question = question_of(space, cell)
        self._distributions = {path: d.optuna_distribution() for path, d in self.question.search.items()}
        self._asked: set[int] = set()
        self._next = 0
        self._storage = InMemoryStorage()
        self._study: optuna.Study | None = None
        self._trials: dict[int, int] = {}  # sample number -> id of the study's trial
        self._samples: dict[int, int] = {}  # id of the study's trial -> sample number
        self._spans: dict[int, Spans] = {}  # of trials that run, where these differ

    @property
    def count(self) -> int:
        """Number of samples that this cell has."""
        return len(self._asked)

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

    @property
    def ready(self) -> bool:
        """Always True: a study does not wait for running trials."""
        return True

    @property
    def wants(self) -> bool:
        """Whether samples are left to ask for."""
        return self.count < self.space.samples

    @property
    def total(self) -> int:
        """Number of samples that this cell will have in the end."""
        return max(self.count, self.space.samples)

    @cached_property
    def next_epochs(self) -> int:
        """Maximum number of epochs that the next trial may take, over the corners of the search."""
        return max(map(planned, self.space.corner_configs(self.cell)))

    def config(self, sample: Sample) -> TrialConfig:
        """The config of a sample's trial."""
        return self.space.config(self.cell, sample.params)

    def released(self) -> Iterable[str]:
        """Always empty: a study's trials keep their checkpoints."""
        return ()

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

    def _sampler(self, number: int) -> BaseSampler:
        """A sampler seeded by (seed, cell, sample number), so that a rebuilt study does not repeat suggestions."""
        seed, cell_seed = (derive_seed(self.space.seed, self.cell.key, n) % 2**32 for n in (number, "cell"))
        with knowingly():
            return self.space.sampler.make(self.question, seed, cell_seed)

    def ask(self) -> Sample:
        """The next sample of this cell, with the lowest unused number: gaps left by lost records are filled first."""
        while self._next in self._asked:
            self._next += 1
        number = self._next
        self._asked.add(number)
        sampler = self.space.sampler.name
        with nullcontext() if SAMPLERS.built_in(sampler) else blaming(f"sampler is {sampler!r}, whose code failed"):
            params, attrs = self._suggest(number) if self.space.search else ({}, {})
        return Sample(self.cell.key, number, dict(self.cell.values), params, attrs)

    def _suggest(self, number: int) -> tuple[dict[str, Any], dict[str, Any]]:
        """A point of the search, and the attributes that the sampler left on its trial and on the study."""
        self.study.sampler = self._sampler(number)
        before = self._study_attrs()
        if number < len(self._first):  # points of the space, then of the earlier sweep
            self.study.enqueue_trial(self._inside(self._first[number]))
        trial = self.study.ask()
        self._know(number, trial._trial_id)
        values: dict[str, Any] = dict(self.cell.values)
        for path, distribution in self.question.search.items():
            if conditions.holds(distribution.when, values):
                values[path] = distribution.suggest(trial, path)
        frozen = self._frozen(trial._trial_id)
        attrs = self.space.sampler.remembered(dict(frozen.system_attrs))
        changed = {key: value for key, value in self._study_attrs().items() if before.get(key) != value}
        if changed:
            attrs[STUDY] = {key: self._portable(key, value) for key, value in changed.items()}
        return dict(frozen.params), attrs

    def _inside(self, point: dict[str, Any]) -> dict[str, Any]:
        """What of a point lies within this cell's ranges, which may be narrower than those of all cells together."""
        search = self.question.search
        return {path: value for path, value in point.items() if path not in search or search[path].contains(value)}

    def _know(self, number: int, trial_id: int) -> None:
        self._trials[number], self._samples[trial_id] = trial_id, number

    def _study_attrs(self) -> dict[str, Any]:
        return self._storage.get_study_system_attrs(self.study._study_id)

    def _portable(self, key: str, value: Any) -> Any:
        """A genetic sampler's parents by sample numbers, since trial ids differ in a rebuilt study."""
        return [self._samples[trial_id] for trial_id in value] if ":parent:" in key else value

    def replay(self, sample: Sample, outcome: Outcome, record: Record | None = None) -> None:
        """Add a committed sample with its outcome, or as running. Call in the order of sample numbers."""
        self._asked.add(sample.number)
        if not self.space.search:
            return
        attrs = dict(sample.attrs)
        for key, value in attrs.pop(STUDY, {}).items():
            known = [self._trials[n] for n in value if n in self._trials] if ":parent:" in key else value
            self._storage.set_study_system_attr(self.study._study_id, key, known)
        self._know(sample.number, self._add(sample.params, outcome, self.space.sampler.recalled(attrs)))
        if self.pruning is not None:
            self.pruning.replay(sample.number, outcome, attrs)

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
        return {} if self.pruning is None else self.pruning.curve(outcome)

    def tell(self, sample: Sample, outcome: Outcome) -> None:
        """Record the outcome of the sample's trial. Only the first call for a sample counts."""
        if not self.space.search:
            return
        trial_id = self._trials[sample.number]
        frozen = self._frozen(trial_id)
        if frozen.state.is_finished():
            return
        curve = self._curve(outcome)
        for step in sorted(curve.keys() - frozen.intermediate_values.keys()):
            self._storage.set_trial_intermediate_value(trial_id, step, curve[step])
        if self.pruning is not None:
            self.pruning.tell(sample.number, outcome)
        bounds = create_trial(state=TrialState.RUNNING, constraints=outcome.violations).system_attrs
        for key, value in bounds.items():
            self._storage.set_trial_system_attr(trial_id, key, value)
        self._storage.set_trial_state_values(trial_id, outcome.state, outcome.values)

    def judge(self, sample: Sample, step: int, value: float, at: Position | None = None) -> tuple[bool, dict[str, Any]]:
        """Whether the pruner stops the sample's trial after this step, and the attributes that it left on the trial.

        ``at``: the row's position; by default that of a trial with so many epochs behind it as ``step`` says.
        """
        if self.pruning is None:
            return False, {}
        placed = self._placed(sample, step, at)
        if placed is None:
            return False, {}
        stop, left = self.pruning.judge(sample.number, placed, value)
        trial_id, reached = self._trials[sample.number], self.pruning.step(placed)
        known = self._frozen(trial_id)
        if reached is not None and reached not in known.intermediate_values and not known.state.is_finished():
            self._storage.set_trial_intermediate_value(trial_id, reached, value)
            for key, attr in left.items():
                self._storage.set_trial_system_attr(trial_id, key, attr)
        return stop, left

    def _placed(self, sample: Sample, step: int, at: Position | None) -> Position | None:
        """The position with the epochs of the sample's own stages, where trials of this cell differ in them."""
        if self.pruning is None or (at is not None and (at.span is not None or not self.pruning.steps.varies)):
            return at
        if sample.number not in self._spans:
            self._spans[sample.number] = epoch_spans(self.config(sample))
        spans = self._spans[sample.number]
        return position_after(spans, step) if at is None else replace(at, span=spans.get(at.place))

    def _frozen(self, trial_id: int) -> FrozenTrial:
        return self._storage.get_trial(trial_id)
