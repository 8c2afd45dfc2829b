"""Population based training of one cell, in generations of segments: a pure function of the committed samples.

Sample ``generation * population + member`` is one segment of one member: a trial of its own, which continues its
parent's trial of the previous generation. The next generation is decided when every trial of a generation has ended.
Each of the worst members copies one of the best (checkpoint and hyperparameters) and explores; the others continue
unchanged. Random values are seeded by (seed, cell, generation, member), so the result depends neither on the order in
which trials end nor on restarts of the driver.

A member whose trial failed counts as the worst and is replaced by a copy of one of the best. If all trials of a
generation failed, the cell ends there.
"""

from __future__ import annotations

import contextlib
import random
from collections.abc import Iterable, Iterator
from functools import cached_property
from typing import Any

from sweeper.folder.packed_records import Packer
from sweeper.folder.search_ends import ShorterSearch
from sweeper.folder.sweep_folder import Record, Sample
from sweeper.search.cells.perturbation import draw_value, perturb_value
from sweeper.search.epoch_budget import planned
from sweeper.search.outcomes import Outcome
from sweeper.search.pruning.positions import Position
from sweeper.space.distributions import lowest
from sweeper.space.grid.cells import Cell
from sweeper.space.options.pbt import Pbt
from sweeper.space.space import Space
from trials.config.trial_config import WHERE, TrialConfig
from trials.errors import UserError
from trials.methods import segments
from trials.networks.named_files import relocated
from trials.seeding import derive_seed


