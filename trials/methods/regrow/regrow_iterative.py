"""Iterative regrowth from high sparsity; a controller chooses the budget of every level.

https://arxiv.org/abs/2511.11675; released code: EnumaCaliber/Bidirection-Prune-Regrowth at b40cb9f.

    sparse network: prune_iterative, in many levels
    in each of ``rounds``, while sparsity > target_sparsity:
        targets:     the layers with the lowest SSIM between dense and sparse features
        controller:  K = f N, f one of the budget choices; then c_l per layer
        reward:      accuracy - accuracy of pruning alone at that sparsity, interpolated between the pruning levels
        continue from the best episode's network, with its finetuned weights

Every share and every sparsity here is of the config's ``unit``: of weights, or of filters of convolutions.

For a fixed budget or allocation by a rule, use ``regrow`` with several rounds.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal

import numpy as np
import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from trials.config.trial_config import TrialConfig
from trials.data_header import DataHeader
from trials.errors import UserError, exact, listed
from trials.methods.asked import AskedShare, share_of
from trials.methods.base import Method, Stage
from trials.methods.regrow.allocate_stage import AllocatingConfig, Regrow
from trials.methods.regrow.episodes import Episode, EpisodeOutcome, run_episode
from trials.methods.regrow.finetuning import FinetuneRegrown
from trials.methods.regrow.growth import SparseRecipe, SparseSource, require_reference
from trials.methods.regrow.regrow import FullRecipe
from trials.methods.regrow.room import require_episodes, room_of
from trials.regrowth.controller import ControllerConfig
from trials.regrowth.curve import interpolated
from trials.regrowth.layer_signals import weight_name
from trials.sparsity import PATTERNS, prunable
from trials.training.net import Batch, Net

MARGIN = 0.001
"""The target counts as reached within this sparsity above it (0.1 percentage points)."""

PRUNING = ("pretrain", "prune")
"""Stages whose last rows give the accuracy of pruning alone, by sparsity."""


class RoundRecipe(SparseRecipe):
    """Finetuning after each level of pruning: 40 epochs, no early stop."""

    epochs: int = Field(default=40, ge=0)
    patience: int | None = Field(default=None, ge=1)


class FarSource(SparseSource):
    """15 levels of 30 %, each with 40 epochs of finetuning: density 0.005."""

    levels: int = Field(default=15, ge=1)
    prune_fraction: float = Field(default=0.3, gt=0, lt=1)
    finetune: RoundRecipe = RoundRecipe()


class PatientConfig(ControllerConfig):
    """300 episodes; stops after 40 without improvement, or once the rewards' standard deviation is below ``spread``."""

    episodes: int = Field(default=300, ge=1)
    patience: int | None = Field(default=40, ge=1)
    spread: float | None = Field(default=0.002, gt=0)


