"""One-shot pruning: train, remove the least important units at once, finetune.

Han et al. 2015, https://arxiv.org/abs/1506.02626.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import Field
from torch import nn

from trials.config.recipes import Recipe, one_of
from trials.config.trial_config import StartsDense, TrialConfig
from trials.data_header import DataHeader
from trials.methods.base import Method, Stage, TrainStage, generator_for, mutable_of
from trials.methods.budgets import Budget, layers_with, require_left, require_untied
from trials.methods.dense import dense_source
from trials.methods.model_facts import LayerFacts, facts_of
from trials.sparsity import DISTRIBUTIONS, PATTERNS, SCORES, Masks, build_masks, prunable
from trials.training.net import Net


class FinetuneRecipe(Recipe):
    """Finetuning: 40 epochs, starting from a tenth of the training learning rate."""

    epochs: int = Field(default=40, ge=0)
    lr: float = Field(default=0.01, gt=0)


class PruningConfig(StartsDense):
    """Which weights to remove: score x distribution x pattern, see trials/sparsity/."""

    score: Annotated[str, one_of(SCORES)] = "magnitude"
    distribution: Annotated[str, one_of(DISTRIBUTIONS)] = "global"
    pattern: Annotated[str, one_of(PATTERNS)] = "weight"

    def layers(self, model: nn.Module, data: DataHeader) -> tuple[LayerFacts, ...]:
        """The layers to prune. Raises UserError if there are none, or if they cannot have masks."""
        layers = layers_with(facts_of(model, data), PATTERNS[self.pattern], self.model)
        require_untied(layers, self.model)
        return layers

    def masks(self, net: Net, density: float, level: int = 0) -> Masks:
        """Masks that keep the share ``density`` of the currently kept weights; bool, by weight name."""
        pattern = PATTERNS[self.pattern]
        weights = prunable(net.model, linear=pattern.linear)
        generator = generator_for(self, "score", level)
        return build_masks(
            SCORES[self.score](weights, generator),
            density=density,
            pattern=pattern,
            distribution=DISTRIBUTIONS[self.distribution],
            within=net.masks or None,
        )


class OneShotConfig(PruningConfig):
    """Prune a dense network to ``density`` at once, then finetune; ``finetune: null`` skips the finetuning."""

    method: Literal["one_shot"] = "one_shot"
    density: float = Field(gt=0, le=1)
    finetune: FinetuneRecipe | None = FinetuneRecipe()


class PruneThenTrain(TrainStage):
    """Finetuning that prunes on entry."""

    changes_network = True

    def __init__(self, name: str, recipe: Recipe, config: OneShotConfig) -> None:
        super().__init__(name, recipe)
        self.config = config

    def enter(self, net: Net) -> None:
        net.set_masks(self.config.masks(net, self.config.density))


class OneShot(Method):
    """One-shot pruning: theta -> m = top(score(theta), density) -> finetune m theta."""

    Config = OneShotConfig
    mutable = mutable_of("finetune")
    config: OneShotConfig
    stoppable = ("finetune",)

    def source(self) -> TrialConfig | None:
        return dense_source(self.config)

    def check(self, model: nn.Module, data: DataHeader) -> None:
        config = self.config
        layers = config.layers(model, data)
        if config.density < 1:
            dense = Budget.dense(layers, PATTERNS[config.pattern])
            budget = dense.pruned(layers, config.distribution, config.density)
            require_left(budget, layers, config.pattern, f"density is {config.density:g}")

    def stages(self) -> Iterator[Stage]:
        if self.config.finetune is None:
            yield PruneThenTrain("prune", FinetuneRecipe(epochs=0), self.config)
        else:
            yield PruneThenTrain("finetune", self.config.finetune, self.config)
