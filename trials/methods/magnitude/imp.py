"""Iterative magnitude pruning with rewinding (lottery tickets).

    theta <- dense training
    for each level:
        m     <- m without the prune_fraction lowest-scored of the kept weights
        theta <- theta of epoch rewind_epoch            rewind: weights
        train m theta

Frankle & Carbin 2019 (https://arxiv.org/abs/1803.03635) rewind to initialisation, Frankle et al. 2020
(https://arxiv.org/abs/1912.05671) to an early epoch. Renda et al. 2020 (https://arxiv.org/abs/2003.02389) compare this
with rewinding only the learning rate and with finetuning.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence
from dataclasses import replace
from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator
from torch import nn

from trials.config.recipes import Recipe, one_of
from trials.config.schedules import SCHEDULES
from trials.config.trial_config import TrialConfig
from trials.data_header import DataHeader
from trials.errors import UserError, exact
from trials.methods.asked import AskedShare
from trials.methods.base import Method, Stage, TrainStage
from trials.methods.budgets import Budget, LeftLayer, Shaped, require_fewer, require_left
from trials.methods.dense import dense_source
from trials.methods.magnitude.one_shot import FinetuneRecipe, PruningConfig
from trials.methods.rounding import NamedShape, with_pattern
from trials.sparsity import PATTERNS
from trials.training.net import Net


class TrainOnRecipe(FinetuneRecipe):
    """Recipe of a level with ``rewind: none``: finetuning at a constant learning rate."""

    schedule: Annotated[str, one_of(SCHEDULES)] = "constant"


class ImpConfig(PruningConfig):
    """Prune in ``levels`` levels, each keeping 1 - ``prune_fraction`` of the remaining weights.

    Attributes:
        levels: number of rounds of pruning and training.
        prune_fraction: share of the remaining weights that a level removes.
        rewind: what to reset after pruning. ``weights``: weights and learning rate, to epoch ``rewind_epoch`` (0 is
            initialisation). ``learning_rate``: only the learning rate. ``none``: neither; train with ``finetune``.
        rewind_epoch: epoch of the dense training that weights or learning rate are rewound to; 0 is its start.
        finetune: recipe of a level with ``rewind: none``.
    """

    method: Literal["imp"] = "imp"
    levels: int = Field(default=21, ge=1)
    prune_fraction: float = Field(default=0.2, gt=0, lt=1)
    rewind: Literal["weights", "learning_rate", "none"] = "weights"
    rewind_epoch: int = Field(default=0, ge=0)
    finetune: TrainOnRecipe = TrainOnRecipe()

    @property
    def decides_budgets(self) -> tuple[Hashable, ...]:
        return self.levels, self.prune_fraction, self.distribution, self.pattern

    def levels_of(self, layers: Sequence[NamedShape]) -> Iterator[Budget]:
        chosen, budget = with_pattern(layers, self.pattern), Budget.dense(layers, PATTERNS[self.pattern])
        for _ in range(self.levels if chosen else 0):
            budget = budget.pruned(chosen, self.distribution, self.share(self.prune_fraction), self.count)
            yield budget

    @field_validator("pattern")
    @classmethod
    def _only_weights(cls, value: str) -> str:
        if value != "weight":
            raise ValueError(f"pattern is {value!r}, but imp prunes pattern 'weight' only: use one_shot for groups")
        return value

    @model_validator(mode="after")
    def _rewind_within_training(self) -> ImpConfig:
        epochs = self.pretrain.all_epochs
        if self.rewind_epoch and self.rewind_epoch >= epochs:
            raise ValueError(f"rewind_epoch is {self.rewind_epoch}, but must be less than pretrain's {epochs} epochs")
        if self.source_net and self.rewind == "weights":
            raise ValueError(f"source_net is {self.source_net!r}, but holds no early weights: rewind the learning_rate")
        if self.rewind == "none" and self.rewind_epoch:
            raise ValueError(f"rewind_epoch is {self.rewind_epoch}, but rewind is 'none': leave rewind_epoch out")
        return self


class ImpLevel(TrainStage):
    """One level: prune the remaining weights, rewind, train."""

    changes_network = True

    def __init__(self, config: ImpConfig, level: int) -> None:
        recipe: Recipe = config.finetune if config.rewind == "none" else config.pretrain
        super().__init__("train", recipe, level=level, first_epoch=config.rewind_epoch)
        self.config = config

    def enter(self, net: Net) -> None:
        # scores come from the trained weights, so the masks are built before rewinding
        net.set_masks(self.config.masks(net, self.config.share(self.config.prune_fraction), self.level))
        if self.config.rewind == "weights":
            net.restore(f"epoch-{self.config.rewind_epoch}")


class Imp(Method):
    """Iterative magnitude pruning; level l keeps (1 - prune_fraction)^l of the weights, level 0 all of them."""

    Config = ImpConfig
    config: ImpConfig
    prunes = ("weight",)
    takes_masks = True
    takes_compact = True
    stoppable = ("train",)

    def source(self) -> TrialConfig | None:
        early = (self.config.rewind_epoch,) if self.config.rewind == "weights" and self.config.rewind_epoch else ()
        return dense_source(self.config, early)

    def asked(self, model: nn.Module, stage: Stage) -> tuple[AskedShare, ...]:
        fraction = self.config.prune_fraction
        rounds = min(stage.level, 1 / fraction)  # an error of rounding shrinks with every later level
        share = self.config.asked_share(model, (1 - fraction) ** stage.level, rounds)
        return (replace(share, of_start=True),)

    def check(self, model: nn.Module, data: DataHeader) -> None:
        config = self.config
        layers = config.layers(model, data)
        if not config.file_starts:
            self._check_levels(layers, Budget.dense(layers, PATTERNS[config.pattern]))

    def check_left(self, layers: Sequence[LeftLayer]) -> None:
        self._check_levels(layers, Budget.left(layers, PATTERNS[self.config.pattern]))

    def _check_levels(self, layers: Sequence[Shaped], start: Budget) -> None:
        config, budget = self.config, start
        for level in range(1, config.levels + 1):
            asked = f"prune_fraction is {exact(config.prune_fraction)} at level {level} of {config.levels}"
            before = budget
            try:
                share = config.share(config.prune_fraction)
                budget = before.pruned(layers, config.distribution, share, config.count)
            except UserError as error:
                raise UserError(f"{asked}, but {error}, or for fewer levels") from None
            require_left(budget, layers, config.pattern, asked, before=start)
            require_fewer(budget, before, config.pattern, asked)

    @property
    def reads_initial_values(self) -> bool:
        return self.config.rewind == "weights" and self.config.rewind_epoch == 0

    def initialised(self, net: Net) -> None:
        if self.reads_initial_values:
            net.snapshot("epoch-0")

    def stages(self) -> Iterator[Stage]:
        for level in range(1, self.config.levels + 1):
            yield ImpLevel(self.config, level)
