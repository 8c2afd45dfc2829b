"""Finetuning of a pruned checkpoint, as a trial of its own.

The third step of BiP's and HYDRA's released code (OPTML-Group/BiP at c51fc35, ``--exp-mode finetune --source-net
PRUNED``), with the recipe of its configs/*/finetune.yml:

    theta <- SGD(theta, m g)        g = dL/dz,  z = m theta,  m fixed

There the mask is made anew from the scores, with the ratio and layer type of the command line, so that another ratio
silently gives another mask. Here the mask is the file's, or that of ``source_mask``, which must be given.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any, Literal

from pydantic import model_validator
from torch import nn

from trials.called import trial_command
from trials.config.recipes import Recipe
from trials.config.source_config import HasSource
from trials.config.trial_config import HasVariant
from trials.data_header import DataHeader
from trials.methods.asked import AskedShare, share_of
from trials.methods.base import Method, Stage, TrainStage, mutable_of
from trials.methods.bip.scored import released_schedules
from trials.methods.budgets import require_untied
from trials.methods.model_facts import facts_of
from trials.sparsity import prunable


class FinetuneConfig(HasVariant, HasSource):
    """Train the network of ``source_net``, pruned or dense, under its own mask.

    ``variant: original`` has the released code's learning rates, which are one epoch late.

    Attributes:
        zeros: what weights of convolutions and linear layers that are exactly 0 mean in a file without a mask, such as
            ``python -m trials export`` writes: ``masked`` weights stay 0, ``trained`` ones are weights like any other.
        finetune: recipe; by default that of the released configs: 100 epochs, learning rate 0.1 with a cosine, weight
            decay 5e-4, batches of 128.
    """

    method: Literal["finetune"] = "finetune"
    zeros: Literal["masked", "trained"] = "masked"
    finetune: Recipe = Recipe()

    @property
    def masks_zeros(self) -> bool:
        return self.zeros == "masked"

    @model_validator(mode="before")
    @classmethod
    def _as_released(cls, content: Any) -> Any:
        if not isinstance(content, Mapping):
            return content
        if "pretrain" in content:
            raise ValueError(
                "pretrain is given, but method finetune trains nothing before: name the network as source_net and "
                "leave pretrain out, or use a method that prunes"
            )
        return released_schedules(content, ("finetune",)) if content.get("variant") == "original" else content

    @model_validator(mode="after")
    def _starts_from_something(self) -> FinetuneConfig:
        if self.source_net is None:
            raise ValueError(
                "source_net is missing, but method finetune goes on from a network: name a file of weights (what "
                f"{trial_command()} export TRIAL --to FILE --form prune writes), or use a method that prunes"
            )
        return self


class FinetuneStage(TrainStage):
    """SGD under the file's mask. The row of epoch 0 reports the network as the file has it."""

    changes_network = True


class FinetuneMethod(Method):
    """A network from a file -> finetuning under its mask; its density does not change."""

    Config = FinetuneConfig
    mutable = mutable_of("finetune")
    config: FinetuneConfig
    stoppable = ("finetune",)
    takes_masks = True
    takes_compact = True

    def asked(self, model: nn.Module, stage: Stage) -> tuple[AskedShare, ...]:
        return (replace(share_of(prunable(model), 1.0, slack=0.0), of_start=True),)

    def check(self, model: nn.Module, data: DataHeader) -> None:
        require_untied(facts_of(model, data).layers, self.config.model)

    def stages(self) -> Iterator[Stage]:
        yield FinetuneStage("finetune", self.config.finetune)