class CellPopulation:
    """The population of one cell: follows the protocol :class:`~sweeper.search.cells.cell_search.CellSearch`."""

    def __init__(self, space: Space, cell: Cell, pbt: Pbt) -> None:
        self.space, self.cell, self.pbt = space, cell, pbt
        self._samples: dict[int, Sample] = {}
        self._outcomes: dict[int, Outcome] = {}  # of ended trials, by sample number
        self._configs: dict[int, TrialConfig] = {}
        self._records: dict[int, bytes] = {}  # packed
        self._packer: Packer | None = None
        self._ids: dict[int, str] = {}  # of trials
        self._epochs: dict[int, int] = {}  # that a trial takes, by generation
        self._next = 0
        self._released = 0

    @property
    def count(self) -> int:
        """Number of samples that this cell has."""
        return len(self._samples)

    @property
    def total(self) -> int:
        """Number of samples that this cell will have in the end."""
        return self.count if self._extinct() else max(self.count, self.space.samples)

    @property
    def shorter(self) -> ShorterSearch | None:
        """That every member of a generation has failed, if that has ended the population."""
        if not self._extinct() or self.count >= self.space.samples:
            return None
        before = self._number() // self.pbt.population - 1
        return ShorterSearch(self.count, f"every member of generation {before} has failed")

    @property
    def wants(self) -> bool:
        """Whether samples are left to ask for, now or later."""
        return self.count < self.space.samples and not self._extinct()

    @property
    def ready(self) -> bool:
        """Whether the next sample can be decided, that is, every trial of the previous generation has ended."""
        return self._over(self._number() // self.pbt.population - 1)

    def _number(self) -> int:
        """The lowest unused sample number; a lost record leaves a gap that is filled first."""
        while self._next in self._samples:
            self._next += 1
        return self._next

    def _numbers(self, generation: int) -> range:
        first = generation * self.pbt.population
        return range(max(first, 0), first + self.pbt.population)

    def _over(self, generation: int) -> bool:
        return all(number in self._outcomes for number in self._numbers(generation))

    def _extinct(self) -> bool:
        before = self._number() // self.pbt.population - 1
        return before >= 0 and self._over(before) and not self._ranked(before)

    def _ranked(self, generation: int) -> list[int]:
        """Members that did not fail, best first: feasible ones by objective, then the others by total violation.

        Ties go to the lower number.
        """
        sign = self.space.objectives[0].sign
        found = []
        for number in self._numbers(generation):
            outcome = self._outcomes[number]
            if outcome.values is not None:
                found.append((outcome.missed, -sign * outcome.values[0], number))
        return [number % self.pbt.population for *_, number in sorted(found)]

    def ask(self) -> Sample:
        """The next sample of this cell. Call only when :attr:`ready`."""
        number = self._number()
        generation, member = divmod(number, self.pbt.population)
        draw = random.Random(derive_seed(self.space.seed, "pbt", self.cell.key, generation, member))
        if generation == 0:
            params = {path: draw_value(distribution, draw) for path, distribution in self.space.search.items()}
            sample = self._sample(number, params, None, dict.fromkeys(params, "drawn"))
        else:
            sample = self._successor(number, draw)
        self._samples[number] = sample
        return sample

    def _successor(self, number: int, draw: random.Random) -> Sample:
        """The next segment of a member: a continuation of its own, or of a copy of a better one that explores."""
        generation, member = divmod(number, self.pbt.population)
        ranked = self._ranked(generation - 1)
        best, going_on = ranked[: self.pbt.replaced], set(ranked[: len(ranked) - self._to_replace(ranked)])
        if member in going_on:
            parent = self._samples[number - self.pbt.population]
            return self._sample(number, parent.params, parent, {})
        parent = self._samples[(generation - 1) * self.pbt.population + draw.choice(best)]
        params, changes = dict(parent.params), {}
        for path, distribution in self.space.search.items():
            if draw.random() < self.pbt.resample_probability:
                params[path], changes[path] = draw_value(distribution, draw), "resampled"
            else:
                params[path] = perturb_value(distribution, params[path], self.pbt.perturb, draw)
                changes[path] = "perturbed"
        return self._sample(number, params, parent, changes)

    def _to_replace(self, ranked: list[int]) -> int:
        """How many of the members that did not fail are replaced. Failed ones are replaced first, the best never."""
        failed = self.pbt.population - len(ranked)
        return min(max(self.pbt.replaced - failed, 0), max(len(ranked) - self.pbt.replaced, 0))

    def _sample(self, number: int, params: dict[str, Any], parent: Sample | None, changes: dict[str, str]) -> Sample:
        generation, member = divmod(number, self.pbt.population)
        place = {
            "generation": generation,
            "member": member,
            "parent": None if parent is None else parent.number % self.pbt.population,
            "parent_trial": None if parent is None else self._trial(parent),
            "changes": changes,
        }
        return Sample(self.cell.key, number, dict(self.cell.values), dict(params), {"pbt": place})

    def config(self, sample: Sample) -> TrialConfig:
        """The config of a sample's trial, which continues its parent's trial.

        A committed config is read, not built again, unless another version wrote it and this one cannot read it.
        """
        if sample.number not in self._configs and sample.number in self._records:
            with contextlib.suppress(UserError):
                self._configs[sample.number] = self._as_run_here(self._record(sample.number).config)
        if sample.number not in self._configs:
            generation = sample.number // self.pbt.population
            parent = sample.attrs["pbt"]["parent"]
            if parent is None:
                until = self.pbt.until_epoch(generation, self._stage_epochs)
                config = self.space.config(self.cell, {**sample.params, "until_epoch": until})
            else:
                before = self.config(self._samples[(generation - 1) * self.pbt.population + parent])
                config = segments.child(before, sample.params, self.pbt.until_epoch(generation, self._stage_epochs))
            self._configs[sample.number] = config
        found = self._configs[sample.number]
        for number in [n for n in self._configs if n < sample.number - 2 * self.pbt.population]:
            del self._configs[number]  # of a generation that no new segment continues
        if sample.number not in self._ids:
            self._ids[sample.number] = found.id
        return found

    def _trial(self, sample: Sample) -> str:
        """The id of a sample's trial."""
        if sample.number not in self._ids:
            self._ids[sample.number] = self.config(sample).id
        return self._ids[sample.number]

    def _record(self, number: int) -> Record:
        assert self._packer is not None
        return self._packer.unpack(self._records[number])

    def _as_run_here(self, config: TrialConfig) -> TrialConfig:
        """A committed trial's config with the fields that say where trials run, and the places of the files that it
        names, as the space has them now."""
        here = config.model_copy(update={field: getattr(self._template, field) for field in WHERE})
        return relocated(here, self._template) if config.file_hashes else here

    @cached_property
    def _template(self) -> TrialConfig:
        return self.space.config(self.cell, lowest(self.space.search))

    @cached_property
    def _stage_epochs(self) -> int:
        """Epochs of the stage that segments divide; hyperparameters that may change within a trial do not affect it."""
        return segments.epochs(self._template)

    @property
    def next_epochs(self) -> int:
        """Epochs that the next trial takes: those of its segment; in the last one, also those of the further stages."""
        generation = self._number() // self.pbt.population
        if generation not in self._epochs:
            before, until = (self.pbt.until_epoch(g, self._stage_epochs) for g in (generation - 1, generation))
            lineage = [{"until_epoch": before, "values": {}}] if generation else []
            place = {"until_epoch": until, "lineage": lineage}
            self._epochs[generation] = planned(self.space.config(self.cell, {**lowest(self.space.search), **place}))
        return self._epochs[generation]

    @property
    def next_is_owed(self) -> bool:
        """Always False: a member is one trial."""
        return False

    @property
    def owed_epochs(self) -> int:
        """Always 0: a member is one trial."""
        return 0

    def replay(self, sample: Sample, outcome: Outcome, record: Record | None = None) -> None:
        """Add a committed sample with its outcome, or as running."""
        self._samples[sample.number] = sample
        if record is not None:
            self._packer = self._packer or Packer(record.folder.path.parent)
            self._records[sample.number] = self._packer.pack(record)
            self._ids[sample.number] = record.id
        if outcome.state.is_finished():
            self._outcomes[sample.number] = outcome.without_curve()

    def tell(self, sample: Sample, outcome: Outcome) -> None:
        """Record the outcome of the sample's trial. Only the first call for a sample counts."""
        self._outcomes.setdefault(sample.number, outcome.without_curve())

    def changed(self) -> Iterable[Sample]:
        """Always empty: a segment's place is decided when it is asked for."""
        return ()

    def shown(self, sample: Sample, outcome: Outcome) -> float | None:
        """The outcome's own value."""
        return outcome.shown

    def judge(self, sample: Sample, step: int, value: float, at: Position | None = None) -> tuple[bool, dict[str, Any]]:
        """Never end a trial: a segment always runs to its end."""
        return False, {}

    def released(self) -> Iterator[str]:
        """Yield the trials of each generation whose next one has ended, once: no trial will continue their checkpoints.

        The last generation's checkpoints are kept, because more generations may be requested later.
        """
        while self._over(self._released) and self._over(self._released + 1) and self._ranked(self._released + 1):
            if self._over(self._released + 2):  # an earlier driver released it before that generation
                self._released += 1
                continue
            numbers = self._numbers(self._released)
            self._released += 1
            yield from dict.fromkeys(self._trial(self._samples[number]) for number in numbers)
