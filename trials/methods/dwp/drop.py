"""Pruning a dense network once, by a share of units to drop: what global and layer pruning have in common."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator
from typing import ClassVar

from pydantic import Field
from torch import Tensor

from trials.config.trial_config import HasVariant, StartsDense, TrialConfig
from trials.methods.base import Method, Stage, TrainStage
from trials.methods.dense import dense_source
from trials.methods.magnitude.one_shot import FinetuneRecipe
from trials.sparsity import Masks, Pattern, prunable
from trials.sparsity.dropping import drop_count, shares
from trials.training.net import Net
from trials.training.stage_context import StageContext


class DropConfig(HasVariant, StartsDense):
    """How much to drop, and what follows.

    Only convolutions are pruned, the first one and shortcuts included; Linear layers, norms and biases never.

    Attributes:
        p_prune: the share of units that go, truncated to whole units. 1 is refused (the released code fails on it).
        finetune: after pruning, under the mask; null, as in the released code, leaves it at pruning.
    """

    p_prune: float = Field(default=0.3, ge=0, lt=1)
    finetune: FinetuneRecipe | None = None

    @property
    @abstractmethod
    def unit(self) -> Pattern:
        """What is dropped as one."""

    @property
    def nominal_ratio(self) -> float:
        """The share of units expected to go."""
        return self.p_prune

    @property
    def per_layer(self) -> bool:
        """Whether every layer drops its share, or all of them together."""
        return False

    @abstractmethod
    def scores(self, net: Net, weights: dict[str, Tensor], context: StageContext) -> dict[str, Tensor]:
        """Scores of the weights' shapes, not negative; the smallest go."""

    @abstractmethod
    def masks(self, scores: dict[str, Tensor]) -> Masks:
        """What stays."""


class DropThenTrain(TrainStage):
    """Finetuning whose entry drops units; every row says what share of what is gone."""

    changes_network = True

    def __init__(self, name: str, recipe: FinetuneRecipe, config: DropConfig) -> None:
        super().__init__(name, recipe)
        self.config = config

    def observe(self, net: Net) -> None:
        self.scores = self.config.scores(net, prunable(net.model, linear=False), self.context)

    def enter(self, net: Net) -> None:
        net.set_masks(self.config.masks(self.scores))
        del self.scores

    def attach(self, net: Net) -> None:
        super().attach(net)
        unit, p = self.config.unit, self.config.p_prune
        units = [unit.unit_scores(mask.float()).numel() for mask in net.masks.values()]
        pools = units if self.config.per_layer else [sum(units)]
        measured = shares(net.model, net.masks, unit)
        self.shares = {
            "nominal_ratio": self.config.nominal_ratio,
            "units": float(sum(units)),
            "candidate_units": float(sum(drop_count(p, n) for n in pools)),
            **measured,
        }

    def columns(self) -> dict[str, float]:
        return {**super().columns(), **self.shares}


class Drop(Method):
    """theta -> m -> theta m, and finetuning under m if wanted."""

    config: DropConfig
    reports: ClassVar[tuple[str, ...]] = ("nominal_ratio", "unit_sparsity", "weight_sparsity", "parameter_sparsity")

    def source(self) -> TrialConfig | None:
        return dense_source(self.config)

    def stages(self) -> Iterator[Stage]:
        if self.config.finetune is None:
            yield DropThenTrain("prune", FinetuneRecipe(epochs=0), self.config)
        else:
            yield DropThenTrain("finetune", self.config.finetune, self.config)
