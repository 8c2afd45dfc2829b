"""What to run next. Reads the folder once, then follows what ends; knows neither Ray nor processes.

Every answer is derived from committed records: samples that the studies asked for, and how their trials stand. A trial
that was handed out and not finished is handed out again; a config that has already run tells its result at once.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from optuna.trial import TrialState

from sweeper.ledger import Record, Sample, SweepFolder
from sweeper.space import Cell, Space
from sweeper.study import CellStudy, objective_of
from trials.errors import DamagedFile
from trials.ledger import State, TrialFolder

DEATHS = 3
"""Attempts in a row that may end without a word and without a commit, or before they begin, until the trial counts as
failed."""


@dataclass(frozen=True)
class Assignment:
    """A trial to run now."""

    trial_id: str
    config: dict[str, Any]
    cell: str


@dataclass(frozen=True)
class Ending:
    """How the trial of one sample stands: after an attempt at it, or long since.

    Attributes:
        status: as committed, or ``died`` for a process that said nothing.
        again: it will be handed out again.
    """

    trial_id: str
    cell: str
    status: str
    value: float | None = None
    error: str | None = None
    again: bool = False
    empty_layers: int = 0


class Plan:
    """The driver's mind. ``next`` hands out, ``ended`` takes back."""

    def __init__(self, space: Space, folder: SweepFolder, records: Iterable[Record]) -> None:
        self.space, self.folder = space, folder
        self.cells: list[Cell] = space.cells()
        self._studies = {cell.key: CellStudy(space, cell) for cell in self.cells}
        self._records: dict[str, Record] = {}
        self._queue: deque[str] = deque()
        self._deaths: dict[str, int] = {}
        self.running: set[str] = set()
        self.finished = 0
        self.failed = 0
        self.stopping = False
        self.told: deque[Ending] = deque()
        """Samples whose config had already run when they were asked for; for whoever shows the sweep to take."""
        self._replay(records)
        heap = [(study.count, i) for i, study in enumerate(map(self._study_of, self.cells))]
        self._asks = [entry for entry in heap if entry[0] < space.samples]
        heapq.heapify(self._asks)

    def _study_of(self, cell: Cell) -> CellStudy:
        return self._studies[cell.key]

    def _replay(self, records: Iterable[Record]) -> None:
        samples: list[tuple[Sample, Record]] = []
        for record in records:
            mine = [sample for sample in record.samples if sample.cell in self._studies]
            if not mine:
                continue
            self._records[record.id] = record
            samples += [(sample, record) for sample in mine]
            if record.finished:
                self.finished += 1
            elif self._given_up(record.state):
                self.failed += 1
            else:
                self._queue.append(record.id)
        samples.sort(key=lambda item: (item[0].cell, item[0].number))
        for sample, record in samples:
            state, value = self._verdict(record.state)
            self._studies[sample.cell].replay(sample, state, value)

    def _verdict(self, state: State | None) -> tuple[TrialState, float | None]:
        if state is not None and state.finished:
            value = objective_of(self.space, state.result)
            return (TrialState.COMPLETE, value) if value is not None else (TrialState.FAIL, None)
        return (TrialState.FAIL if self._given_up(state) else TrialState.RUNNING), None

    def _given_up(self, state: State | None) -> bool:
        return state is not None and state.status == "failed" and state.failures > self.space.retries

    @property
    def total(self) -> int:
        """How many samples there will be in all."""
        return sum(max(study.count, self.space.samples) for study in self._studies.values())

    @property
    def complete(self) -> bool:
        return not (self._queue or self._asks or self.running)

    def before(self) -> Iterator[Ending]:
        """Every sample that was finished, or given up, before this driver began."""
        for record in self._records.values():
            if record.finished or self._given_up(record.state):
                yield from self._endings(record)

    def _endings(self, record: Record, again: bool = False) -> Iterator[Ending]:
        """One per sample that the trial serves."""
        state = record.state
        silent = "preempted" if self.stopping else "died"
        status = silent if state is None or state.status == "running" else state.status
        error = f"{state.error['type']}: {state.error['message']}" if state is not None and state.error else None
        for sample in record.samples:
            if sample.cell in self._studies:
                empty = state.result.get("empty_layers", 0) if state is not None else 0
                yield Ending(record.id, sample.cell, status, self._verdict(state)[1], error, again, empty)

    def next(self) -> Assignment | None:
        """The next trial to run, scheduled in the folder; None when there is none now (see :attr:`complete`)."""
        if self.stopping:
            return None
        if self._queue:
            return self._hand_out(self._records[self._queue.popleft()])
        while self._asks:
            _, position = heapq.heappop(self._asks)
            study = self._study_of(self.cells[position])
            sample = study.ask()
            record, known = self._schedule(sample)
            if study.count < self.space.samples:
                heapq.heappush(self._asks, (study.count, position))
            if not known:
                return self._hand_out(record)
            if record.finished or self._given_up(record.state):
                study.tell(sample, self._verdict(record.state)[1])
                self.told.append(list(self._endings(record))[-1])
        return None

    def _schedule(self, sample: Sample) -> tuple[Record, bool]:
        """Commit that a sample is wanted; whether its config was known already."""
        config = self.space.config(self._studies[sample.cell].cell, sample.params)
        known = self._records.get(config.id)
        content = config.model_dump(mode="json")
        samples = (*known.samples, sample) if known else (sample,)
        self.folder.schedule(config.id, content, samples)
        folder = TrialFolder(self.folder.trial_folder(config.id))
        record = Record(config.id, content, samples, folder, known.state if known else None)
        self._records[config.id] = record
        return record, known is not None

    def _hand_out(self, record: Record) -> Assignment:
        self.running.add(record.id)
        cell = next(sample.cell for sample in record.samples if sample.cell in self._studies)
        return Assignment(record.id, record.config, cell)

    def ended(self, trial_id: str) -> list[Ending]:
        """Take a trial back, whatever has become of it: its folder says how it stands. One ending per sample."""
        self.running.discard(trial_id)
        record = self._records[trial_id]
        try:
            state = record.folder.state()
        except DamagedFile:
            state = None  # the next attempt sets it aside and finds the last commit
        if self._keeps_dying(record, state):
            state = self._bury(record.folder)
        record = Record(record.id, record.config, record.samples, record.folder, state)
        self._records[trial_id] = record
        gone = self._given_up(state)
        over = record.finished or gone
        value = self._verdict(state)[1]
        if over:
            self.finished += record.finished
            self.failed += gone
            for sample in record.samples:
                if sample.cell in self._studies:
                    self._studies[sample.cell].tell(sample, value)
        else:
            self._queue.appendleft(trial_id)
        return list(self._endings(record, again=not over))

    def _keeps_dying(self, record: Record, state: State | None) -> bool:
        """Whether attempt after attempt ends without a word and without a commit, or before it begins. Only those count
        that this driver saw: a trial is not to blame for the death of its driver."""
        if state is not None and state.finished:
            return False
        before = record.state or State()
        now = state or State()
        spoke = now.status != "running" and now.attempt != before.attempt
        if self.stopping or spoke or now.commits != before.commits:
            self._deaths.pop(record.id, None)
            return False
        self._deaths[record.id] = self._deaths.get(record.id, 0) + 1
        return self._deaths[record.id] >= DEATHS

    def _bury(self, folder: TrialFolder) -> State:
        """A trial whose process keeps dying without a word counts as failed, for good."""
        attempt, _ = folder.begin()
        message = f"its process died {DEATHS} times in a row without a commit (killed, or out of memory)"
        failure = {"type": "ProcessDied", "message": message, "traceback": ""}
        attempt.end("failed", error=failure, failures=self.space.retries + 1)
        return attempt.state

    def stop(self) -> None:
        """Hand nothing out any more."""
        self.stopping = True