class RegrowIterativeConfig(AllocatingConfig):
    """Regrow in up to ``rounds`` levels, until sparsity falls to ``target_sparsity``.

    Attributes:
        rounds: largest number of levels.
        target_sparsity: share of all weights (with ``unit: filter``, of all filters) that may stay pruned.
        budget_min, budget_max: smallest and largest share of all weights (or filters) that a level may regrow.
        budget_choices: number of equally spaced shares that the controller chooses from.
        finetune: recipe after the last level; null keeps the network as the episodes finetuned it.
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

    @property
    def revision(self) -> int:
        return 2 if self.unit == "filter" else super().revision

    @property
    def revised_because(self) -> str:
        if self.unit != "filter":
            return super().revised_because
        return "its reward compared the accuracy at a sparsity of filters with pruning's at a sparsity of weights"


def sparsity_of_filters(
    layers: Iterable[Mapping[str, Any]], masks: Mapping[str, Tensor]
) -> dict[tuple[str, int], float]:
    """Return the share of pruned filters at the end of every stage and level, from rows of the table ``layers``.

    Only the layers that have masks [O, I, kh, kw] count, of which whole filters were pruned.
    """
    ends: dict[tuple[str, int], tuple[int, int]] = {}
    for row in layers:
        mask = masks.get(weight_name(row["layer"]))
        if mask is not None:
            kept, total = ends.get((row["stage"], row["level"]), (0, 0))
            size = mask[0].numel()
            ends[row["stage"], row["level"]] = (kept + row["kept"] // size, total + row["total"] // size)
    return {key: 1 - kept / total for key, (kept, total) in ends.items()}


class RegrowDeciding(Regrow):
    """One level: choose budget and allocation, then continue from the best episode's network."""

    config: RegrowIterativeConfig

    def fractions(self) -> Sequence[float]:
        config = self.config
        found: list[float] = np.linspace(config.budget_min, config.budget_max, config.budget_choices).tolist()
        return found

    def step(self, *batches: Batch) -> tuple[Tensor, Tensor]:
        if self.sparsity(0) <= self.config.target_sparsity + MARGIN:
            self.finished = True
            nothing = torch.zeros((), device=self.net.device)
            return nothing, nothing.long()
        return super().step(*batches)

    def reward(self, outcome: EpisodeOutcome, counts: Sequence[int]) -> float:
        return outcome.accuracy - interpolated(self._curve(), self.sparsity(sum(counts)))

    def _curve(self) -> list[tuple[float, float]]:
        """(sparsity, validation accuracy) at the end of dense training and of every level of pruning.

        The sparsity is of the config's unit, as everywhere in this stage; rows of epochs count weights.
        """
        ends = {(row["stage"], row["level"]): row for row in self.context.rows["epochs"] if row["stage"] in PRUNING}
        found = {key: row["sparsity"] for key, row in ends.items()}
        if self.config.unit == "filter":
            found |= sparsity_of_filters(self.context.rows["layers"], self.net.masks)
        return [(found[key], row["val_accuracy"]) for key, row in ends.items()]

    def settle(self, net: Net, episode: Episode) -> None:
        """Run the best episode again and keep its finetuned network."""
        again = run_episode(self.where(), episode, lambda: False, keep=True)
        assert again.model is not None
        net.work.add(again.gradient_evaluations)
        net.model.load_state_dict(again.model)


class RegrowIterative(Method):
    """Iterative regrowth; every level continues from the network of the one before."""

    Config = RegrowIterativeConfig
    config: RegrowIterativeConfig

    def source(self) -> TrialConfig | None:
        return self.config.sparse_config()

    def check_trials(self, model: nn.Module) -> None:
        require_reference(self.config, model)

    def asked(self, model: nn.Module, stage: Stage) -> tuple[AskedShare, ...]:
        """The target, which the last level must have reached, and may have passed by less than one budget."""
        config = self.config
        if stage.level < config.rounds:
            return ()
        weights = prunable(model, linear=PATTERNS[config.unit].linear) or prunable(model)
        whole = share_of(weights, 1 - config.target_sparsity, config.unit)
        return (replace(whole, slack=max(config.budget_max, MARGIN) * whole.units + 1),)

    def check(self, model: nn.Module, data: DataHeader) -> None:
        config, room = self.config, room_of(self.config, model, data)
        require_episodes(config, model, data)
        sparsity = room.pruned / room.units
        if sparsity <= config.target_sparsity + MARGIN:
            raise UserError(
                f"target_sparsity is {exact(config.target_sparsity)}, but prune leaves a sparsity of {sparsity:.4g}, "
                "so nothing would be regrown: prune more, or give a lower target"
            )
        if not room.most:
            raise UserError(f"layers are {listed(room.targets)}, where nothing was pruned: give other layers")
        most = min(config.rounds * int(round(config.budget_max * room.units, 6)), room.most)
        lowest = sparsity - most / room.units
        if lowest > config.target_sparsity + max(config.budget_max, MARGIN):
            raise UserError(
                f"target_sparsity is {exact(config.target_sparsity)}, but {config.rounds} rounds of at most "
                f"{exact(config.budget_max)} lower the sparsity from {sparsity:.4g} to {lowest:.4g} only: give more "
                "rounds, a larger budget_max, or a higher target"
            )

    def stages(self) -> Iterator[Stage]:
        for level in range(1, self.config.rounds + 1):
            yield RegrowDeciding(self.config, level)
        if self.config.finetune is not None:
            yield FinetuneRegrown("finetune", self.config.finetune, level=self.config.rounds)
