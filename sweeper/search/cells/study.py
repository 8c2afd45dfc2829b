"""The Optuna study of a cell, kept in memory and rebuilt from the committed samples, which are the only truth."""

from __future__ import annotations

import random
from collections.abc import Iterable
from contextlib import nullcontext
from dataclasses import replace
from functools import cached_property
from typing import Any

import optuna
from optuna.trial import TrialState, create_trial

from sweeper.folder.search_ends import ShorterSearch
from sweeper.folder.sweep_folder import Record, Sample
from sweeper.search.cells.early_end import EarlyEnd
from sweeper.search.cells.study_in_memory import StudyInMemory
from sweeper.search.epoch_budget import planned
from sweeper.search.outcomes import Outcome
from sweeper.search.pruning.positions import Position, position_after
from sweeper.search.warm_start import NO_WARM_START, WarmStart
from sweeper.space.asked_points import AskedPoints
from sweeper.space.distributions import Distribution
from sweeper.space.grid import conditions
from sweeper.space.grid.cells import Cell
from sweeper.space.options.samplers import SAMPLERS, Grid
from sweeper.space.pruner_steps import Spans, epoch_spans
from sweeper.space.space import Space
from sweeper.space.values import Scalar
from trials.config.trial_config import TrialConfig
from trials.plugins.blaming import blaming
from trials.seeding import derive_seed

STUDY = "study"
"""Key, among a sample's attributes, of what its suggestion changed on the study rather than on its trial."""


