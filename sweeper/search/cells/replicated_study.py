"""A cell's study whose points run with several seeds each (``replicates:``).

The study is asked for a point once, and told one outcome of it: the judge's value of its replicates' values once all
are complete, and what each bound is missed by in the worst of them. A point of which a replicate has failed has failed.
A point that ends before all its replicates are complete is told as pruned: the pruner has stopped one of its trials, or
the race has dropped it (:mod:`sweeper.search.cells.racing`). Such a point, and one that has failed, gets no further
replicate; it is told once its running trials have ended, so that it does not depend on which of them ended first.

Everything is derived from the committed samples. Only what the race decides is not, since a later look at more outcomes
could decide otherwise: it is committed in the samples of the point (:meth:`ReplicatedStudy.changed`).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from sweeper.folder.replicates import Replicate, dropped, replicate_of
from sweeper.folder.search_ends import ShorterSearch
from sweeper.folder.sweep_folder import Record, Sample
from sweeper.search.cells.point_outcomes import outcome_of_point, worst_violations
from sweeper.search.cells.racing import can_matter, pooled_spread
from sweeper.search.cells.replicated_point import Point
from sweeper.search.cells.study import CellStudy
from sweeper.search.epoch_budget import planned
from sweeper.search.outcomes import RUNNING, Outcome
from sweeper.search.pruning.positions import Position
from sweeper.space.options.replicates import Replicates
from trials.config.trial_config import TrialConfig

RACE = "race"
"""Why a point was dropped: it can no longer matter."""

PRUNER = "pruner"
"""Key, among a sample's attributes, of what the pruner left on this replicate alone."""


