"""Removal of groups of weights by a ratio per layer, and finetuning: shared by GReg, its L1 baseline and its oracle.

A ratio pr of n groups removes min(ceil(pr n), n - 1) of them. Removing filters and channels gives a compact network;
single weights are masked. The remaining network is then finetuned (Wang et al. 2021, https://arxiv.org/abs/2012.09243;
released code: MingSun-Tse/Regularization-Pruning at a4044028, pruner/meta_pruner.py).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated, Any, ClassVar, Literal

import torch
from pydantic import BeforeValidator, Field, model_validator
from torch import Tensor, nn

from trials.compact import kept_rows
from trials.config.recipes import RATES, Recipe
from trials.config.schedules import read_lr_steps
from trials.config.trial_config import HasVariant, StartsDense, TrialConfig
from trials.methods.asked import AskedShare, share_of
from trials.methods.base import Method, Stage, TrainStage, generator_for
from trials.methods.dense import dense_source
from trials.methods.greg.base_trial import pruned_groups
from trials.methods.greg.groups import GroupPattern, Pick, group_scores, group_shape, pick_groups, prune_count
from trials.methods.greg.layer_table import LayerTable, layer_table, table_of
from trials.methods.greg.ratios import SkippedLayers, StageRatios, largest_ratio, layer_ratios
from trials.networks.named_files import place_named, require_unchanged
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
            return self._inherited_counts(weights)
        ratios = self.ratios(layer_table(net.model))
        counts = {
            name: self.count(ratios[name.removesuffix(".weight")], group_shape(weight, self.pattern).numel())
            for name, weight in weights.items()
        }
        return {name: count for name, count in counts.items() if count}

    def inherited(self, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The groups that ``base_pr_model`` removed (bool, True is removed), by weight name in module order."""
        assert self.base_pr_model is not None
        return pruned_groups(require_unchanged(self, "base_pr_model"), self.pattern, weights)

    def _inherited_counts(self, weights: Mapping[str, Tensor]) -> dict[str, int]:
        counts = {}
        for name, pruned in self.inherited(weights).items():
            count, n = int(pruned.sum()), pruned.numel()
            again = self.released and self.inherit_pruned == "pr"
            counts[name] = prune_count(count / n, n) if again else count
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


def remove(net: Net, picked: Mapping[str, Tensor], pattern: GroupPattern) -> None:
    """Remove the picked groups: mask single weights, or shrink the network by filters or channels.

    Masks cover every layer, including those that lose nothing. With filters and channels, picks of linear layers are
    ignored.
    """
    weights = prunable(net.model)
    if pattern == "weight":
        everything = {name: torch.ones_like(weight, dtype=torch.bool) for name, weight in weights.items()}
        net.set_masks({**everything, **{name: ~pruned for name, pruned in picked.items()}})
        return
    convolutions = prunable(net.model, linear=False)
    removed = {name: picked[name].flatten().nonzero().flatten() for name in convolutions if name in picked}
    net.shrink(removed, pattern)


def _require_groups(folder: str, digest: str | None, pattern: GroupPattern) -> None:
    """Raise UserError if no groups of the pattern can be taken from a trial; reads a content once."""
    if digest is None or (folder, digest, pattern) not in _READ:
        pruned_groups(place_named("base_pr_model", folder), pattern)
        _READ.add((folder, digest, pattern))


_READ: set[tuple[str, str | None, GroupPattern]] = set()
"""Folders of trials, by path and content, from which groups of a pattern can be taken."""


class RemoveThenTrain(TrainStage):
    """Finetuning that on entry removes the groups in ``net.picked``, which the stage before has set."""

    changes_network = True

    def __init__(self, config: RemovalConfig) -> None:
        super().__init__("finetune" if config.finetune else "remove", config.finetune or Recipe(epochs=0))
        self.config: Any = config

    def enter(self, net: Net) -> None:
        remove(net, net.picked, self.config.pattern)
        if self.config.pattern == "weight":
            net.picked = {}  # the masks hold the same information


class RemovalMethod(Method):
    """Base class: dense network -> choice of groups -> removal -> finetuning."""

    config: RemovalConfig

    def source(self) -> TrialConfig | None:
        if self.config.base_pr_model is not None:  # report errors now, not after the dense network has trained
            folder, digest = self.config.base_pr_model, self.config.file_hashes.get("base_pr_model")
            _require_groups(folder, digest, self.config.pattern)
        return dense_source(self.config)

    def check_trials(self, model: nn.Module) -> None:
        if self.config.base_pr_model is not None:
            self.config.inherited(prunable(model))

    def asked(self, model: nn.Module, stage: Stage) -> tuple[AskedShare, ...]:
        return self.config.asked_shares(model) if stage.name in ("finetune", "remove") else ()

    def initialised(self, net: Net) -> None:
        """Refuse ratios that the network's dependency graph forbids, before anything is trained."""
        if self.config.stage_pr is None or self.config.pattern == "weight":
            return
        counts = self.config.counts(net)
        convolutions = [name for name in prunable(net.model, linear=False) if name in counts]
        kept_rows(net.model, {name: torch.arange(counts[name]) for name in convolutions}, self.config.pattern)

    def stages(self) -> Iterator[Stage]:
        yield from self.choosing()
        yield self.removal()

    def choosing(self) -> Iterator[Stage]:
        """Stages that choose the groups and store them in ``net.picked``; none by default."""
        return iter(())

    def removal(self) -> RemoveThenTrain:
        """The stage that removes the picked groups and finetunes."""
        return RemoveThenTrain(self.config)
