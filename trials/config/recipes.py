"""Recipes: how a stage trains (batch size, optimiser settings and learning rate by epoch)."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import AfterValidator, BeforeValidator, Field, ValidationInfo, model_validator

from trials.config.schedules import SCHEDULES, PiecewiseConstant, Schedule, read_lr_steps
from trials.errors import UserError, unknown_name
from trials.frozen import Frozen
from trials.registry import Registry


@dataclass(frozen=True, eq=False)
class OneOf:
    """A pydantic validator: the value must be in ``registry`` at the time a config is read.

    What a :class:`~trials.registry.Registry` finds as ``module:attribute`` must lie under the ``plugins`` of the same
    config, if it has that field.
    """

    registry: Collection[str]

    def __call__(self, value: str, info: ValidationInfo) -> str:
        if isinstance(self.registry, Registry):
            try:
                self.registry.require(value, str(info.field_name), (info.data or {}).get("plugins"))
            except UserError as error:
                raise ValueError(str(error)) from None
        elif value not in self.registry:
            raise ValueError(unknown_name(str(info.field_name), value, self.registry))
        return value


def one_of(registry: Collection[str]) -> AfterValidator:
    """Return a pydantic validator for annotations, :class:`OneOf` of ``registry``."""
    return AfterValidator(OneOf(registry))


RATES = ("lr", "schedule", "warmup_epochs", "warmup_lr")
"""Fields that define a recipe's learning rate; they must keep their defaults if ``lr_steps`` is set."""


class BackwardConfig(Frozen):
    """Backward-only pruning (:mod:`trials.sparsity.backward`): dL/dx is computed with pruned weights.

    Attributes:
        p_prune: share of units that are candidates: the smallest ones, ranked over all convolutions together.
        p_bern: probability that a candidate is pruned; drawn at every forward pass.
        pattern: the unit of pruning. The released code and the paper prune single weights.
        linear: whether Linear layers are pruned too; in the released code they never are. Requires pattern ``weight``.
        refresh_every: training forward passes between two selections of candidates. 0: only the first pass selects, as
            in the released code, and the candidates become outdated as the weights change.
    """

    p_prune: float = Field(default=0.3, ge=0, lt=1)
    p_bern: float = Field(default=1.0, ge=0, le=1)
    pattern: Literal["weight", "kernel", "kernel_mean", "filter_l1"] = "weight"
    linear: bool = False
    refresh_every: int = Field(default=100, ge=0)

    @model_validator(mode="after")
    def _linear_has_weights_only(self) -> BackwardConfig:
        if self.linear and self.pattern != "weight":
            raise ValueError(f"linear is true, but Linear layers have no pattern {self.pattern!r}: use 'weight'")
        return self


class OpenRecipe(Frozen):
    """Recipe of a stage that decides itself when to stop: SGD with momentum at a constant learning rate.

    Attributes:
        batch_size: images per step; the last batch of an epoch may have fewer.
        lr: learning rate; with a schedule, its highest.
        momentum: of SGD.
        weight_decay: added to the gradient, times the weight.
        backward: settings of backward-only pruning; null for ordinary backward passes.
    """

    batch_size: int = Field(default=128, ge=1)
    lr: float = Field(default=0.1, gt=0)
    momentum: float = Field(default=0.9, ge=0, lt=1)
    weight_decay: float = Field(default=5e-4, ge=0)
    backward: BackwardConfig | None = None

    @property
    def all_epochs(self) -> float:
        """Number of epochs of the stage; infinity if the stage decides itself when to stop."""
        return math.inf

    def lr_schedule(self) -> Callable[[int], float]:
        """The learning rate as a function of the epoch (0-based)."""
        return lambda epoch: self.lr


class Recipe(OpenRecipe):
    """Recipe of a stage with a fixed number of epochs: SGD with momentum, learning rate set at each epoch's start.

    Attributes:
        epochs: number of epochs, without those of the warm-up.
        schedule: how the learning rate falls over the epochs.
        warmup_epochs: epochs at ``warmup_lr`` before the others.
        warmup_lr: learning rate of the warm-up.
        lr_steps: (first epoch, learning rate) pairs, replacing ``lr``, ``schedule`` and the warm-up. Also accepted in
            the form of GReg's command line: ``0:0.1,100:0.01,150:0.001``.
    """

    epochs: int = Field(default=100, ge=0)
    schedule: Annotated[str, one_of(SCHEDULES)] = "cosine"
    warmup_epochs: int = Field(default=0, ge=0)
    warmup_lr: float = Field(default=0.1, gt=0)
    lr_steps: Annotated[tuple[tuple[int, float], ...] | None, BeforeValidator(read_lr_steps)] = None

    @model_validator(mode="after")
    def _one_source_of_rates(self) -> Recipe:
        for name in RATES if self.lr_steps is not None else ():
            value = getattr(self, name)
            if value != type(self).model_fields[name].default:
                raise ValueError(f"{name} is {value!r}, but lr_steps sets every rate: leave one of them out")
        return self

    @property
    def all_epochs(self) -> float:
        return self.epochs + self.warmup_epochs

    def lr_schedule(self) -> Callable[[int], float]:
        """The learning rate as a function of the epoch (0-based)."""
        if self.lr_steps is not None:
            return PiecewiseConstant(self.lr_steps)
        return Schedule(self.schedule, self.lr, self.epochs, self.warmup_epochs, self.warmup_lr)


class PretrainRecipe(Recipe):
    """Recipe of dense training: 200 epochs, as in the config that BiP ships (https://arxiv.org/abs/2210.04092).

    Attributes:
        epochs: number of epochs of dense training.
        patience: stop after this many epochs without a better validation accuracy, and end with the network of the best
            epoch; null trains all epochs and ends with the last. The learning rate keeps to the schedule of ``epochs``.
    """

    epochs: int = Field(default=200, ge=0)
    patience: int | None = Field(default=None, ge=1)
