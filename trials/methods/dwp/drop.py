"""One-shot pruning by a share of units to drop; shared by global and layer pruning."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Iterator
from dataclasses import replace
from typing import ClassVar

from pydantic import Field
from torch import Tensor, nn

from trials.config.source_config import StartsDense
from trials.config.trial_config import HasVariant, TrialConfig
from trials.data_header import DataHeader
from trials.errors import UserError, exact
from trials.methods.asked import AskedShare, share_of
from trials.methods.base import Method, Stage, TrainStage
from trials.methods.budgets import Budget, require_untied
from trials.methods.dense import dense_source
from trials.methods.magnitude.one_shot import FinetuneRecipe
from trials.methods.model_facts import ModelFacts, facts_of
from trials.sparsity import Masks, Pattern, prunable
from trials.sparsity.dropping import drop_count, shares
from trials.training.net import Net
from trials.training.stage_context import StageContext


class DropConfig(HasVariant, StartsDense):
    """How many units to drop, and the recipe afterwards.

    Only convolutions are pruned, including the first one and shortcuts; never Linear layers, norms or biases.

    Attributes:
        p_prune: share of units to drop, truncated to whole units. 1 is refused; the released code fails on it.
        finetune: recipe after pruning, under the mask; null does not finetune, as in the released code.
    """

    p_prune: float = Field(default=0.3, ge=0, lt=1)
    finetune: FinetuneRecipe | None = None

    @property
    @abstractmethod
    def unit(self) -> Pattern:
        """The pattern of a unit, which is dropped as a whole."""

    @property
    def nominal_ratio(self) -> float:
        """Expected share of units that are dropped."""
        return self.p_prune

    @property
    def per_layer(self) -> bool:
        """Whether every layer drops the share of its own units; otherwise all layers are ranked together."""
        return False

    @abstractmethod
    def scores(self, net: Net, weights: dict[str, Tensor], context: StageContext) -> dict[str, Tensor]:
        """Nonnegative scores by weight name, of the weights' shapes; the smallest are dropped."""

    @abstractmethod
    def masks(self, scores: dict[str, Tensor]) -> Masks:
        """Masks of what is kept, by weight name."""


def require_droppable(
    facts: ModelFacts, config: TrialConfig, p_prune: float, unit: Pattern, *, per_layer: bool = False
) -> None:
    """Check that the model has convolutions with their own weights, and that ``p_prune`` is a unit of them or more.

    Raises:
        UserError: it has none, or they share weights, or not even one unit would be dropped.
    """
    layers = facts.prunable(linear=False)
    if not layers:
        raise UserError(
            f"method is {config.method!r}, which prunes convolutions, but {config.model} has none: give another model "
            "or method"
        )
    require_untied(layers, config.model)
    units = Budget.dense(layers, unit).units
    dropped = sum(drop_count(p_prune, n) for n in (units if per_layer else [sum(units)]))
    variant: str = config.variant
    one_more = per_layer and variant == "original"  # of every layer
    if p_prune and not dropped and not one_more:
        raise UserError(
            f"p_prune is {exact(p_prune)}, but of {sum(units)} units ({unit.name}) none would be dropped: raise it"
        )


class DropThenTrain(TrainStage):
    """Finetuning that drops units on entry; every row reports the share of units, weights and parameters dropped."""

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
    """Base class: dense network theta -> mask m -> theta m -> optional finetuning under m."""

    config: DropConfig
    reports: ClassVar[tuple[str, ...]] = ("nominal_ratio", "unit_sparsity", "weight_sparsity", "parameter_sparsity")

    def asked(self, model: nn.Module, stage: Stage) -> tuple[AskedShare, ...]:
        p, share = self.config.nominal_ratio, self.config.p_prune
        weights = prunable(model, linear=False) or prunable(model)
        whole = share_of(weights, 1 - p, self.config.unit.name)
        slack = 2.0 * len(weights) if self.config.per_layer else 1.0
        if p < share:  # candidates are spared at random: five standard deviations of their number
            slack += 5 * math.sqrt(share * whole.units * (p / share) * (1 - p / share))
        return (replace(whole, slack=slack),)

    def source(self) -> TrialConfig | None:
        return dense_source(self.config)

    def check(self, model: nn.Module, data: DataHeader) -> None:
        config, facts = self.config, facts_of(model, data)
        require_droppable(facts, config, config.p_prune, config.unit, per_layer=config.per_layer)

    def stages(self) -> Iterator[Stage]:
        if self.config.finetune is None:
            yield DropThenTrain("prune", FinetuneRecipe(epochs=0), self.config)
        else:
            yield DropThenTrain("finetune", self.config.finetune, self.config)
