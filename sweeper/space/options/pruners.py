"""Pruners, which stop trials early: the options of Optuna's pruners. Each compares trials of one cell only.

A pruner's steps are the epochs of the stages in which a method allows stopping
(:attr:`trials.methods.base.Method.stoppable`), counted from 1 over all levels. Where the search changes the epochs of a
stage, they are equal shares of it instead (:mod:`sweeper.space.pruner_steps`). Values are compared at one step and one
density, and a trial that misses its bounds never counts against another
(:mod:`sweeper.search.pruning.cell_pruner`). A trial is not pruned at its last epoch.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import Any, Literal

from optuna.pruners import (
    BasePruner,
    HyperbandPruner,
    MedianPruner,
    PatientPruner,
    PercentilePruner,
    SuccessiveHalvingPruner,
)
from pydantic import Field, field_validator

from sweeper.space.options.named_options import NamedOptions, read_named_options
from trials.config.trial_config import TrialConfig
from trials.errors import UserError
from trials.methods.registry import METHODS


class Pruner(NamedOptions):
    """Base of a pruner's options, which have Optuna's names."""

    @abstractmethod
    def make(self, epochs: int) -> BasePruner:
        """Create the pruner for a cell whose longest trial has ``epochs`` stoppable epochs."""

    def check(self, epochs: int, samples: int, unit: str = "epochs", where: str = "pruner") -> None:
        """Raise a UserError if it could never stop a trial of ``epochs`` steps in a cell of ``samples`` samples.

        ``unit``: what a step is, and ``where`` it is written, for the message.
        """

    def check_stage(self, steps: int, where: str = "pruner") -> None:
        """Raise a UserError if it could stop no trial whose longest stage, of one level, has so many steps."""


class Halving(Pruner):
    """Asynchronous successive halving (https://arxiv.org/abs/1810.05934).

    Rung k is at ``min_resource * reduction_factor ** (min_early_stopping_rate + k)`` epochs. A trial passes it if it is
    among the best 1 / ``reduction_factor`` of the comparable trials that have reached it. An epoch is a step of the
    pruner: where the search changes the epochs of a stage, a share of it.

    Attributes:
        min_resource: epochs of the lowest rung.
        reduction_factor: of so many trials, one passes a rung.
        min_early_stopping_rate: number of lowest rungs to leave out.
        bootstrap_count: number of trials that must reach a rung before one passes it; these are stopped there.
    """

    name: Literal["halving"] = "halving"
    min_resource: int = Field(default=1, ge=1)
    reduction_factor: int = Field(default=4, ge=2)
    min_early_stopping_rate: int = Field(default=0, ge=0, le=60)
    bootstrap_count: int = Field(default=0, ge=0)

    def make(self, epochs: int) -> BasePruner:
        return SuccessiveHalvingPruner(**self.model_dump(exclude={"name"}))

    def check(self, epochs: int, samples: int, unit: str = "epochs", where: str = "pruner") -> None:
        first = self.min_resource * self.reduction_factor**self.min_early_stopping_rate
        _require_less(f"{where}.min_resource: the epoch of the first rung", first, epochs, unit)
        _require_fewer(f"{where}.bootstrap_count", self.bootstrap_count, samples)


class Hyperband(Pruner):
    """Successive halving in brackets that start at different rungs (https://jmlr.org/papers/v18/16-558.html).

    Epochs are counted as by :class:`Halving`.

    Attributes:
        max_resource: epochs of the longest trial; by default of the longest in the cell.
        min_resource: epochs of the lowest rung.
        reduction_factor: of so many trials, one passes a rung.
        bootstrap_count: number of trials that must reach a rung before one passes it; these are stopped there.
    """

    name: Literal["hyperband"] = "hyperband"
    min_resource: int = Field(default=1, ge=1)
    max_resource: int | None = Field(default=None, ge=1)
    reduction_factor: int = Field(default=3, ge=2)
    bootstrap_count: int = Field(default=0, ge=0)

    def make(self, epochs: int) -> BasePruner:
        return HyperbandPruner(**{**self.model_dump(exclude={"name"}), "max_resource": self.max_resource or epochs})

    def check(self, epochs: int, samples: int, unit: str = "epochs", where: str = "pruner") -> None:
        _require_less(f"{where}.min_resource", self.min_resource, epochs, unit)
        if self.max_resource is not None and not self.min_resource <= self.max_resource <= epochs:
            raise UserError(
                f"{where}.max_resource is {self.max_resource}, but must lie between min_resource, "
                f"{self.min_resource}, and the {epochs} {unit} in which this trial may be stopped: leave it out"
            )
        _require_fewer(f"{where}.bootstrap_count", self.bootstrap_count, samples)


class Median(Pruner):
    """Stops a trial whose best value so far in its stage is worse than the median of complete trials at the same epoch.

    A stage of each level counts for itself. Epochs are counted as by :class:`Halving`.

    Attributes:
        n_startup_trials: number of complete, comparable trials that keep their bounds before any trial is stopped.
        n_warmup_steps: number of epochs before a trial may be stopped.
        interval_steps: epochs between two comparisons.
        n_min_trials: number of trials with a value at an epoch before it stops any.
    """

    name: Literal["median"] = "median"
    n_startup_trials: int = Field(default=5, ge=0)
    n_warmup_steps: int = Field(default=0, ge=0)
    interval_steps: int = Field(default=1, ge=1)
    n_min_trials: int = Field(default=1, ge=1)

    def make(self, epochs: int) -> BasePruner:
        return MedianPruner(**self.model_dump(exclude={"name"}))

    def check(self, epochs: int, samples: int, unit: str = "epochs", where: str = "pruner") -> None:
        _require_less(f"{where}.n_warmup_steps", self.n_warmup_steps, epochs, unit)
        _require_fewer(f"{where}.n_startup_trials", self.n_startup_trials, samples)
        _require_fewer(f"{where}.n_min_trials", self.n_min_trials, samples)


class Percentile(Median):
    """Like :class:`Median`, with another percentile than 50.

    Attributes:
        percentile: 25 keeps the best quarter.
    """

    name: Literal["percentile"] = "percentile"  # type: ignore[assignment]
    percentile: float = Field(gt=0, lt=100)

    def make(self, epochs: int) -> BasePruner:
        return PercentilePruner(**self.model_dump(exclude={"name"}))


class Patient(Pruner):
    """Stops only trials that have not improved for ``patience`` epochs of one stage and level.

    Attributes:
        patience: epochs without an improvement before a trial may be stopped.
        min_delta: smallest change that counts as an improvement.
        wrapped: pruner that decides about such a trial; None stops it.
    """

    name: Literal["patient"] = "patient"
    patience: int = Field(ge=0)
    min_delta: float = Field(default=0.0, ge=0)
    wrapped: Pruner | None = None

    @field_validator("wrapped", mode="before")
    @classmethod
    def _read_wrapped(cls, content: object) -> Pruner | None:
        return read_pruner(content, "pruner.wrapped")

    def make(self, epochs: int) -> BasePruner:
        wrapped = self.wrapped.make(epochs) if self.wrapped else None
        return PatientPruner(wrapped, self.patience, self.min_delta)

    def check(self, epochs: int, samples: int, unit: str = "epochs", where: str = "pruner") -> None:
        if self.patience >= epochs - 2:
            raise UserError(
                f"{where}.patience is {self.patience}, but must be less than {epochs - 2}: this trial may be stopped "
                f"in {epochs} {unit}, and {self.patience} of them without an improvement come after the first one"
            )
        if self.wrapped:
            self.wrapped.check(epochs, samples, unit, f"{where}.wrapped")

    def check_stage(self, steps: int, where: str = "pruner") -> None:
        if self.patience + 1 >= steps:
            raise UserError(
                f"{where}.patience is {self.patience}, but must be less than {steps - 1}: the longest stage of a level "
                f"has {steps} steps, and values of different stages or levels are not compared"
            )
        if self.wrapped:
            self.wrapped.check_stage(steps, f"{where}.wrapped")

    def document(self) -> str | dict[str, Any]:
        content = {"name": self.name, **self.model_dump(mode="json", exclude_defaults=True, exclude={"wrapped"})}
        return {**content, **({"wrapped": self.wrapped.document()} if self.wrapped else {})}


PRUNERS: dict[str, type[Pruner]] = {
    "halving": Halving,
    "hyperband": Hyperband,
    "median": Median,
    "patient": Patient,
    "percentile": Percentile,
}


def read_pruner(content: object, where: str = "pruner") -> Pruner | None:
    """Parse a pruner from a name, or from a mapping of ``name`` and options; null means no pruner.

    Raises:
        UserError: it is no valid pruner.
    """
    if content is None or isinstance(content, Pruner):
        return content
    return read_named_options(content, PRUNERS, where)


def stoppable_epochs(config: TrialConfig) -> int:
    """Return the guaranteed number of epochs in which a trial of this config may be stopped, its last one included."""
    method = METHODS[config.method](config)
    return sum(stage.planned_epochs for stage in method.stages() if stage.name in method.stoppable)


def check_stoppable(pruner: Pruner, config: TrialConfig, samples: int) -> None:
    """Check that this pruner can stop a trial of this config.

    Raises:
        UserError: its method has no stage that may be stopped, or it has too few epochs.
    """
    if not METHODS[config.method].stoppable:
        raise UserError(f"pruner is {pruner.name!r}, but {config.method} has no stage that may be stopped: remove it")
    pruner.check(stoppable_epochs(config), samples)


def _require_less(what: str, value: int, epochs: int, unit: str) -> None:
    if value >= epochs:
        raise UserError(f"{what} is {value}, but must be less than the {epochs} {unit} in which this trial may be "
                        "stopped: it could never be stopped")  # fmt: skip


def _require_fewer(what: str, value: int, samples: int) -> None:
    if value >= samples:
        raise UserError(f"{what} is {value}, but must be less than samples, which is {samples}: none would be stopped")
