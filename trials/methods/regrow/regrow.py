"""Regrowth: prune to high sparsity, regrow the most important weights, finetune.

https://arxiv.org/abs/2511.11675; released code: EnumaCaliber/Bidirection-Prune-Regrowth at b40cb9f.

sparse network: prune_iterative, as ``prune`` says
in each of ``rounds``:
    c_l   <- divide K = regrow_fraction N over the layers          allocation
    m_l   <- m_l with c_l of its pruned weights kept again         selection
    theta <- initial values for these weights                      initial
    finetune, the best epoch kept
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import Field
from torch import nn

from trials.config.recipes import one_of
from trials.config.trial_config import TrialConfig
from trials.data_header import DataHeader
from trials.errors import UserError, exact, listed
from trials.methods.asked import AskedShare
from trials.methods.base import Method, Stage
from trials.methods.regrow.allocate_stage import AllocatingConfig, Regrow
from trials.methods.regrow.finetuning import FinetuneRegrown, RegrownRecipe
from trials.methods.regrow.growth import require_reference
from trials.methods.regrow.room import require_episodes, room_of


class FullRecipe(RegrownRecipe):
    """400 epochs, stopped after 50 without improvement; linear warm-up over 5 % of the steps, then cosine decay."""

    epochs: int = Field(default=400, ge=0)
    schedule: Annotated[str, one_of(("constant", "cosine"))] = "cosine"
    warmup_share: float = Field(default=0.05, ge=0, lt=1)
    patience: int | None = Field(default=50, ge=1)


class RegrowConfig(AllocatingConfig):
    """Regrow ``regrow_fraction`` of all prunable weights and finetune, ``rounds`` times.

    Attributes:
        rounds: number of regrowths, each followed by finetuning.
        regrow_fraction: share of all prunable weights that a round regrows.
        finetune: recipe after each regrowth; null leaves the network as regrown.
    """

    method: Literal["regrow"] = "regrow"
    rounds: int = Field(default=1, ge=1)
    regrow_fraction: float = Field(default=0.01, gt=0, lt=1)
    finetune: FullRecipe | None = FullRecipe()


class RegrowMethod(Method):
    """Regrowth in levels: level r has r regrow_fraction N more weights than the sparse network."""

    Config = RegrowConfig
    config: RegrowConfig

    def source(self) -> TrialConfig | None:
        return self.config.sparse_config()

    def check_trials(self, model: nn.Module) -> None:
        require_reference(self.config, model)

    def asked(self, model: nn.Module, stage: Stage) -> tuple[AskedShare, ...]:
        sparse, grown = self.config.sparse_config(), stage.level
        return (sparse.asked_share(model, sparse.levels, grown * self.config.regrow_fraction, grown),)

    def check(self, model: nn.Module, data: DataHeader) -> None:
        config, room = self.config, room_of(self.config, model, data)
        if config.allocation == "controller":
            require_episodes(config, model, data)
        budget = int(round(config.regrow_fraction * room.units, 6))
        asked = f"regrow_fraction is {exact(config.regrow_fraction)}"
        if not budget:
            raise UserError(f"{asked}, but must regrow at least one of {room.units} {room.unit}s: raise it")
        if not room.most:
            raise UserError(f"{asked}, but nothing was pruned in {listed(room.targets)}: give other layers")
        if config.variant == "corrected" and (config.rounds - 1) * budget >= room.most:
            raise UserError(
                f"rounds is {config.rounds}, each of {budget} {room.unit}s, but only {room.most} were pruned, so the "
                "last round has nothing to regrow: give fewer rounds or a smaller regrow_fraction"
            )

    def stages(self) -> Iterator[Stage]:
        for level in range(1, self.config.rounds + 1):
            yield Regrow(self.config, level, fraction=self.config.regrow_fraction)
            if self.config.finetune is not None:
                yield FinetuneRegrown("finetune", self.config.finetune, level=level)