class CellStudy(StudyInMemory):
    """The study of one cell: asked for samples and told their outcomes. Trials of different cells are never compared.

    Args:
        first_samples: see :class:`.study_in_memory.StudyInMemory`.
    """

    def __init__(
        self, space: Space, cell: Cell, warm: WarmStart = NO_WARM_START, first_samples: int | None = None
    ) -> None:
        super().__init__(space, cell, warm, first_samples)
        self._first = (*space.enqueue, *warm.points)
        self._asked: set[int] = set()
        self._points, self._end = AskedPoints(space, cell), EarlyEnd(space, lambda: self.study)
        self._next = 0
        self.samples: dict[int, Sample] = {}
        """By number, every sample."""
        self.outcomes: dict[int, Outcome] = {}
        """By number, the outcomes of samples whose trials have ended, without curves."""
        self._spans: dict[int, Spans] = {}  # of trials that run, where these differ

    @property
    def count(self) -> int:
        """Number of samples that this cell has."""
        return len(self._asked)

    @property
    def ready(self) -> bool:
        """Always True: a study does not wait for running trials."""
        return True

    @property
    def wants(self) -> bool:
        """Whether samples are left to ask for, and the search has not ended before them."""
        return self.count < self.total

    @property
    def total(self) -> int:
        """Number of samples that this cell will have in the end."""
        shorter = self.shorter
        return max(self.count, self.space.samples) if shorter is None else shorter.samples

    @property
    def shorter(self) -> ShorterSearch | None:
        """That the search ends before its samples by a rule of the space, or has no more points than that."""
        count, samples = self.count, self.space.samples
        if count >= samples:
            return None
        if (reason := self._end.reason) is not None:
            return ShorterSearch(count, reason)
        left = self._points.left
        if left is None or count + left >= samples:
            return None
        return ShorterSearch(count + left, "its search has no more points", over=not left)

    @cached_property
    def next_epochs(self) -> int:
        """Maximum number of epochs that the next trial may take, over the corners of the search."""
        return max(map(planned, self.space.corner_configs(self.cell)))

    @property
    def next_is_owed(self) -> bool:
        """Always False: a point is one trial."""
        return False

    @property
    def owed_epochs(self) -> int:
        """Always 0: a point is one trial."""
        return 0

    def config(self, sample: Sample) -> TrialConfig:
        """The config of a sample's trial."""
        return self.space.config(self.cell, sample.params)

    def changed(self) -> Iterable[Sample]:
        """Always empty: what a study leaves on a sample is committed with it, or with the pruner's decision."""
        return ()

    def shown(self, sample: Sample, outcome: Outcome) -> float | None:
        """The outcome's own value: a point is one trial."""
        return outcome.shown

    def released(self) -> Iterable[str]:
        """Always empty: a study's trials keep their checkpoints."""
        return ()

    def ask(self) -> Sample:
        """The next sample of this cell, with the lowest unused number: gaps left by lost records are filled first."""
        while self._next in self._asked:
            self._next += 1
        number = self._next
        self._asked.add(number)
        sampler = self.space.sampler.name
        with nullcontext() if SAMPLERS.built_in(sampler) else blaming(f"sampler is {sampler!r}, whose code failed"):
            params, attrs = self._suggest(number) if self.space.search else ({}, {})
        self.samples[number] = Sample(self.cell.key, number, self.cell.values, params, attrs)
        return self.samples[number]

    def _suggest(self, number: int) -> tuple[dict[str, Any], dict[str, Any]]:
        """A point of the search, and the attributes that the sampler left on its trial and on the study."""
        before = self._study_attrs()
        frozen = self._frozen(self._new_point(number))
        self._know(number, frozen._trial_id)
        attrs = self.space.sampler.remembered(dict(frozen.system_attrs))
        changed = {key: value for key, value in self._study_attrs().items() if before.get(key) != value}
        if changed:
            attrs[STUDY] = {key: self._portable(key, value) for key, value in changed.items()}
        self._points.add(frozen.params)
        return dict(frozen.params), attrs

    def _suggested(self, trial: optuna.Trial, path: str, distribution: Distribution) -> Scalar:
        """A suggested value, which the study then has as the sample does: Optuna's is rounded where it has steps."""
        value = distribution.suggest(trial, path)
        if trial.params[path] != value:
            kind = self._distributions[path]
            self._storage.set_trial_param(trial._trial_id, path, kind.to_internal_repr(value), kind)
        return value

    def _new_point(self, number: int) -> int:
        """The id of a trial with a suggestion that is no repeat, as far as tries and points of the search go.

        The first points are those of the space, then of the earlier sweep. If every try of the sampler is a repeat, one
        of the points that are left is drawn. What repeats have changed on the study stays, and is committed with the
        sample: a sequence goes on from there.
        """
        wanted = self._whole(self._inside(self._first[number])) if number < len(self._first) else None
        if wanted is not None and self._points.tries and wanted in self._points:
            wanted = None
        for again in range(self._points.tries):
            trial_id = self._draw(number, again, wanted)
            if self._frozen(trial_id).params not in self._points:
                return trial_id
            self._storage.take_back(self.study._study_id)
        if left := self._points.unasked(wanted):
            wanted = random.Random(derive_seed(self.space.seed, self.cell.key, number, "left")).choice(left)
        return self._draw(number, self._points.tries, wanted)

    def _whole(self, point: dict[str, Any]) -> dict[str, Any] | None:
        """A point to begin with; for sampler grid, which takes none without all values, one like it."""
        values = {**self.cell.values, **point}
        search = self.question.search.items()
        if not isinstance(self.space.sampler, Grid) or all(
            path in point or not conditions.holds(distribution.when, values) for path, distribution in search
        ):
            return point
        return next(iter(self._points.unasked(point)), None)

    def _draw(self, number: int, again: int, wanted: dict[str, Any] | None) -> int:
        """Let the sampler suggest a point, but for the values that are ``wanted``; returns the id of its trial."""
        self.study.sampler = self._sampler(number, again)
        if wanted is not None:
            self.study.enqueue_trial(wanted)
        trial = self.study.ask()
        values: dict[str, Any] = dict(self.cell.values)
        for path, distribution in self.question.search.items():
            if conditions.holds(distribution.when, values):
                values[path] = self._suggested(trial, path, distribution)
        return trial._trial_id

    def _inside(self, point: dict[str, Any]) -> dict[str, Any]:
        """What of a point lies within this cell's ranges, which may be narrower than those of all cells together."""
        search = self.question.search
        return {path: value for path, value in point.items() if path not in search or search[path].contains(value)}

    def replay(self, sample: Sample, outcome: Outcome, record: Record | None = None) -> None:
        """Add a committed sample with its outcome, or as running. Call in the order of sample numbers."""
        self._asked.add(sample.number)
        self.samples[sample.number] = sample
        if outcome.state.is_finished():
            self.outcomes[sample.number] = outcome.without_curve()
        if not self.space.search:
            return
        attrs = dict(sample.attrs)
        for key, value in attrs.pop(STUDY, {}).items():
            known = [self._trials[n] for n in value if n in self._trials] if ":parent:" in key else value
            self._storage.set_study_system_attr(self.study._study_id, key, known)
        self._know(sample.number, self._add(sample.params, outcome, self.space.sampler.recalled(attrs)))
        if self.pruning is not None:
            stops = sample.stopped is not None and not outcome.state.is_finished()
            stopped = self._placed(sample, sample.stopped or 0) if stops else None
            self.pruning.replay(sample.number, outcome, attrs, stopped=stopped)
        self._points.add(sample.params)
        self._end.tell(sample.number, outcome)

    def tell(self, sample: Sample, outcome: Outcome) -> None:
        """Record the outcome of the sample's trial. Only the first call for a sample counts."""
        self.outcomes.setdefault(sample.number, outcome.without_curve())
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
        self._end.tell(sample.number, outcome)

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

    def _placed(self, sample: Sample, step: int, at: Position | None = None) -> Position | None:
        """The position with the epochs of the sample's own stages, where trials of this cell differ in them."""
        if self.pruning is None or (at is not None and (at.span is not None or not self.pruning.steps.varies)):
            return at
        if sample.number not in self._spans:
            self._spans[sample.number] = epoch_spans(self.config(sample))
        spans = self._spans[sample.number]
        return position_after(spans, step) if at is None else replace(at, span=spans.get(at.place))
