"""One-shot pruning: train, remove the least important units at once, finetune.

Han et al. 2015, https://arxiv.org/abs/1506.02626.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping, Sequence
from fractions import Fraction
from typing import Annotated, Literal

from pydantic import Field
from torch import Tensor, nn

from trials.config.recipes import Recipe, one_of
from trials.config.source_config import StartsDense
from trials.config.trial_config import TrialConfig
from trials.data_header import DataHeader
from trials.errors import UserError, exact
from trials.methods.asked import AskedShare, share_of
from trials.methods.base import Method, Stage, TrainStage, generator_for, mutable_of
from trials.methods.budgets import Budget, LeftLayer, Shaped, layers_with, left_with, require_left, require_untied
from trials.methods.coupling import MayCouple, coupled_share, require_coupled
from trials.methods.dense import dense_source
from trials.methods.model_facts import LayerFacts, facts_of
from trials.methods.n_of_m import TakesNM
from trials.methods.planned import PlannedDensity
from trials.methods.rounding import HasRounding, NamedShape, pruned_once
from trials.sparsity import (
    DISTRIBUTIONS,
    PATTERNS,
    SCORES,
    Layer,
    Masks,
    Pattern,
    masks_by_score,
    prunable,
    prunable_by,
)
from trials.sparsity.counts import Density, exact_share
from trials.sparsity.coupled import coupled_masks
from trials.training.net import Net


class FinetuneRecipe(Recipe):
    """Finetuning: 40 epochs, starting from a tenth of the training learning rate."""

    epochs: int = Field(default=40, ge=0)
    lr: float = Field(default=0.01, gt=0)


RANKED_BY_WEIGHTS = frozenset({"random", "lamp"})
"""Scores that ranked units by norms of their weights' scores, which is wrong of them, before units had their own."""


class PruningConfig(HasRounding, StartsDense):
    """Which weights to remove: score x distribution x pattern, see trials/sparsity/.

    Attributes:
        score: how much a weight matters: the lowest are removed.
        distribution: how the budget is divided: one ranking of all layers (``global``), or shares by layer.
        pattern: what is removed together: single weights, kernels, filters, channels, or N of M weights.
    """

    score: Annotated[str, one_of(SCORES)] = "magnitude"
    distribution: Annotated[str, one_of(DISTRIBUTIONS)] = "global"
    pattern: Annotated[str, one_of(PATTERNS)] = "weight"

    def asked_share(self, model: nn.Module, density: float, rounds: float = 1) -> AskedShare:
        """Ask for the share ``density`` of the model's units, reached in ``rounds`` roundings."""
        weights = prunable_by(model, self.units) or prunable(model)
        whole = self.distribution == "global" or self.rounding == "nearest"
        each = 1 if whole else len(weights)  # roundings to whole units at a time
        return share_of(weights, density, self.pattern, slack=rounds * each)

    def layers(self, model: nn.Module, data: DataHeader) -> tuple[LayerFacts, ...]:
        """The layers to prune. Raises UserError if there are none, or if they cannot have masks."""
        layers = layers_with(facts_of(model, data), self.units, self.model)
        require_untied(layers, self.model)
        return layers

    @property
    def units(self) -> Pattern:
        """What is pruned together."""
        return PATTERNS[self.pattern]

    @property
    def ranks_units_anew(self) -> bool:
        return self.score in RANKED_BY_WEIGHTS and self.pattern != "weight"

    def masks(self, net: Net, density: Density, level: int = 0) -> Masks:
        """Masks that keep the share ``density`` of the currently kept units; bool, by weight name."""
        return masks_by_score(
            SCORES[self.score],
            prunable_by(net.model, self.units),
            generator_for(self, "score", level),
            density=density,
            pattern=self.units,
            distribution=DISTRIBUTIONS[self.distribution],
            within=net.masks or None,
            count=self.count,
        )


class OneShotConfig(MayCouple, TakesNM, PruningConfig):
    """Prune a dense network to ``density`` at once, then finetune; ``finetune: null`` skips the finetuning.

    A network that starts with a mask (``source_net``) is pruned further within it, to ``density`` of all its weights.

    Attributes:
        density: share of the weights (or groups) to keep.
        finetune: recipe after pruning; null ends the trial with the pruned network.
    """

    method: Literal["one_shot"] = "one_shot"
    density: float = Field(gt=0, le=1)
    finetune: FinetuneRecipe | None = FinetuneRecipe()

    @property
    def decides_budgets(self) -> tuple[Hashable, ...]:
        return self.density, self.distribution, self.pattern

    @property
    def never_differs(self) -> bool:
        return self.density == 1 or self.couple or self.pattern == "nm"

    @property
    def ranks_units_anew(self) -> bool:
        # with density 1 all units stay, however they are ranked; coupled units have scores of their own
        return super().ranks_units_anew and self.density < 1 and not self.couple

    def levels_of(self, layers: Sequence[NamedShape]) -> Iterator[Budget]:
        return pruned_once(layers, self.pattern, self.distribution, self.density, self.count)

    @property
    def ranks_layers(self) -> bool:
        """Whether scores decide how many groups each layer keeps."""
        layers = [Layer(units, units, (units, 1), units) for units in (64, 128)]
        return any(len(pool.layers) > 1 for pool in DISTRIBUTIONS[self.distribution](layers, self.density, None))

    def share_within(self, kept: int, total: int) -> Density:
        """The share that ``density`` is of a mask that keeps ``kept`` of ``total`` weights; all of it at most."""
        if self.rounding == "released":
            return min(self.density / (kept / total), 1.0)
        return min(exact_share(self.density) * Fraction(total, kept), Fraction(1))

    def share_of(self, masks: Mapping[str, Tensor]) -> Density:
        """The share that ``density`` is of what ``masks`` keep; ``density`` itself without masks."""
        sizes = (sum(int(mask.sum()) for mask in masks.values()), sum(mask.numel() for mask in masks.values()))
        return self.share_within(*sizes) if masks else self.density

    def masks(self, net: Net, density: Density, level: int = 0) -> Masks:
        if not self.couple:
            return super().masks(net, density, level)
        return coupled_masks(
            net.model,
            density=self.density,
            score=self.score,
            distribution=self.distribution,
            generator=generator_for(self, "score", level),
        )


