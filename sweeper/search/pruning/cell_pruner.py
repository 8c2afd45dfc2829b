"""The pruner of a cell: shows Optuna's pruner only what is comparable with the value it is asked about.

A value is compared with values of the same stage, level and share of the stage (:mod:`sweeper.space.pruner_steps`) at
the same density, of trials that keep their bounds or may still keep them. Each question is put to Optuna's pruner over
a study that holds just these values. Which trials it holds depends on committed rows, attributes and outcomes alone.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Container, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import optuna
from optuna.pruners import BasePruner, PatientPruner
from optuna.storages import InMemoryStorage
from optuna.trial import FrozenTrial, TrialState

from sweeper.search.outcomes import Outcome
from sweeper.search.pruning.positions import Position
from sweeper.space.grid.cells import Cell
from sweeper.space.options.pruners import Patient, Pruner
from sweeper.space.pruned_search import compares_at_any_density
from sweeper.space.pruner_steps import pruner_steps
from sweeper.space.space import Space


@dataclass
class _Judged:
    """What is known of a trial: its values by step, where they were taken, and what the pruner left on it."""

    number: int
    state: TrialState = TrialState.RUNNING
    values: dict[int, float] = field(default_factory=dict)
    positions: dict[int, Position] = field(default_factory=dict)
    attrs: dict[str, Any] = field(default_factory=dict)
    misses: bool = False
    stopped: int | None = None


class _Comparable(InMemoryStorage):
    """The storage of a study with the comparable trials of one question; keeps what the pruner leaves on its trial."""

    def __init__(self) -> None:
        super().__init__()
        self.trials: list[FrozenTrial] = []
        self.left: dict[str, Any] = {}
        self.misses = False

    def get_all_trials(
        self, study_id: int, deepcopy: bool = True, states: Container[TrialState] | None = None
    ) -> list[FrozenTrial]:
        return [trial for trial in self.trials if states is None or trial.state in states]

    def set_trial_system_attr(self, trial_id: int, key: str, value: Any) -> None:
        self.left[key] = value


class _FeasibleFirst(BasePruner):
    """Compares a trial that is certain to miss its bounds as if its values were the worst possible ones."""

    def __init__(self, pruner: BasePruner) -> None:
        self.pruner = pruner

    def prune(self, study: optuna.Study, trial: FrozenTrial) -> bool:
        storage = study._storage
        assert isinstance(storage, _Comparable)
        if not storage.misses:
            return self.pruner.prune(study, trial)
        step = trial.last_step
        assert step is not None
        worst = -math.inf if study.direction == optuna.study.StudyDirection.MAXIMIZE else math.inf
        values = {at: math.nan if math.isnan(value) else worst for at, value in trial.intermediate_values.items()}
        stops = self.pruner.prune(study, _frozen(trial.number, trial.state, values, trial.system_attrs))
        storage.left = dict.fromkeys(storage.left, trial.intermediate_values[step])
        return stops


def _frozen(number: int, state: TrialState, values: dict[int, float], attrs: dict[str, Any]) -> FrozenTrial:
    return FrozenTrial(
        number=number,
        state=state,
        value=None,
        datetime_start=None,
        datetime_complete=None,
        params={},
        distributions={},
        user_attrs={},
        system_attrs=attrs,
        intermediate_values=values,
        trial_id=number,
    )


def _comparing(options: Pruner, steps: int) -> BasePruner:
    """Optuna's pruner, whose comparisons with other trials put feasible ones first."""
    if isinstance(options, Patient):
        wrapped = None if options.wrapped is None else _comparing(options.wrapped, steps)
        return PatientPruner(wrapped, options.patience, options.min_delta)
    return _FeasibleFirst(options.make(steps))


