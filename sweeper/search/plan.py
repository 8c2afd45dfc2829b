"""The plan of a sweep: decides which trial runs next. Independent of Ray and of processes.

The plan reads the sweep's folder once and then follows the trials that end. Every decision is derived from committed
records: the samples that the searches asked for, and the states of their trials. A trial that was assigned but did not
finish is assigned again. If a sample's config has already run, its search gets the result at once. Confirmations that
did not finish are held until their search asks for them again: by then, another sample may be the best.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from sweeper.folder.confirmations import confirmation_of, only_confirms, same_confirmation
from sweeper.folder.first_document import first_samples
from sweeper.folder.forgiving import followed_failures
from sweeper.folder.packed_records import PackedRecords
from sweeper.folder.sweep_folder import Record, Sample, StoredConfig, SweepFolder
from sweeper.search.added_replicates import earlier_replicates
from sweeper.search.assignment import Assignment, Ending
from sweeper.search.cell_queue import CellQueue
from sweeper.search.cells.cell_search import search_of
from sweeper.search.changed_samples import commit_changed
from sweeper.search.committed import given_up, outcome_with_curve, outcome_without_curve, samples_with_outcomes
from sweeper.search.epoch_budget import EpochBudget
from sweeper.search.failures import DEATHS, Deaths, commit_failure, commit_unreadable, fail_guilty, lost_device
from sweeper.search.outcomes import Outcome
from sweeper.search.pruning.judged_rows import position_of
from sweeper.search.shorter_searches import ShorterSearches
from sweeper.search.sick_machines import Card, SickMachines
from sweeper.search.warm_start import NO_WARM_START, WarmStart
from sweeper.space.grid.cells import Cell
from sweeper.space.space import Space
from trials.config.trial_config import TrialConfig
from trials.errors import OUT_OF_MEMORY, DamagedFile, UserError, exact
from trials.networks.named_files import relocated
from trials.running.shared_trials import shared_by
from trials.storage.outages import impatient
from trials.storage.trial_folder import TrialFolder

__all__ = ["Assignment", "Ending", "Plan"]

_HERE = ("data_dir", "device")
"""Fields that a trial takes from the space as it is now: what they name is looked for before the run."""


class Plan:
    """Decides what to run next. :meth:`next` returns an assignment; :meth:`ended` records how an attempt ended."""

    def __init__(self, space: Space, folder: SweepFolder, warm: Mapping[str, WarmStart] | None = None) -> None:
        self.space, self.folder = space, folder
        self.cells: list[Cell] = space.cells()
        begun, known = first_samples(folder), warm or {}
        had = earlier_replicates(folder) if space.replicates else []
        self._searches = {c.key: search_of(space, c, known.get(c.key, NO_WARM_START), begun, had) for c in self.cells}
        self._records = PackedRecords(folder)
        self.finished = self._records.finished
        self._queue: deque[str] = deque()
        self._aside: deque[str] = deque()  # their device died, earlier or where no other machine is: others go first
        self._held = set[str]()  # unfinished confirmations
        self._scheduled: set[str] = set()  # by this driver, from the space as it is now
        self._says_where = any(
            name in written for name in _HERE for written in (space.trial, *(c.trial for c in space.cases.values()))
        )
        self._asked: Sample | None = None  # a sample not yet scheduled
        self._settled: frozenset[str] = frozenset()  # failed members of a population that goes on without them
        self._deaths = Deaths()
        self.sick = SickMachines(folder.stages)
        self.budget = EpochBudget(space)
        self.failed, self.stopping, self.running = 0, False, set[str]()
        self.already_done: deque[Ending] = deque()
        """Samples whose config had already run when they were asked for; the display takes them from here."""
        self.unread: deque[list[Ending]] = deque()
        """Endings of attempts that failed because their config could not be read; the display takes them from here."""
        self._replay()
        self.totals = {key: search.total for key, search in self._searches.items()}
        """By cell, the number of samples that it will have in the end."""
        self._cells = CellQueue(self._searches, owing=space.replicates is not None and space.max_epochs is not None)
        self.shorter = ShorterSearches(folder, self._searches)
        for cell in self.cells:
            commit_changed(self._searches[cell.key], self._records, folder)
            self._release(cell.key)

    def _replay(self) -> None:
        self._settled = followed_failures(self._records.values()) if self.space.pbt else frozenset()
        for trial_id in [*self._records]:
            record = self._records[trial_id]
            mine = [sample for sample in record.samples if sample.cell in self._searches]
            if not mine:
                del self._records[trial_id]
                continue
            over = self._over(record)
            held = not over and only_confirms(mine)
            if not over:
                self._share_config(record := self._records.unpack(trial_id), mine[0])
                last = self._aside if lost_device(record.state) else self._queue
                (self._held.add if held else last.append)(record.id)
            self.budget.follow(record, over=over or held)
            self.failed += over and not record.finished
        for sample, record, outcome in samples_with_outcomes(self.space, self.folder, self._records):
            if sample.cell in self._searches:
                self._searches[sample.cell].replay(sample, outcome, record)

    def _over(self, record: Record) -> bool:
        """Whether a trial is finished or given up."""
        return record.finished or record.id in self._settled or given_up(self.space, record.state)

    def _share_config(self, record: Record, sample: Sample) -> None:
        """Give an unfinished trial's record the config that the check of a space without a search has parsed."""
        if not self.space.search:
            record.stored.share(self.space.config(self._searches[sample.cell].cell))

    @property
    def complete(self) -> bool:
        """Whether no sample is left to ask for and no trial to run."""
        return not (self._queue or self._aside or self._cells or self._asked or self.running)

    @property
    def out_of_budget(self) -> bool:
        """Whether samples are left, but every cell's next one may take more epochs than ``max_epochs`` leaves."""
        return self.space.max_epochs is not None and self._cells.none_fits(self.budget.allows)

    @property
    def over(self) -> bool:
        """Whether no further trial will be assigned."""
        left = self._queue or self._aside or self.running
        return self.complete or self.stopping or (self.out_of_budget and not left)

    def before(self) -> Iterator[Ending]:
        """Yield every sample whose trial was finished or given up before this driver began."""
        for record in self._records.values():
            if self._over(record):
                yield from self._endings(record)

    def _endings(self, record: Record, again: bool = False) -> Iterator[Ending]:
        """Yield one ending per sample that the trial serves."""
        state = record.state
        silent = "preempted" if self.stopping else "died"
        status = silent if state is None or state.status == "running" else state.status
        error = f"{state.error['type']}: {state.error['message']}" if state is not None and state.error else None
        result = state.result if state is not None else {}
        empty, warnings = result.get("empty_layers", 0), tuple(result.get("warnings") or ())
        outcome = outcome_without_curve(self.space, record)
        for sample in (sample for sample in record.samples if sample.cell in self._searches):
            confirms = confirmation_of(sample) is not None
            value = self._searches[sample.cell].shown(sample, outcome)
            yield Ending(record.id, sample.cell, status, value, error, again, empty, warnings, confirms)

    def next(self) -> Assignment | None:
        """The next trial to run, already scheduled in the folder; None if there is none now (see :attr:`complete`).

        Raises:
            OSError: the trial could not be scheduled; the next call tries again.
        """
        if self.stopping:
            return None
        return self._next_queued() or self._next_asked() or self._next_aside()

    def _next_asked(self) -> Assignment | None:
        """Hand out the trial of the next sample that a search asks for, if it is new or was held."""
        while (sample := self._asked or self._ask()) is not None:
            self._asked = sample
            record, known = self._schedule(sample)
            self._asked = None
            self._look_at(sample.cell)
            if not known:
                return self._hand_out(record)
            if record.id in self._held:
                self._held.remove(record.id)
                self.budget.follow(record, over=False)
                self._queue.append(record.id)
                if (queued := self._next_queued()) is not None:
                    return queued
            elif self._over(record):
                self._tell(sample, outcome_with_curve(self.space, record))
                self.already_done.append(list(self._endings(record))[-1])
        return None

    def _ask(self) -> Sample | None:
        key = self._cells.take(self.budget.allows)
        return None if key is None else self._searches[key].ask()

    def _tell(self, sample: Sample, outcome: Outcome) -> None:
        """Tell the sample's outcome to its search; a cell that waited for it may be asked again."""
        search = self._searches[sample.cell]
        search.tell(sample, outcome)
        commit_changed(search, self._records, self.folder)
        self._release(sample.cell)
        self._look_at(sample.cell)

    def _look_at(self, cell: str) -> None:
        """Bring up to date what is known of a cell whose search was asked or told something."""
        self.totals[cell] = self._searches[cell].total
        self._cells.update(cell)
        self.shorter.update(cell)

    def _release(self, cell: str) -> None:
        for trial_id in self._searches[cell].released():
            self.folder.drop_checkpoints(trial_id)

    def _schedule(self, sample: Sample) -> tuple[Record, bool]:
        """Commit that a sample is wanted. Returns its record, and whether its config had been scheduled before."""
        config = self._searches[sample.cell].config(sample)
        known = self._records.get(config.id)
        if known is not None and any(same_confirmation(sample, other) for other in known.samples):
            return known, True
        stored = StoredConfig.of(config)
        samples = (*known.samples, sample) if known else (sample,)
        with impatient():  # no trial depends on it yet: who asks for the next one tries again
            self.folder.schedule(config.id, stored.content, samples, stored.revisions)
        folder = TrialFolder(self.folder.trial_folder(config.id))
        record = Record(config.id, stored, samples, folder, known.state if known else None)
        self._records[config.id] = record
        if known is None:
            self._scheduled.add(config.id)
            self.budget.follow(record, over=False)
        return record, known is not None

    def _next_queued(self) -> Assignment | None:
        """Hand out the first queued trial whose config can be read; an attempt at each one before it has failed."""
        while self._queue:
            record = self._records[self._queue[0]]
            try:
                assignment = self._hand_out(record)
            except UserError as error:
                commit_unreadable(record, error)
                self._queue.popleft()
                self.unread.append(self.ended(record.id))
            else:
                self._queue.popleft()
                return assignment
        return None

    def _next_aside(self) -> Assignment | None:
        """Hand out a trial that was put aside: nothing else is left to run now."""
        self._queue.extend([self._aside.popleft()] if self._aside else [])
        return self._next_queued()

    def _hand_out(self, record: Record) -> Assignment:
        """Assign a trial to a worker.

        Raises:
            UserError: its config cannot be read.
        """
        sample = next(sample for sample in record.samples if sample.cell in self._searches)
        error = record.state.error if record.state is not None else None
        alone = error is not None and error["type"] == OUT_OF_MEMORY
        config = self._found_now(record, sample)
        avoid = self.sick.avoided_by(record.id, *shared_by(config)) if self.sick.known else ()
        self.running.add(record.id)
        return Assignment(record.id, config, sample.cell, alone, avoid)

    def _found_now(self, record: Record, sample: Sample) -> TrialConfig:
        """A record's config with its data, its device and the files that it names as the space has them now: only those
        of the space were looked at before the run."""
        config = record.config
        placed = self._says_where or config.data_dir is not None or config.device != "auto" or config.files_given()
        if not placed or record.id in self._scheduled:
            return config
        now = self._searches[sample.cell].config(sample)
        return relocated(config, now).model_copy(update={name: getattr(now, name) for name in _HERE})

    def take_back(self, trial_id: str) -> None:
        """Queue an assigned trial again, which has not begun: its machine cannot run it."""
        self.running.discard(trial_id)
        self._queue.append(trial_id)

    def judge(self, trial_id: str, step: int, value: float, row: Mapping[str, Any] | None = None) -> None:
        """Decide after this step, of this ``row``, whether a running trial ends; it reads that from its folder."""
        record = self._records[trial_id]
        sample = next(sample for sample in record.samples if sample.cell in self._searches)
        if sample.stopped is not None:
            return
        stop, left = self._searches[sample.cell].judge(sample, step, value, position_of(self.space, record, row))
        if stop or left:
            judged = replace(sample, attrs={**sample.attrs, **left}, stopped=step if stop else None)
            samples = tuple(judged if other is sample else other for other in record.samples)
            self.folder.schedule(record.id, record.content, samples, record.stored.revisions)
            self._records[trial_id] = replace(record, samples=samples)

    def ended(self, trial_id: str, card: Card | None = None, *, excused: bool = False) -> list[Ending]:
        """Record the end of an attempt, whose status is read from the trial's folder. Returns one ending per sample.

        ``card``: where it ran, if that is known. ``excused``: if its process died, the trial is not to blame.
        """
        self.running.discard(trial_id)
        record = self._records[trial_id]
        try:
            state = record.folder.state()
        except DamagedFile:
            state = None  # the next attempt sets the file aside and finds the last commit
        if self._deaths.too_many(record, state, stopping=self.stopping or excused):
            message = f"its process died {DEATHS} times in a row without a commit (killed, or out of memory)"
            state = commit_failure(record.folder, "ProcessDied", message, failures=self.space.retries + 1)
        died = lost_device(state, record.state)
        if died is not None:
            culprit = died.get("culprit") or trial_id
            self.sick.died(Card.said_by(died) or card, culprit, trial_id)
            if self.sick.is_guilty(culprit):
                state = fail_guilty(record, died, self.sick, self.space, self.folder.stages) or state
        else:
            self.sick.ended(trial_id, card if state is not None and state.finished else None)
        record = replace(record, state=state)
        self._records[trial_id] = record
        over = self._over(record)
        if over:
            self.budget.follow(record, over=True)
            outcome = outcome_with_curve(self.space, record)
            self.failed += not record.finished
            for sample in record.samples:
                if sample.cell in self._searches:
                    self._tell(sample, outcome)
            self._records.pack(trial_id)
        elif died is not None and not self.sick.may_go_elsewhere(trial_id, *shared_by(record.config)):
            self._aside.append(trial_id)
        else:
            self._queue.appendleft(trial_id)  # before new samples: begun trials are finished first
        return list(self._endings(record, again=not over))

    def give_up_on(self, trial_id: str, silent_s: float) -> None:
        """Commit that a running trial without a sign of life has failed; later commits of its process are refused."""
        limit = exact(self.space.silence_limit_s or 0)
        message = f"no sign of life for {silent_s:.0f} s (silence_limit_s is {limit}): killed"
        commit_failure(self._records[trial_id].folder, "Silent", message)

    def stop(self) -> None:
        """Assign no further trial."""
        self.stopping = True
