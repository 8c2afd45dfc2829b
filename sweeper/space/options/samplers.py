"""Samplers, which suggest the points of a cell: the options of Optuna's samplers, and their saved state.

A new sampler is made for every sample, seeded by (seed, cell, sample number), so that a rebuilt study continues as the
original would have. State that it needs from one sample to the next is in attributes of the study and its trials,
which are committed with the sample (:meth:`Sampler.remembered`).
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from typing import Any, ClassVar, Literal

from optuna.distributions import BaseDistribution
from optuna.samplers import (
    BaseSampler,
    CmaEsSampler,
    GPSampler,
    GridSampler,
    NSGAIIISampler,
    NSGAIISampler,
    QMCSampler,
    RandomSampler,
    TPESampler,
)
from optuna.study import Study
from optuna.trial import FrozenTrial
from pydantic import Field

from sweeper.space.distributions import Choice, Distribution
from sweeper.space.options import cma_state
from sweeper.space.options.named_options import read_named_options
from sweeper.space.options.optuna_samplers import sampler_class
from sweeper.space.options.sampler import Question, Sampler
from trials.errors import UserError
from trials.registry import Registry

MOST_COMBINATIONS = 10_000
"""Limit on the points of the sampler ``grid``, because Optuna stores the whole grid with every trial."""


class Random(Sampler):
    """Independent random draws."""

    name: Literal["random"] = "random"

    def make(self, question: Question, seed: int, cell_seed: int) -> BaseSampler:
        return RandomSampler(seed=seed)


class Tpe(Sampler):
    """Tree-structured Parzen estimators (https://arxiv.org/abs/2304.11127).

    Attributes:
        multivariate: model parameters jointly instead of independently.
        group: model parameters jointly that occur together; by default if the search has conditions.
        constant_liar: count running trials as bad, so that concurrent trials differ.
        n_startup_trials: number of random samples at the start; by default a third of the samples, at most 10.
        n_ei_candidates: number of candidates of which the best expected improvement is suggested.
    """

    name: Literal["tpe"] = "tpe"
    multivariate: bool = True
    group: bool | None = None
    constant_liar: bool = True
    n_startup_trials: int | None = Field(default=None, ge=0)
    n_ei_candidates: int = Field(default=24, ge=1)
    learns: ClassVar[bool] = True

    def make(self, question: Question, seed: int, cell_seed: int) -> BaseSampler:
        conditions = any(distribution.conditional for distribution in question.search.values())
        return TPESampler(
            seed=seed,
            multivariate=self.multivariate,
            group=self.multivariate and conditions if self.group is None else self.group,
            constant_liar=self.constant_liar,
            n_startup_trials=self._startup(question, self.n_startup_trials),
            n_ei_candidates=self.n_ei_candidates,
        )

    def check(self, question: Question) -> None:
        if self.group and not self.multivariate:
            raise UserError("sampler.group is true, but needs multivariate: set multivariate: true")


class Gp(Sampler):
    """Gaussian process with log expected improvement, for few samples and few parameters; slow to suggest.

    Attributes:
        deterministic_objective: whether equal points give equal values, as trials here do.
        n_startup_trials: number of random samples at the start; by default a third of the samples, at most 10.
    """

    name: Literal["gp"] = "gp"
    deterministic_objective: bool = False
    n_startup_trials: int | None = Field(default=None, ge=0)
    learns: ClassVar[bool] = True

    def make(self, question: Question, seed: int, cell_seed: int) -> BaseSampler:
        return GPSampler(
            seed=seed,
            deterministic_objective=self.deterministic_objective,
            n_startup_trials=self._startup(question, self.n_startup_trials),
            warn_independent_sampling=False,
        )


class Nsga2(Sampler):
    """Evolution of a population towards the Pareto front (Deb et al. 2002, https://doi.org/10.1109/4235.996017).

    Attributes:
        population_size: trials per generation; the first generation is random.
        mutation_prob: per parameter; by default 1 / number of parameters.
        crossover_prob: probability that a trial mixes two parents.
        swapping_prob: probability of taking each parameter from the other parent.
    """

    name: Literal["nsga2"] = "nsga2"
    population_size: int = Field(default=50, ge=2)
    mutation_prob: float | None = Field(default=None, ge=0, le=1)
    crossover_prob: float = Field(default=0.9, ge=0, le=1)
    swapping_prob: float = Field(default=0.5, ge=0, le=1)

    def make(self, question: Question, seed: int, cell_seed: int) -> BaseSampler:
        return NSGAIISampler(seed=seed, **self.model_dump(exclude={"name"}))

    def check(self, question: Question) -> None:
        if self.population_size >= question.samples:
            raise UserError(
                f"sampler.population_size is {self.population_size}, but must be less than samples, which is "
                f"{question.samples}: it would never get beyond its first generation, which is random"
            )


class Nsga3(Nsga2):
    """NSGA-II with reference points, for many objectives (https://doi.org/10.1109/TEVC.2013.2281535).

    Attributes:
        dividing_parameter: number of divisions per axis between reference points.
    """

    name: Literal["nsga3"] = "nsga3"  # type: ignore[assignment]
    dividing_parameter: int = Field(default=3, ge=1)

    def make(self, question: Question, seed: int, cell_seed: int) -> BaseSampler:
        return NSGAIIISampler(seed=seed, **self.model_dump(exclude={"name"}))


class CmaEs(Sampler):
    """Covariance matrix adaptation (https://arxiv.org/abs/1604.00772): numbers only, one objective, no constraints.

    Attributes:
        popsize: trials per generation; by default 4 + 3 ln(parameters).
        use_separable_cma: use a diagonal covariance matrix, for many parameters.
        lr_adapt: adapt the learning rate, for noisy or multimodal objectives.
        n_startup_trials: number of random samples at the start.
    """

    name: Literal["cmaes"] = "cmaes"
    popsize: int | None = Field(default=None, ge=2)
    n_startup_trials: int = Field(default=1, ge=0)
    use_separable_cma: bool = False
    lr_adapt: bool = False

    def make(self, question: Question, seed: int, cell_seed: int) -> BaseSampler:
        return CmaEsSampler(seed=seed, warn_independent_sampling=False, **self.model_dump(exclude={"name"}))

    def check(self, question: Question) -> None:
        if question.objectives > 1:
            raise UserError(f"sampler is 'cmaes', but there are {question.objectives} objectives: use tpe, nsga2, gp")
        if question.constraints:
            raise UserError("sampler is 'cmaes', but it does not support constraints: use tpe, nsga2, nsga3 or gp")
        for path, distribution in question.search.items():
            if isinstance(distribution, Choice) or distribution.conditional:
                kind = "a choice" if isinstance(distribution, Choice) else "conditional"
                raise UserError(f"sampler is 'cmaes', but search.{path} is {kind}: it searches numbers; use tpe or gp")
        if self.use_separable_cma and (self.lr_adapt or len(question.search) < 2):
            raise UserError("sampler.use_separable_cma is true, but needs two or more parameters and no lr_adapt")
        popsize = self.popsize or 4 + math.floor(3 * math.log(max(1, len(question.search))))
        if self.n_startup_trials + popsize >= question.samples:
            raise UserError(
                f"sampler.popsize is {popsize}, but with n_startup_trials must be less than samples, which is "
                f"{question.samples}: it would never get beyond its first generation"
            )

    def remembered(self, attrs: dict[str, Any]) -> dict[str, Any]:
        return cma_state.to_json(attrs)

    def recalled(self, attrs: dict[str, Any]) -> dict[str, Any]:
        return cma_state.from_json(attrs)


class _Qmc(QMCSampler):
    """Samples the whole search from the first sample on; Optuna's class takes the space from earlier trials."""

    search: dict[str, BaseDistribution]

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        return self.search


class Qmc(Sampler):
    """A low-discrepancy sequence, which covers the ranges more evenly than random draws.

    Attributes:
        qmc_type: the sequence.
        scramble: scramble the sequence with the cell's seed.
    """

    name: Literal["qmc"] = "qmc"
    qmc_type: Literal["sobol", "halton"] = "sobol"
    scramble: bool = True

    def make(self, question: Question, seed: int, cell_seed: int) -> BaseSampler:
        sampler = _Qmc(qmc_type=self.qmc_type, scramble=self.scramble, seed=cell_seed, warn_independent_sampling=False)
        sampler.search = {path: d.optuna_distribution() for path, d in question.search.items()}
        return sampler


class _Grid(GridSampler):
    def after_trial(self, *_: Any) -> None:
        """Do nothing: Optuna's version stops ``study.optimize``, which is not used here."""


class Grid(Sampler):
    """Every combination of values once, in random order.

    Attributes:
        points: number of evenly spaced values per range, bounds included (spaced in the logarithm if it is searched
            so, or the nearest values in steps). A range of integers or steps with no more values is used whole.
    """

    name: Literal["grid"] = "grid"
    points: int = Field(default=5, ge=2)

    def make(self, question: Question, seed: int, cell_seed: int) -> BaseSampler:
        return _Grid(self._values(question), seed=cell_seed)

    def check(self, question: Question) -> None:
        combinations = self.combinations(question.search)
        if combinations > MOST_COMBINATIONS:
            raise UserError(
                f"sampler is 'grid', but the search has {combinations} combinations, more than {MOST_COMBINATIONS}: "
                "set sampler.points to less, or use qmc"
            )
        if question.samples > combinations + len(question.enqueued):
            raise UserError(
                f"samples is {question.samples}, but the grid of the search has {combinations} points: set samples to "
                "at most that, or sampler.points to more"
            )
        for i, point in enumerate(question.enqueued):
            missing = [path for path in question.search if path not in point]
            if missing:
                raise UserError(f"enqueue[{i}] lacks {missing[0]}, but with sampler grid a point must set every path")

    def combinations(self, search: Mapping[str, Distribution]) -> int:
        """Return the number of points of the grid."""
        return math.prod(len(distribution.points(self.points)) for distribution in search.values())

    def _values(self, question: Question) -> dict[str, list[Any]]:
        return {path: list(distribution.points(self.points)) for path, distribution in question.search.items()}


_BUILT_IN: dict[str, type[Sampler]] = {
    "cmaes": CmaEs,
    "gp": Gp,
    "grid": Grid,
    "nsga2": Nsga2,
    "nsga3": Nsga3,
    "qmc": Qmc,
    "random": Random,
    "tpe": Tpe,
}


SAMPLERS: Registry[type[Sampler]] = Registry("samplers", _BUILT_IN, sampler_class)
"""Samplers by name; also those of plug-ins (:mod:`trials.registry`)."""


def read_sampler(content: object, plugins: Collection[str] = ()) -> Sampler:
    """Parse a sampler from a name, or from a mapping of ``name`` and options.

    Args:
        plugins: those of the space, under which a name ``module:attribute`` must lie.

    Raises:
        UserError: it is no valid sampler.
    """
    return content if isinstance(content, Sampler) else read_named_options(content, SAMPLERS, "sampler", plugins)