def require_weight_pattern(pattern: str, density: float, *, couple: bool = False) -> None:
    """Raise UserError if groups are to be pruned in a network that starts with a mask of this density."""
    if couple:
        raise UserError(
            f"couple is true, but the network of source_net has a mask (density {density:.4g}), which only pattern "
            "weight without couple goes on from: give dense weights or a compact network, or pattern weight"
        )
    if pattern != "weight":
        raise UserError(
            f"pattern is {pattern!r}, but the network of source_net has a mask (density {density:.4g}), which only "
            "pattern weight goes on from: give dense weights, or pattern weight"
        )


class PruneThenTrain(TrainStage):
    """Finetuning that prunes on entry."""

    changes_network = True

    def __init__(self, name: str, recipe: Recipe, config: OneShotConfig) -> None:
        super().__init__(name, recipe)
        self.config = config

    def enter(self, net: Net) -> None:
        net.set_masks(self.config.masks(net, self.config.share_of(net.masks)))


class OneShot(Method):
    """One-shot pruning: theta -> m = top(score(theta), density) -> finetune m theta."""

    Config = OneShotConfig
    mutable = mutable_of("finetune")
    config: OneShotConfig
    stoppable = ("finetune",)
    takes_masks = True
    takes_compact = True

    def check_start(self, density: float | None, *, compact: bool) -> None:
        super().check_start(density, compact=compact)
        if density is None:
            return
        require_weight_pattern(self.config.pattern, density, couple=self.config.couple)
        if self.config.density > density * (1 + 1e-3):  # another rounding is no other density
            raise UserError(
                f"density is {self.config.density}, but the mask of source_net keeps only {density:.4g}: give a lower "
                "density"
            )

    def source(self) -> TrialConfig | None:
        return dense_source(self.config)

    def asked(self, model: nn.Module, stage: Stage) -> tuple[AskedShare, ...]:
        if self.config.couple:
            return (coupled_share(model, self.config.density),)
        return (self.config.asked_share(model, self.config.density),)

    def planned_density(self, stage: Stage) -> PlannedDensity | None:
        """As asked; where layers with groups of other sizes compete, also what ranks them: score and dense network."""
        planned, config = super().planned_density(stage), self.config
        if planned is None or config.pattern in ("weight", "nm") or not (config.couple or config.ranks_layers):
            return planned
        source = self.source()
        dense = repr((config.source_net, config.file_hashes)) if source is None else source.id
        ranked = (planned.key, config.distribution, config.couple, config.score, config.seed, dense)
        return PlannedDensity(ranked if config.density < 1 else planned.key)

    def check(self, model: nn.Module, data: DataHeader) -> None:
        config = self.config
        if config.couple:
            if not config.file_starts:
                self._check_units(model)
            return
        layers = config.layers(model, data)
        if not config.file_starts:
            self._check_budget(layers, Budget.dense(layers, config.units), config.density)

    def check_network(self, model: nn.Module) -> None:
        if self.config.couple:
            self._check_units(model)

    def _check_units(self, model: nn.Module) -> None:
        if self.config.density < 1:
            asked = f"density is {exact(self.config.density)}"
            require_coupled(model, self.config.distribution, [(asked, self.config.density)])

    def check_left(self, layers: Sequence[LeftLayer]) -> None:
        if self.config.couple:  # see check_network
            return
        pattern = self.config.units
        share = self.config.share_within(sum(layer.kept for layer in layers), sum(layer.weights for layer in layers))
        chosen = left_with(layers, pattern)
        self._check_budget(chosen, Budget.left(chosen, pattern), share)

    def _check_budget(self, layers: Sequence[Shaped], before: Budget, share: Density) -> None:
        """Check what stays of ``before`` if the share ``share`` of it is kept."""
        config = self.config
        if config.density < 1:
            budget = before.pruned(layers, config.distribution, share, config.count)
            require_left(budget, layers, config.pattern, f"density is {exact(config.density)}", before=before)

    def stages(self) -> Iterator[Stage]:
        if self.config.finetune is None:
            yield PruneThenTrain("prune", FinetuneRecipe(epochs=0), self.config)
        else:
            yield PruneThenTrain("finetune", self.config.finetune, self.config)
