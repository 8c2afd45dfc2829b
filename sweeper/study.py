"""One Optuna study per cell, in memory, rebuilt from committed samples. Optuna thinks; nothing here is the truth."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Mapping
from typing import Any

import optuna
from optuna.samplers import BaseSampler, RandomSampler, TPESampler
from optuna.trial import FrozenTrial, TrialState, create_trial

from sweeper.ledger import Sample
from sweeper.space import Cell, Space
from trials.errors import unknown_name
from trials.seeding import derive_seed

optuna.logging.set_verbosity(optuna.logging.WARNING)
warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)


def _tpe(seed: int, samples: int) -> BaseSampler:
    """Multivariate, running trials counted as bad (constant liar). A third of the samples (at most 10) are random."""
    startup = min(10, math.ceil(samples / 3))
    return TPESampler(seed=seed, multivariate=True, constant_liar=True, n_startup_trials=startup)


def _random(seed: int, samples: int) -> BaseSampler:
    return RandomSampler(seed=seed)


SAMPLERS: dict[str, Callable[[int, int], BaseSampler]] = {"tpe": _tpe, "random": _random}


class CellStudy:
    """The study of one cell. Trials of different cells are never compared."""

    def __init__(self, space: Space, cell: Cell) -> None:
        if space.sampler not in SAMPLERS:
            raise ValueError(unknown_name("sampler", space.sampler, SAMPLERS))
        self.space, self.cell = space, cell
        self._asked: set[int] = set()
        self._next = 0
        self._study: optuna.Study | None = None
        self._trials: dict[int, int] = {}  # number of a sample -> number of the study's trial

    @property
    def count(self) -> int:
        """How many samples this cell has."""
        return len(self._asked)

    @property
    def study(self) -> optuna.Study:
        if self._study is None:
            self._study = optuna.create_study(direction=self.space.direction, sampler=self._sampler(0))
        return self._study

    def _sampler(self, number: int) -> BaseSampler:
        """Seeded by (seed, cell, number of the sample), so that a rebuilt study does not repeat itself."""
        seed = derive_seed(self.space.seed, self.cell.key, number) % 2**32
        return SAMPLERS[self.space.sampler](seed, self.space.samples)

    def ask(self) -> Sample:
        """The next sample of this cell: the first number that is not there, be it that its record was lost."""
        while self._next in self._asked:
            self._next += 1
        number = self._next
        params: dict[str, Any] = {}
        attrs: dict[str, Any] = {}
        if self.space.search:
            self.study.sampler = self._sampler(number)
            trial = self.study.ask()
            for path, distribution in self.space.search.items():
                distribution.suggest(trial, path)
            frozen = self._frozen(trial.number)
            params, attrs = dict(frozen.params), dict(frozen.system_attrs)
            self._trials[number] = trial.number
        self._asked.add(number)
        return Sample(self.cell.key, number, dict(self.cell.values), params, attrs)

    def replay(self, sample: Sample, state: TrialState, value: float | None) -> None:
        """Add a committed sample: complete with its value, failed, or still running. In the order of their numbers."""
        self._asked.add(sample.number)
        if not self.space.search:
            return
        self._trials[sample.number] = len(self.study.get_trials(deepcopy=False))
        self.study.add_trial(
            create_trial(
                state=state,
                value=value,
                params=sample.params,
                distributions={path: d.optuna_distribution() for path, d in self.space.search.items()},
                system_attrs=sample.attrs,
            )
        )

    def tell(self, sample: Sample, value: float | None) -> None:
        """The sample's objective, or None for a trial that failed."""
        if not self.space.search:
            return
        number = self._trials[sample.number]
        if self._frozen(number).state.is_finished():
            return
        if value is None:
            self.study.tell(number, state=TrialState.FAIL)
        else:
            self.study.tell(number, value)

    def _frozen(self, number: int) -> FrozenTrial:
        return self.study.get_trials(deepcopy=False)[number]


def objective_of(space: Space, result: Mapping[str, Any]) -> float | None:
    """The objective in a trial's result; None where it is missing or not a finite number."""
    value = result.get(space.objective)
    if not isinstance(value, (int, float)) or not math.isfinite(value):
        return None
    return float(value)
