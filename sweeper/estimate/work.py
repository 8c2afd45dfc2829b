"""How many epochs a space trains: all cells, samples and confirmations, and every shared trial once."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from sweeper.space.check_ends import described_ends, few_points
from sweeper.space.grid.cells import Cell
from sweeper.space.space import Space
from trials.config.trial_config import TrialConfig
from trials.data import DataKey
from trials.data_header import DataHeader
from trials.errors import UserError
from trials.methods import Stage, segments
from trials.methods.batches import training_size
from trials.methods.dense import copies_shared
from trials.methods.registry import METHODS
from trials.running.rates import StageKind
from trials.running.shared_trials import shared_by

MOST_CONFIGS = 20_000
"""Up to this many configs at corners of searches all are looked at; beyond, two of each cell."""


@dataclass
class SweepWork:
    """What a sweep trains.

    Attributes:
        epochs: by kind of stage.
        examples: by kind of stage, a config that has it.
        at_most: why these are upper bounds.
        uncounted: stages whose length nothing says before they run, as ``method: stage``.
        trials: number of trials, without shared ones.
        shared: number of shared trials.
        of_shared: those of the epochs that shared trials train, which max_epochs does not limit.
    """

    epochs: Counter[StageKind] = field(default_factory=Counter)
    examples: dict[StageKind, TrialConfig] = field(default_factory=dict)
    at_most: list[str] = field(default_factory=list)
    uncounted: list[str] = field(default_factory=list)
    trials: int = 0
    shared: int = 0
    of_shared: Counter[StageKind] = field(default_factory=Counter)

    @property
    def total(self) -> float:
        """All epochs."""
        return float(sum(self.epochs.values()))

    def add(self, config: TrialConfig, stages: Iterable[tuple[Stage, float | None]], count: float) -> None:
        """Count the stages of so many equal trials; a stage without a number of epochs is noted instead."""
        for stage, epochs in stages:
            kind = StageKind.of(config, stage)
            if epochs is None:
                self._note(self.uncounted, f"{config.method}: {stage.name}")
                continue
            self.epochs[kind] += epochs * count  # type: ignore[assignment]  # parts of epochs count, too
            self.examples.setdefault(kind, config)

    def bounded(self, reason: str) -> None:
        """Note why the epochs are an upper bound."""
        self._note(self.at_most, reason)

    @staticmethod
    def _note(notes: list[str], text: str) -> None:
        if text not in notes:
            notes.append(text)


def work_of(space: Space, headers: Mapping[DataKey, DataHeader]) -> SweepWork:
    """Return what a checked space trains, as if nothing of it was there yet.

    Args:
        headers: of the data, by what reads them; they say how many steps an epoch has.
    """
    work, needed = SweepWork(), _Shared(space)
    cells = space.cells()
    whole = sum(len(space.corners(cell)) for cell in cells) <= MOST_CONFIGS
    for cell in cells:
        corners = space.corners(cell)
        points = corners if whole else [corners[0], corners[-1]]
        configs = [space.corner_config(cell, params) for params in points]
        counted = {config.id: sum(e or 0 for _, e in _stages(config, headers)) for config in configs}
        longest = max(configs, key=lambda config: counted[config.id])
        if len(set(counted.values())) > 1:
            work.bounded("the search changes the number of epochs")
        _count_cell(work, space, longest, headers)
        needed.add(cell, configs)
    if not whole:
        work.bounded("as far as two points of each search show")
    for config, count in needed.counted():
        work.shared += count
        before = Counter(work.epochs)
        work.add(config, _stages(config, headers), count)
        work.of_shared += work.epochs - before
        _bound(work, config)
    if space.replicates is not None and space.replicates.race:
        work.bounded("the race drops points before all their replicates have run")
    for reason in described_ends(space):
        work.bounded(reason)
    if space.pruner is not None:
        work.bounded(f"the pruner ({space.pruner.name}) stops trials early")
    if not work.at_most and (few := few_points(space)):
        work.bounded(few)
    return work


def _count_cell(work: SweepWork, space: Space, config: TrialConfig, headers: Mapping[DataKey, DataHeader]) -> None:
    confirmations = len(space.confirm.points()) if space.confirm else 0
    trials = space.trials_per_cell + confirmations
    work.trials += trials
    _bound(work, config)
    if space.pbt is None:
        if not copies_shared(config):  # a dense trial copies a shared one
            work.add(config, _stages(config, headers), trials)
        return
    first, *rest = _stages(config, headers)
    ends = space.pbt.until_epoch(space.pbt.generations - 1, int(first[0].epochs))
    work.add(config, [(first[0], float(ends)), *(rest if ends == first[0].epochs else [])], space.pbt.population)


def _bound(work: SweepWork, config: TrialConfig) -> None:
    for stage in METHODS[config.method](config).stages():
        if getattr(stage.recipe, "patience", None) is not None and stage.streams:
            work.bounded("training with patience may stop early")
        if hasattr(stage, "most_steps") or hasattr(stage, "most_epochs"):
            work.bounded(f"{stage.name} of {config.method} may end early")


def _stages(config: TrialConfig, headers: Mapping[DataKey, DataHeader]) -> list[tuple[Stage, float | None]]:
    """The stages that a trial runs, each with its epochs; None if nothing says how many."""
    stages = segments.reached(config, list(METHODS[config.method](config).stages()))
    return [(stage, _epochs(stage, config, headers)) for stage in stages]


def _epochs(stage: Stage, config: TrialConfig, headers: Mapping[DataKey, DataHeader]) -> float | None:
    episodes, most_steps = getattr(stage, "most_epochs", None), getattr(stage, "most_steps", None)
    if episodes is not None:
        return float(episodes)
    if most_steps is not None:
        header = headers.get(config.data_key) or config.published
        try:
            images = None if header is None else training_size(config, header)
        except UserError:
            images = None
        return None if images is None else most_steps / math.ceil(images / stage.recipe.batch_size)
    if not stage.streams or math.isinf(stage.epochs):
        return None
    return float(stage.planned_epochs)


class _Shared:
    """The shared trials of a space: counted once each, or once per sample where the search changes them."""

    def __init__(self, space: Space) -> None:
        self.space = space
        self._once: dict[str, TrialConfig] = {}
        self._per_sample: list[tuple[TrialConfig, int]] = []

    def add(self, cell: Cell, configs: list[TrialConfig]) -> None:
        """Note what the trials of a cell start from, and those that confirm its best one."""
        for values in self.space.replicate_values():
            self._note([config.model_copy(update=values) for config in configs], self.space.samples)
        for values in self.space.confirm.points() if self.space.confirm else ():
            self._note([config.model_copy(update=values) for config in configs], 1)

    def _note(self, configs: list[TrialConfig], trials: int) -> None:
        if self.space.pbt is not None and configs[0].method == "dense":
            return  # its segments copy no shared trial
        found = [shared_by(config) for config in configs]
        for name, config in found[0].items():
            if all(name in other for other in found):
                self._once[name] = config
            else:
                self._per_sample.append((config, trials))

    def counted(self) -> Iterator[tuple[TrialConfig, int]]:
        """Yield each shared trial, and how many of its kind are trained."""
        yield from ((config, 1) for config in self._once.values())
        yield from self._per_sample
