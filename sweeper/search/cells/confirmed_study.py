"""A cell's study whose best sample is run again with fresh seeds once the search has ended (``confirm:``).

The study never sees these confirmations: it is asked and told as without them. They are derived from the committed
samples alone: when every sample of the search has ended, the best one is confirmed. More samples may find a better
one, which is then confirmed anew; what confirmed the earlier one no longer counts.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from sweeper.folder.confirmations import Confirmation, confirmation_of, same_confirmation
from sweeper.folder.replicates import replicate_of, values_set
from sweeper.folder.search_ends import ShorterSearch
from sweeper.folder.sweep_folder import Record, Sample
from sweeper.search.cells.replicated_study import ReplicatedStudy
from sweeper.search.cells.study import CellStudy
from sweeper.search.epoch_budget import planned, trained
from sweeper.search.outcomes import Outcome
from sweeper.search.pruning.positions import Position
from sweeper.space.grid.cells import Cell
from sweeper.space.options.confirm import Confirm
from trials.config.trial_config import TrialConfig

Values = Mapping[str, Any]


class ConfirmedStudy:
    """A study with the confirmations of its best sample, as a :class:`~sweeper.search.cells.cell_search.CellSearch`."""

    def __init__(self, study: CellStudy | ReplicatedStudy, confirm: Confirm) -> None:
        self.searched, self.confirm = study, confirm
        self.cell: Cell = study.cell
        self._sign = study.space.objectives[0].sign
        self._trials: dict[int, str] = {}  # by number, ids of the trials of the search's samples, where known
        self._begun: list[Sample] = []  # confirmations that run, or have ended
        self._over: list[Sample] = []  # those that have ended
        self._trained: list[tuple[Sample, int]] = []  # committed but not begun again, with their epochs so far

    @property
    def count(self) -> int:
        """Number of samples that this cell has, without confirmations of what is no longer best."""
        return self.searched.count + len(self._of_best(self._begun))

    @property
    def total(self) -> int:
        """Number of samples that this cell will have in the end, with ended confirmations that no longer count."""
        stale = len(self._over) - len(self._of_best(self._over))
        dead = self._searched_out and self.best is None
        return self.searched.total + stale + (0 if dead else len(self.confirm.points()))

    @property
    def wants(self) -> bool:
        """Whether samples or confirmations are left to ask for, now or later."""
        return self.searched.wants or not self._searched_out or bool(self._left())

    @property
    def ready(self) -> bool:
        """Whether the next sample can be decided: a confirmation only once every sample of the search has ended."""
        return self.searched.ready if self.searched.wants else self._searched_out

    @property
    def shorter(self) -> ShorterSearch | None:
        """Whether the search has fewer samples than the space gives it, without the confirmations."""
        return self.searched.shorter

    @property
    def next_epochs(self) -> int:
        """Maximum number of epochs that the next trial may still take."""
        left = [] if self.searched.wants or not self._searched_out else self._left()
        if not left:
            return self.searched.next_epochs
        sample = self._confirmation(left[0])
        done = sum(epochs for other, epochs in self._trained if same_confirmation(other, sample))
        return max(planned(self.config(sample)) - done, 0)

    @property
    def next_is_owed(self) -> bool:
        """Whether the next trial is of a point that has begun; a confirmation is not."""
        return self.searched.wants and self.searched.next_is_owed

    @property
    def owed_epochs(self) -> int:
        """Those of the search."""
        return self.searched.owed_epochs

    @property
    def _searched_out(self) -> bool:
        """Whether the search has ended: nothing is left to ask for, and every trial has ended."""
        return not self.searched.wants and len(self.searched.outcomes) == len(self.searched.samples)

    @property
    def best(self) -> Sample | None:
        """The best sample of the search so far: a complete one that keeps the bounds, or misses them least.

        Of equal ones, that whose trial has the lowest id, as in the tables.
        """
        found: dict[tuple[float, float], list[int]] = {}
        samples = self.searched.samples
        for number, outcome in self.searched.outcomes.items():
            if outcome.values is not None:
                found.setdefault((outcome.missed, -self._sign * outcome.values[0]), []).append(number)
        if not found:
            return None
        equal = {repr(samples[number].params): number for number in sorted(found[min(found)], reverse=True)}
        return samples[min(equal.values(), key=self._trial) if len(equal) > 1 else next(iter(equal.values()))]

    def _trial(self, number: int) -> str:
        """The id of the trial of a sample of the search; of the first replicate of a point."""
        if number not in self._trials:
            self._trials[number] = self.searched.config(self.searched.samples[number]).id
        return self._trials[number]

    def _of_best(self, confirmations: Sequence[Sample]) -> list[Sample]:
        best = self.best if confirmations else None
        return [sample for sample in confirmations if best is not None and sample.params == best.params]

    def _left(self) -> list[Values]:
        """What the confirmations of the best sample that have not begun would set; empty if there is no best one."""
        begun = [confirmation.values for s in self._of_best(self._begun) if (confirmation := confirmation_of(s))]
        return [] if self.best is None else [values for values in self.confirm.points() if values not in begun]

    def _confirmation(self, values: Values) -> Sample:
        best = self.best
        assert best is not None
        attrs = Confirmation(self._trial(best.number), dict(values)).attrs()
        return Sample(self.cell.key, best.number, dict(self.cell.values), dict(best.params), attrs)

    def ask(self) -> Sample:
        """The next sample of the search, then the next confirmation of the best. Call only when :attr:`ready`."""
        if self.searched.wants:
            return self.searched.ask()
        sample = self._confirmation(self._left()[0])
        self._begun.append(sample)
        return sample

    def config(self, sample: Sample) -> TrialConfig:
        """The config of a sample's trial."""
        return self.searched.space.config(self.cell, values_set(sample))

    def replay(self, sample: Sample, outcome: Outcome, record: Record | None = None) -> None:
        """Add a committed sample with its outcome, or as running. A confirmation that has not ended is asked anew."""
        ended = outcome.state.is_finished()
        if confirmation_of(sample) is not None:
            if ended:
                self._begun.append(sample)
                self._over.append(sample)
            else:
                self._trained.append((sample, 0 if record is None else trained(record)))
            return
        if record is not None and replicate_of(sample) is None:
            self._trials[sample.number] = record.id
        self.searched.replay(sample, outcome, record)

    def tell(self, sample: Sample, outcome: Outcome) -> None:
        """Record the outcome of the sample's trial. The study is not told of confirmations."""
        if confirmation_of(sample) is None:
            self.searched.tell(sample, outcome)
        elif not any(same_confirmation(sample, other) for other in self._over):
            self._over.append(sample)

    def changed(self) -> Iterable[Sample]:
        """Those of the search."""
        return self.searched.changed()

    def shown(self, sample: Sample, outcome: Outcome) -> float | None:
        """The value of the point of the search, or a confirmation's own."""
        return outcome.shown if confirmation_of(sample) is not None else self.searched.shown(sample, outcome)

    def judge(self, sample: Sample, step: int, value: float, at: Position | None = None) -> tuple[bool, dict[str, Any]]:
        """Whether the study's pruner ends a running trial after this step; a confirmation always runs to its end."""
        return (False, {}) if confirmation_of(sample) is not None else self.searched.judge(sample, step, value, at)

    def released(self) -> Iterable[str]:
        """Always empty: a study's trials keep their checkpoints."""
        return self.searched.released()