class ReplicatedStudy:
    """A study of points with replicates: follows :class:`~sweeper.search.cells.cell_search.CellSearch`.

    Args:
        earlier: lists of replicates that the sweep had before seeds were added to it.
    """

    def __init__(
        self, study: CellStudy, replicates: Replicates, earlier: Iterable[Sequence[Mapping[str, int]]] = ()
    ) -> None:
        self.searched, self.replicates = study, replicates
        self.space, self.cell = study.space, study.cell
        self._wanted = replicates.points()
        self._sign = study.space.objectives[0].sign
        self._points: dict[int, Point] = {}
        self._open: dict[int, Point] = {}  # those without an outcome: however many there are, few of them run or wait
        self._count = 0
        self._replayed: list[int] = []  # points of which the study has not been told yet
        self._changed: list[Sample] = []
        self._judges = [CellStudy(study.space, study.cell, study.warm) for _ in self._wanted]
        known = [{i for i, values in enumerate(self._wanted) if values in one} for one in earlier]
        self._fewer = [places for places in known if 0 < len(places) < len(self._wanted)]
        self._ids: dict[int, str] = {}  # by number of a point, what its trials share with those of equal points

    @property
    def points(self) -> Mapping[int, Point]:
        """The points so far, by number."""
        self._settle()
        return self._points

    @property
    def samples(self) -> dict[int, Sample]:
        """By number, every point that was asked for."""
        return {number: point.sample for number, point in self.points.items()}

    @property
    def outcomes(self) -> dict[int, Outcome]:
        """By number, the outcomes of the points that have ended."""
        return {number: point.outcome for number, point in self.points.items() if point.outcome is not None}

    @property
    def count(self) -> int:
        """Number of trials that were asked for."""
        return self._count

    @property
    def total(self) -> int:
        """Number of trials that the cell will have in the end, as far as points were not dropped."""
        self._settle()
        new = max(self.searched.total - len(self._points), 0) * len(self._wanted)
        return self.count + new + sum(len(self._missing(point)) for point in self._open.values())

    @property
    def wants(self) -> bool:
        """Whether points or replicates are left to ask for, now or later."""
        self._settle()
        return self.searched.wants or any(self._missing(point) for point in self._open.values())

    @property
    def shorter(self) -> ShorterSearch | None:
        """That the search has fewer points than the space gives it."""
        self._settle()
        return self.searched.shorter

    @property
    def ready(self) -> bool:
        """Whether the next sample can be decided now.

        In a race, a point waits for the end of its last replicate. A new point waits for those that were complete
        before seeds were added: the search would be asked as if it knew nothing of them.
        """
        self._settle()
        return self._next_point() is not None or (
            self.searched.wants and self.searched.ready and not any(map(self._is_reopened, self._open.values()))
        )

    def _is_reopened(self, point: Point) -> bool:
        """Whether a point had all replicates of its time, and runs again since the space has more."""
        if point.outcome is not None or not self._fewer:
            return False
        complete = {index for index, outcome in point.ended.items() if outcome.values is not None}
        return any(places <= complete for places in self._fewer)

    @property
    def next_epochs(self) -> int:
        """Maximum number of epochs of the next trial; of a new point, those of all its replicates."""
        self._settle()
        point = self._next_point()
        return self.searched.next_epochs * len(self._wanted) if point is None else self._epochs(point)

    @property
    def next_is_owed(self) -> bool:
        """Whether the next trial is of a point that has begun."""
        self._settle()
        return self._next_point() is not None

    @property
    def owed_epochs(self) -> int:
        """Planned epochs of the replicates that points still lack which have begun."""
        self._settle()
        lacking = ((point, len(self._missing(point))) for point in self._open.values())
        return sum(self._epochs(point) * count for point, count in lacking if count)

    def _epochs(self, point: Point) -> int:
        """Planned epochs of one of a point's trials."""
        if point.epochs is None:
            point.epochs = planned(self.config(point.sample))
        return point.epochs

    def _missing(self, point: Point) -> list[int]:
        """The replicates that a point will still ask for."""
        if point.dropped or point.is_stopped or point.has_failed:
            return []
        return [i for i in range(len(self._wanted)) if i not in point.asked]

    def _next_point(self) -> Point | None:
        """The first point that gets its next replicate now."""
        may = (point for point in self._open.values() if not (self.replicates.race and point.running))
        return next((point for point in may if self._missing(point)), None)

    def ask(self) -> Sample:
        """The next replicate of the first point that lacks one, or the first of a new point."""
        self._settle()
        point = self._next_point()
        if point is None:
            suggested = self.searched.ask()
            point = self._opened(Point(suggested))
        index = self._missing(point)[0]
        sample = self._replicate(point, index)
        self._begin(point, index, sample, RUNNING)
        return sample

    def _opened(self, point: Point) -> Point:
        self._points[point.sample.number] = self._open[point.sample.number] = point
        return point

    def _closed(self, point: Point) -> None:
        """Forget what only an open point needs, if it has its outcome."""
        if point.outcome is not None:
            self._open.pop(point.sample.number, None)
            point.forget_curves()

    def _replicate(self, point: Point, index: int) -> Sample:
        attrs = {**point.sample.attrs, **Replicate(self._wanted[index]).attrs()}
        return replace(point.sample, attrs=attrs)

    def _begin(self, point: Point, index: int, sample: Sample, outcome: Outcome) -> None:
        self._count += index not in point.asked
        point.asked[index] = replace(sample, attrs={key: v for key, v in sample.attrs.items() if key != PRUNER})
        if self.space.pruner is not None:
            left = sample.attrs.get(PRUNER, {})
            self._judges[index].replay(replace(sample, attrs={**point.sample.attrs, **left}), outcome)

    def config(self, sample: Sample) -> TrialConfig:
        """The config of a sample's trial."""
        found = replicate_of(sample)
        return self.space.config(self.cell, {**sample.params, **(found.values if found else {})})

    def replay(self, sample: Sample, outcome: Outcome, record: Record | None = None) -> None:
        """Add a committed sample with its outcome, or as running. Call in the order of sample numbers."""
        found = replicate_of(sample)
        if found is None or found.values not in self._wanted:
            return  # of another space, which may not continue the sweep
        point = self._points.get(sample.number)
        if point is None:
            rest = {key: value for key, value in sample.attrs.items() if key not in (*found.attrs(), PRUNER)}
            point = self._opened(Point(replace(sample, attrs=rest, stopped=None)))
            self._replayed.append(sample.number)
        index = self._wanted.index(found.values)
        self._begin(point, index, sample, outcome)
        point.dropped = point.dropped or found.dropped is not None
        if outcome.state.is_finished():
            point.ended[index] = outcome

    def _settle(self) -> None:
        """Tell the study of points that were replayed, once all of their replicates are known; then let the race decide
        what an earlier driver could not commit."""
        if not self._replayed:
            return
        for number in self._replayed:
            point = self._points[number]
            point.outcome = self._outcome(point)
            self.searched.replay(point.sample, point.outcome or RUNNING)
            self._closed(point)
        self._replayed.clear()
        self._race()

    def tell(self, sample: Sample, outcome: Outcome) -> None:
        """Record the outcome of a replicate. The study is told once that of its point is known."""
        self._settle()
        point, found = self._points[sample.number], replicate_of(sample)
        if found is None or (index := self._wanted.index(found.values)) in point.ended:
            return
        point.ended[index] = outcome
        if self.space.pruner is not None:
            self._judges[index].tell(sample, outcome)
        if point.outcome is None:
            self._conclude(point)
        self._race()

    def _conclude(self, point: Point) -> None:
        point.outcome = self._outcome(point)
        if point.outcome is not None:
            self.searched.tell(point.sample, point.outcome)
            self._closed(point)

    def _outcome(self, point: Point) -> Outcome | None:
        """The outcome of a point as its replicates decide it; None as long as one of them runs or is missing."""
        if point.running:
            return None
        ended = [outcome for _, outcome in sorted(point.ended.items())]
        return outcome_of_point(self.space, ended, dropped=point.dropped)

    def _race(self) -> None:
        """Drop the points that can no longer matter; those of which a trial runs are looked at when it has ended.

        A point that repeats an earlier one shares its trials, and ends as that one does: the noise between replicates
        is known better by now, and its trials must not become those of a point that was dropped and runs on.
        """
        if not self.replicates.race:
            return
        firsts: dict[str, Point] = {}
        for point in self._points.values():
            firsts.setdefault(self._id(point), point)
        complete = [point for point in firsts.values() if point.outcome and point.outcome.values]
        feasible = [point.outcome.values[0] for point in complete if point.outcome and not point.outcome.missed]  # type: ignore[index]
        best = max(feasible, key=lambda value: self._sign * value, default=None)
        spread, freedom = pooled_spread(point.values for point in complete)
        for point in self._points.values():
            first = firsts[self._id(point)]
            if point.outcome is not None or not point.ended or point.running or not self._missing(point):
                continue
            if first is not point:
                drops = first.dropped and len(point.ended) >= len(first.ended)
            else:
                misses = any(violation > 0 for violation in worst_violations(list(point.ended.values())).values())
                drops = best is not None and (
                    misses or not can_matter(point.values, len(self._wanted), best, self._sign, spread, freedom)
                )
            if drops:
                self._drop(point)

    def _id(self, point: Point) -> str:
        """Of points that share their trials the same, however their values are written."""
        if point.sample.number not in self._ids:
            self._ids[point.sample.number] = self.config(point.sample).id
        return self._ids[point.sample.number]

    def _drop(self, point: Point) -> None:
        point.dropped = True
        index = max(point.asked)
        point.asked[index] = dropped(point.asked[index], RACE)
        self._changed.append(point.asked[index])
        self._conclude(point)

    def changed(self) -> Iterator[Sample]:
        """Yield the samples whose attributes have changed, each once: the plan commits them."""
        self._settle()
        while self._changed:
            yield self._changed.pop(0)

    def shown(self, sample: Sample, outcome: Outcome) -> float | None:
        """The value to show for an ended sample: that of its point once it is complete and keeps the bounds."""
        point = self.points.get(sample.number)
        return None if point is None or point.outcome is None else point.outcome.shown

    def judge(self, sample: Sample, step: int, value: float, at: Position | None = None) -> tuple[bool, dict[str, Any]]:
        """Whether a running trial ends after this step: replicates of one seed are compared with each other, and a
        point of which one is stopped needs no more of them. If one has failed, the others go on: it may run again."""
        self._settle()
        found = replicate_of(sample)
        assert found is not None
        if self._points[sample.number].is_stopped:
            return True, {}
        stop, left = self._judges[self._wanted.index(found.values)].judge(sample, step, value, at)
        return stop, {PRUNER: {**sample.attrs.get(PRUNER, {}), **left}} if left else {}

    def released(self) -> Iterable[str]:
        """Always empty: a study's trials keep their checkpoints."""
        return self.searched.released()
