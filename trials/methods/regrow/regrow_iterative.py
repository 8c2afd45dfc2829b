"""Regrow in steps from far below, the budget of each step decided by the controller (https://arxiv.org/abs/2511.11675).

    sparse network: prune_iterative, in many rounds
    in each of ``rounds``, while sparsity > target_sparsity:
        the layers least like their dense selves
        controller:  K = f N,  f in budgets;  then c_l per layer
        reward       accuracy - what pruning alone has at that sparsity    interpolated between the rounds of pruning
        the network of the best episode, as its mini-finetuning left it

Rules instead of a controller, and a given budget, are ``regrow`` with several rounds.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Literal

import numpy as np
import torch
from pydantic import Field, model_validator
from torch import Tensor

from trials.config.trial_config import TrialConfig
from trials.methods.base import Method, Stage
from trials.methods.regrow.allocate_stage import AllocatingConfig, Regrow
from trials.methods.regrow.episodes import Episode, EpisodeOutcome, run_episode
from trials.methods.regrow.finetuning import FinetuneRegrown
from trials.methods.regrow.growth import SparseRecipe, SparseSource
from trials.methods.regrow.regrow import FullRecipe
from trials.regrowth.controller import ControllerConfig
from trials.regrowth.curve import interpolated
from trials.training.net import Batch, Net

MARGIN = 0.001
"""A sparsity this close to the target is there."""

PRUNING = ("pretrain", "prune")
"""The stages whose ends are the curve of pruning alone."""


class RoundRecipe(SparseRecipe):
    """Finetuning between rounds: 40 epochs."""

    epochs: int = Field(default=40, ge=0)
    patience: int | None = Field(default=None, ge=1)


class FarSource(SparseSource):
    """15 rounds of 30 %, each with 40 epochs of finetuning: 0.5 % of the weights are left."""

    levels: int = Field(default=15, ge=1)
    prune_fraction: float = Field(default=0.3, gt=0, lt=1)
    finetune: RoundRecipe = RoundRecipe()


class PatientConfig(ControllerConfig):
    """300 episodes, or 40 without a better one, or as soon as rewards differ no more."""

    episodes: int = Field(default=300, ge=1)
    patience: int | None = Field(default=40, ge=1)
    spread: float | None = Field(default=0.002, gt=0)


class RegrowIterativeConfig(AllocatingConfig):
    """Up to ``rounds`` regrowths towards ``target_sparsity``.

    Attributes:
        budget_min, budget_max: the smallest and the largest share of all weights that a round may bring back.
        budget_choices: so many shares, equally far apart, to decide between.
        finetune: after the last round; null leaves it at the mini-finetunings.
    """

    method: Literal["regrow_iterative"] = "regrow_iterative"
    prune: FarSource = FarSource()
    ssim_threshold: float | None = 0.3
    allocation: Literal["controller"] = "controller"
    controller: PatientConfig = PatientConfig()
    rounds: int = Field(default=5, ge=1)
    target_sparsity: float = Field(default=0.97, ge=0, lt=1)
    budget_min: float = Field(default=0.001, gt=0, lt=1)
    budget_max: float = Field(default=0.005, gt=0, lt=1)
    budget_choices: int = Field(default=5, ge=1)
    finetune: FullRecipe | None = None

    @model_validator(mode="after")
    def _budgets_in_order(self) -> RegrowIterativeConfig:
        if self.budget_max < self.budget_min:
            raise ValueError(f"budget_max is {self.budget_max}, but must be at least budget_min, {self.budget_min}")
        return self


class RegrowDeciding(Regrow):
    """One round: how much, where, and on from the best episode's network."""

    config: RegrowIterativeConfig

    def fractions(self) -> Sequence[float]:
        config = self.config
        found: list[float] = np.linspace(config.budget_min, config.budget_max, config.budget_choices).tolist()
        return found

    def step(self, *batches: Batch) -> tuple[Tensor, Tensor]:
        if self._sparsity(0) <= self.config.target_sparsity + MARGIN:
            self.finished = True
            nothing = torch.zeros((), device=self.net.device)
            return nothing, nothing.long()
        return super().step(*batches)

    def _sparsity(self, more: int) -> float:
        """With ``more`` weights than there are now."""
        return (self.pruned - more) / self.total

    def reward(self, outcome: EpisodeOutcome, counts: Sequence[int]) -> float:
        return outcome.accuracy - interpolated(self._curve(), self._sparsity(sum(counts)))

    def _curve(self) -> list[tuple[float, float]]:
        """(sparsity, validation accuracy) of the dense network and of every round of pruning, as each ended."""
        ends = {(row["stage"], row["level"]): row for row in self.context.rows["epochs"] if row["stage"] in PRUNING}
        return [(row["sparsity"], row["val_accuracy"]) for row in ends.values()]

    def settle(self, net: Net, episode: Episode) -> None:
        """The best episode once more, and its network kept."""
        again = run_episode(self.where(), episode, lambda: False, keep=True)
        assert again.model is not None
        net.model.load_state_dict(again.model)


class RegrowIterative(Method):
    """Every round continues from the one before."""

    Config = RegrowIterativeConfig
    config: RegrowIterativeConfig

    def source(self) -> TrialConfig | None:
        return self.config.sparse_config()

    def stages(self) -> Iterator[Stage]:
        for level in range(1, self.config.rounds + 1):
            yield RegrowDeciding(self.config, level)
        if self.config.finetune is not None:
            yield FinetuneRegrown("finetune", self.config.finetune, level=self.config.rounds)