class CellPruner:
    """Decides which trials of a cell are stopped early. Trials are known by their sample's, or point's, number.

    Args:
        name: name of its study, from which Hyperband draws the brackets of trials; by default that of the cell's study.
        first: number of trials that the cell's study has before that of number 0, for the same brackets.
    """

    def __init__(self, space: Space, cell: Cell, name: str | None = None, first: int = 0) -> None:
        assert space.pruner is not None, "the space has no pruner"
        self.steps = pruner_steps(space, cell)
        self._any_density = compares_at_any_density(space)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)  # it is meant
            self._pruner = _comparing(space.pruner, self.steps.total)
        self._storage = _Comparable()
        self._study = optuna.create_study(
            storage=self._storage,
            study_name=f"{space.seed}:{cell.key}" if name is None else name,
            direction=space.objectives[0].direction,
            pruner=self._pruner,
        )
        self._first = first
        self._known: dict[int, _Judged] = {}

    def step(self, at: Position) -> int | None:
        """The step of a position; None if no value is compared there."""
        return self.steps.step(at.place, at.epoch, at.span)

    def curve(self, outcome: Outcome) -> dict[int, float]:
        """A trial's values by step."""
        return {step: value for step, (_, value) in self._reached(outcome).items()}

    def _reached(self, outcome: Outcome) -> dict[int, tuple[Position | None, float]]:
        if not outcome.reached:
            return {step: (None, value) for step, value in outcome.curve.items()}
        spans = outcome.spans() if self.steps.varies and outcome.spans is not None else {}
        found: dict[int, tuple[Position | None, float]] = {}
        for at, value in outcome.reached:
            placed = replace(at, span=spans.get(at.place)) if at.span is None else at
            step = self.step(placed)
            if step is not None:
                found[step] = placed, value
        return found

    def replay(
        self, number: int, outcome: Outcome, attrs: Mapping[str, Any], *, stopped: Position | None = None
    ) -> None:
        """Add a committed trial, ended or running, with its curve and the attributes of its sample.

        ``stopped``: where it was stopped, whether or not its process has heard of that.
        """
        known = self._known[number] = _Judged(number, attrs=dict(attrs))
        self._update(known, outcome)
        known.stopped = None if stopped is None else self.step(stopped)

    def tell(self, number: int, outcome: Outcome) -> None:
        """Record the outcome of a trial. Only the first end of a trial counts."""
        known = self._known.setdefault(number, _Judged(number))
        if not known.state.is_finished():
            self._update(known, outcome)

    def _update(self, known: _Judged, outcome: Outcome) -> None:
        known.state = outcome.state
        if outcome.state == TrialState.FAIL:  # it counts nowhere: a new driver may know none of its last rows
            known.values.clear()
            known.positions.clear()
            return
        for step, (at, value) in self._reached(outcome).items():
            if step not in known.values:
                self._add(known, step, at, value)
        known.misses |= outcome.will_miss or (outcome.state == TrialState.COMPLETE and outcome.missed > 0)

    @staticmethod
    def _add(known: _Judged, step: int, at: Position | None, value: float) -> None:
        known.values[step] = value
        if at is not None:
            known.positions[step] = at
            known.misses |= at.will_miss

    def judge(self, number: int, at: Position, value: float) -> tuple[bool, dict[str, Any]]:
        """Whether a running trial is stopped after this row, and the attributes that the pruner leaves on its sample.

        False for a known step: it was judged before the trial's process died, and the trial was allowed to continue.
        """
        step = self.step(at)
        known = self._known.setdefault(number, _Judged(number))
        if step is None or step in known.values or known.state.is_finished():
            return False, {}
        self._add(known, step, at, value)
        self._storage.trials = list(self._comparable(known, step))
        self._storage.left, self._storage.misses = {}, known.misses
        trial = _frozen(self._first + number, TrialState.RUNNING, self._own(known, step), known.attrs)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)  # all-NaN: no value of this stage and level is old enough
            stop = bool(self._pruner.prune(self._study, trial)) or self._outlives(known, step)
        left = {key: value for key, value in self._storage.left.items() if key not in known.attrs}
        known.attrs |= left
        known.stopped = step if stop else None
        return stop, left

    def _comparable(self, known: _Judged, step: int) -> Iterable[FrozenTrial]:
        """Other trials with a comparable value at this step, and nothing else of them."""
        for other in self._known.values():
            value = other.values.get(step)
            if other is known or other.misses or value is None or not self._equal(known, other, step):
                continue
            attrs = {key: attr for key, attr in other.attrs.items() if attr == value}  # what was left at this step
            yield _frozen(self._first + other.number, other.state, {step: value}, attrs)

    def _equal(self, one: _Judged, other: _Judged, step: int) -> bool:
        ours, theirs = one.positions.get(step), other.positions.get(step)
        return self._any_density or ours is None or theirs is None or ours.equally_dense(theirs)

    def _own(self, known: _Judged, step: int) -> dict[int, float]:
        """The trial's own values by step: NaN, which pruners pass over, in other stages and levels."""
        place, here = self.steps.place(step), known.positions.get(step)
        found = {}
        for other, value in sorted(known.values.items()):
            there = known.positions.get(other)
            dense = self._any_density or here is None or there is None or here.equally_dense(there)
            found[other] = value if self.steps.place(other) == place and dense else math.nan
        return found

    def _outlives(self, known: _Judged, step: int) -> bool:
        """Whether a trial that is certain to miss its bounds would go on where one that may keep them was stopped."""
        if not known.misses:
            return False
        for other in self._known.values():
            stopped = other.stopped if other.values else None  # without a row it is not known whether it misses
            ended = max(other.values, default=None) if other.state == TrialState.PRUNED else stopped
            if ended is not None and ended <= step and not other.misses:
                return True
        return False
