"""Which groups to remove from each layer, and how to finetune what remains: shared by GReg, L1 and the oracle.

A ratio pr of n groups removes min(ceil(pr n), n - 1) of them (Wang et al. 2021, https://arxiv.org/abs/2012.09243;
released code: MingSun-Tse/Regularization-Pruning at a4044028, pruner/meta_pruner.py).
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from functools import lru_cache
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BeforeValidator, Field, model_validator
from torch import Tensor, nn

from trials.config.recipes import RATES, Recipe
from trials.config.schedules import read_lr_steps
from trials.config.source_config import StartsDense
from trials.config.trial_config import HasVariant
from trials.errors import UserError
from trials.methods.asked import AskedShare, share_of
from trials.methods.base import generator_for
from trials.methods.greg.base_trial import pruned_groups
from trials.methods.greg.groups import GroupPattern, Pick, group_scores, group_shape, pick_groups, prune_count
from trials.methods.greg.layer_table import LayerTable, layer_table, numbered, table_of
from trials.methods.greg.ratios import Ratios, SkippedLayers, StageRatios, largest_ratio, layer_ratios
from trials.methods.model_facts import ModelFacts
from trials.networks.named_files import require_unchanged
from trials.sparsity import prunable
from trials.training.net import Net

LR_FT = "0:0.01,30:0.001,60:0.0001,75:0.00001"


class FinetuneRecipe(Recipe):
    """90 epochs with a stepped learning rate (the released ImageNet recipe).

    Setting ``lr``, ``schedule`` or a warm-up replaces the steps.
    """

    epochs: int = Field(default=90, ge=0)
    batch_size: int = Field(default=256, ge=1)
    lr: float = Field(default=0.01, gt=0)
    weight_decay: float = Field(default=1e-4, ge=0)
    lr_steps: Annotated[tuple[tuple[int, float], ...] | None, BeforeValidator(read_lr_steps)] = read_lr_steps(LR_FT)  # type: ignore[assignment]

    @model_validator(mode="before")
    @classmethod
    def _other_rates_replace_the_steps(cls, content: Any) -> Any:
        if isinstance(content, Mapping) and "lr_steps" not in content and any(name in content for name in RATES):
            return {**content, "lr_steps": None}
        return content


class RemovalConfig(HasVariant, StartsDense):
    """Which groups to remove from each layer, and how to finetune the remaining network.

    ``lr_ft`` is accepted as GReg's name for ``finetune.lr_steps``.

    Attributes:
        variant: ``original`` follows the released code: ``skip_layers`` matches text prefixes (3.1 also matches 3.10)
            and is ignored for single weights in residual nets, linear layers keep their ratio, and inherited ratios
            are rounded up a second time.
        pattern: the groups: filters, input channels or single weights.
        stage_pr: pruning ratios: one number for all layers but the first; or one per stage of a residual net (stem,
            stages, classifier); or in other networks (first, last, ratio) by layer. GReg's texts are accepted.
        skip_layers: layers not to prune: stage.block.conv in residual nets (``2.3`` is a whole block), else indices.
        base_pr_model: folder of a finished trial whose ratios to take, instead of ``stage_pr``.
        inherit_pruned: ``index`` removes the same groups as that trial; ``pr`` only as many in each layer.
        finetune: recipe after the removal; null ends the trial with the removal.
    """

    named_files: ClassVar[Mapping[str, Literal["weights", "trial"]]] = {
        **StartsDense.named_files,
        "base_pr_model": "trial",
    }

    pattern: GroupPattern = "filter"
    stage_pr: StageRatios | None = None
    skip_layers: SkippedLayers = ()
    base_pr_model: str | None = None
    inherit_pruned: Literal["index", "pr"] = "index"
    finetune: FinetuneRecipe | None = FinetuneRecipe()

    @model_validator(mode="before")
    @classmethod
    def _lr_ft(cls, content: Any) -> Any:
        if not isinstance(content, Mapping) or "lr_ft" not in content:
            return content
        finetune = content.get("finetune", {})
        if not isinstance(finetune, Mapping) or "lr_steps" in finetune:
            raise ValueError(f"lr_ft is {content['lr_ft']!r}, but finetune is {finetune!r}: give the rates once")
        rest = {key: value for key, value in content.items() if key != "lr_ft"}
        return {**rest, "finetune": {**finetune, "lr_steps": content["lr_ft"]}}

    @model_validator(mode="after")
    def _ratios_fit_the_model(self) -> RemovalConfig:
        if (self.stage_pr is None) == (self.base_pr_model is None):
            state = "missing" if self.stage_pr is None else "given"
            raise ValueError(f"stage_pr and base_pr_model are both {state}, but the ratios must come from one of them")
        if self.stage_pr is not None:
            self.ratios(table_of(self.model))
        elif self.skip_layers:
            skipped = list(self.skip_layers)
            raise ValueError(f"skip_layers is {skipped}, but base_pr_model sets every ratio: leave it out")
        return self

    @property
    def released(self) -> bool:
        """Whether to follow the released code (``variant: original``)."""
        return self.variant == "original"

    def ratios(self, table: LayerTable) -> dict[str, float]:
        """The ratio of every layer that ``stage_pr`` gives, by module name."""
        assert self.stage_pr is not None
        return layer_ratios(table, self.stage_pr, self.skip_layers, self.pattern, released=self.released)

    def count(self, ratio: float, n: int) -> int:
        """Number of groups to remove from a layer of ``n`` groups."""
        return prune_count(ratio, n)

    def asked_shares(self, model: nn.Module) -> tuple[AskedShare, ...]:
        """Ask for 1 - ratio of each layer that has a ratio; if none has, of all layers, by the largest ratio given.

        Nothing is asked where the ratios are those of ``base_pr_model``. A layer may lose channels with another one.
        """
        if self.stage_pr is None:
            return ()
        weights, ratios = prunable(model), self.ratios(layer_table(model))
        pruned = {name: ratio for name in weights if (ratio := ratios[name.removesuffix(".weight")])}
        fewer = self.pattern == "channel"
        shares = (
            share_of({name: weights[name]}, 1 - r, self.pattern, fewer_is_fine=fewer) for name, r in pruned.items()
        )
        return tuple(shares) if pruned else (share_of(weights, 1 - largest_ratio(self.stage_pr)),)

    def counts(self, net: Net) -> dict[str, int]:
        """Number of groups to remove, by weight name in module order; only layers that lose any."""
        weights = prunable(net.model)
        if self.base_pr_model is not None:
            inherited = self.inherited_counts(self.inherited(weights))
            return {name: count for name, (_, count) in inherited.items()}
        ratios = self.ratios(layer_table(net.model))
        counts = {
            name: self.count(ratios[name.removesuffix(".weight")], group_shape(weight, self.pattern).numel())
            for name, weight in weights.items()
        }
        return {name: count for name, count in counts.items() if count}

    def planned(self, facts: ModelFacts) -> dict[str, tuple[int, int]]:
        """(groups, how many to remove) by weight name, for layers that lose any by ``stage_pr``.

        Raises:
            UserError: the ratios do not fit the model.
        """
        assert self.stage_pr is not None
        ratios = _ratios_of(facts, self.stage_pr, self.skip_layers, self.pattern, self.released)
        sizes = {layer.name: group_shape(layer.shape, self.pattern).numel() for layer in facts.layers}
        counts = {f"{name}.weight": (n, self.count(ratios[name], n)) for name, n in sizes.items()}
        return {name: (n, count) for name, (n, count) in counts.items() if count}

    def inherited(self, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The groups that ``base_pr_model`` removed (bool, True is removed), by weight name in module order."""
        assert self.base_pr_model is not None
        return pruned_groups(require_unchanged(self, "base_pr_model"), self.pattern, weights)

    def inherited_counts(self, groups: Mapping[str, Tensor]) -> dict[str, tuple[int, int]]:
        """(groups, how many to remove) by weight name, for the :meth:`inherited` ``groups``."""
        counts = {}
        for name, pruned in groups.items():
            count, n = int(pruned.sum()), pruned.numel()
            again = self.released and self.inherit_pruned == "pr"
            counts[name] = (n, prune_count(count / n, n) if again else count)
        return counts

    def picks(self, net: Net, pick: Pick = "min") -> dict[str, Tensor]:
        """Pick the groups to remove (bool, True is removed), by weight name.

        Takes the groups of ``base_pr_model`` if ``inherit_pruned`` is ``index``; otherwise picks by current scores.
        """
        weights = prunable(net.model)
        if self.base_pr_model is not None and self.inherit_pruned == "index":
            return {name: pruned.to(net.device) for name, pruned in self.inherited(weights).items()}
        generator = generator_for(self, "pick")
        return {
            name: pick_groups(group_scores(weights[name], self.pattern), count, pick, generator)
            for name, count in self.counts(net).items()
        }


@lru_cache(maxsize=4096)
def _ratios_of(
    facts: ModelFacts, stage_pr: Ratios, skip_layers: tuple[str, ...], pattern: GroupPattern, released: bool
) -> Mapping[str, float]:
    table = numbered({layer.name: layer.shape for layer in facts.layers})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the same were given when the config was read
        try:
            return layer_ratios(table, stage_pr, skip_layers, pattern, released=released)
        except ValueError as error:
            raise UserError(str(error)) from None
