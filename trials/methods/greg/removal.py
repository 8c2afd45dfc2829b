"""Removal of groups of weights by a ratio per layer, and finetuning: shared by GReg, its L1 baseline and its oracle.

A ratio pr of n groups removes min(ceil(pr n), n - 1) of them. Removing filters and channels gives a compact network;
single weights are masked. The remaining network is then finetuned (Wang et al. 2021, https://arxiv.org/abs/2012.09243;
released code: MingSun-Tse/Regularization-Pruning at a4044028, pruner/meta_pruner.py).
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from pydantic import BeforeValidator, Field, model_validator
from torch import Tensor, nn

from trials.compact import kept_rows, obstacles
from trials.config.recipes import RATES, Recipe
from trials.config.schedules import read_lr_steps
from trials.config.trial_config import HasVariant, StartsDense, TrialConfig
from trials.data_header import DataHeader
from trials.errors import UserError, listed
from trials.methods.base import Method, Stage, TrainStage, generator_for
from trials.methods.budgets import require_untied
from trials.methods.dense import dense_source
from trials.methods.greg.base_trial import pruned_groups
from trials.methods.greg.groups import GroupPattern, Pick, group_scores, group_shape, pick_groups, prune_count
from trials.methods.greg.layer_table import LayerTable, layer_table, numbered, table_of
from trials.methods.greg.ratios import Ratios, SkippedLayers, StageRatios, asks, layer_ratios
from trials.methods.model_facts import ModelFacts, facts_of, graph_of
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
        return pruned_groups(Path(self.base_pr_model).expanduser(), self.pattern, weights)

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
            pruned_groups(Path(self.config.base_pr_model).expanduser(), self.config.pattern)
        return dense_source(self.config)

    def check(self, model: nn.Module, data: DataHeader) -> None:
        config, facts = self.config, facts_of(model, data)
        if config.base_pr_model is not None:
            self._check_inherited(model)
            return
        require_untied(facts.layers, config.model)
        counts = config.planned(facts)
        self.check_counts(counts)
        linear = {f"{layer.name}.weight" for layer in facts.layers if layer.linear}
        removed = counts if config.pattern == "weight" else [name for name in counts if name not in linear]
        assert config.stage_pr is not None
        if not removed and asks(config.stage_pr):
            raise UserError(
                f"stage_pr is {config.stage_pr!r}, but no {config.pattern} of {config.model} would be removed: its "
                "layers are skipped, protected, linear, or too small for the ratio: give others, or another pattern"
            )
        if config.pattern != "weight" and removed:
            fixed = obstacles(graph_of(model), removed, config.pattern)
            _refuse_fixed(config, fixed)

    def _check_inherited(self, model: nn.Module) -> None:
        """Check that what ``base_pr_model`` removed can be removed from the model."""
        config = self.config
        weights = prunable(model)
        picked = config.inherited(weights)
        self.check_counts({name: (pruned.numel(), int(pruned.sum())) for name, pruned in picked.items()})
        if config.pattern == "weight":
            return
        convolutions = prunable(model, linear=False)
        removed = {name: pruned for name, pruned in picked.items() if name in convolutions}
        if config.inherit_pruned == "pr":
            _refuse_fixed(config, obstacles(graph_of(model), removed, config.pattern))
            return
        try:
            kept_rows(model, {name: pruned.flatten().nonzero().flatten() for name, pruned in removed.items()},
                      config.pattern)  # fmt: skip
        except ValueError as error:
            raise UserError(f"base_pr_model is {config.base_pr_model!r}, but {error}") from None

    def check_counts(self, counts: Mapping[str, tuple[int, int]]) -> None:
        """Check (groups, how many to remove) by weight name; accepts all by default.

        Raises:
            UserError: the method cannot remove as many.
        """

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


def _refuse_fixed(config: RemovalConfig, fixed: Mapping[str, str]) -> None:
    """Raise UserError if there are layers that cannot lose groups; ``fixed``: why, by weight name."""
    if not fixed:
        return
    what = "filters" if config.pattern == "filter" else "input channels"
    by_reason: dict[str, list[str]] = {}
    for name, reason in fixed.items():
        by_reason.setdefault(reason, []).append(name.removesuffix(".weight"))
    layers = listed([f"{listed(names)} ({reason})" for reason, names in by_reason.items()])
    raise UserError(
        f"pattern is {config.pattern!r}, but these layers must keep all their {what}: {layers}: give them the ratio 0 "
        "or name them in skip_layers, or use pattern 'weight'"
    )
