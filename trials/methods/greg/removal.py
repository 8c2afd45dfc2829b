"""Removal of groups of weights by a ratio per layer, and finetuning: shared by GReg, its L1 baseline and its oracle.

A ratio pr of n groups removes min(ceil(pr n), n - 1) of them. Removing filters and channels gives a compact network;
single weights are masked. The remaining network is then finetuned (Wang et al. 2021, https://arxiv.org/abs/2012.09243;
released code: MingSun-Tse/Regularization-Pruning at a4044028, pruner/meta_pruner.py).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from trials.compact import kept_rows, obstacles
from trials.config.recipes import Recipe
from trials.config.trial_config import TrialConfig
from trials.data_header import DataHeader
from trials.errors import UserError, listed
from trials.methods.asked import AskedShare
from trials.methods.base import Method, Stage, TrainStage
from trials.methods.budgets import require_untied
from trials.methods.dense import dense_source
from trials.methods.greg.base_trial import pruned_groups
from trials.methods.greg.groups import GroupPattern
from trials.methods.greg.ratios import largest_ratio, shown_ratios
from trials.methods.greg.removal_config import RemovalConfig
from trials.methods.model_facts import facts_of, graph_of
from trials.networks.named_files import place_named
from trials.sparsity import prunable
from trials.training.net import Net


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
        if not removed and largest_ratio(config.stage_pr) > 0:
            raise UserError(
                f"stage_pr is {shown_ratios(config.stage_pr)}, but no {config.pattern} of {config.model} would be "
                "removed: its layers are skipped, protected, linear, or too small for the ratio: give others, or "
                "another pattern"
            )
        if config.pattern != "weight" and removed:
            fixed = obstacles(graph_of(model), removed, config.pattern)
            _refuse_fixed(config, fixed)

    def _check_inherited(self, model: nn.Module) -> None:
        """Check that what ``base_pr_model`` removed can be removed from the model."""
        config = self.config
        weights = prunable(model)
        picked = config.inherited(weights)
        counts = config.inherited_counts(picked)
        self.check_counts(counts)
        if config.pattern == "weight":
            return
        convolutions = prunable(model, linear=False)
        removed = {name: pruned for name, pruned in picked.items() if name in convolutions}
        _refuse_empty(config, [name for name in removed if counts[name][0] == counts[name][1]])
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

    @property
    def reads_initial_values(self) -> bool:
        return False  # only shapes and connections

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


def _refuse_empty(config: RemovalConfig, gone: Sequence[str]) -> None:
    """Raise UserError if there are layers, by weight name, that would lose all their groups."""
    if gone:
        names = listed([name.removesuffix(".weight") for name in gone])
        raise UserError(
            f"base_pr_model is {config.base_pr_model!r}, but left no {config.pattern} of {names}, and a layer must "
            "keep at least one: name a trial that left some in every layer, or use pattern 'weight'"
        )


def _refuse_fixed(config: RemovalConfig, fixed: Mapping[str, str]) -> None:
    """Raise UserError if there are layers that cannot lose groups; ``fixed``: why, by weight name."""
    if not fixed:
        return
    what = "filters" if config.pattern == "filter" else "input channels"
    by_reason: dict[str, list[str]] = {}
    for name, reason in fixed.items():
        by_reason.setdefault(reason, []).append(name.removesuffix(".weight"))
    most = max(2, 8 // len(by_reason))  # names beside each reason, so that the line stays readable
    layers = listed([f"{listed(names, most)} ({reason})" for reason, names in by_reason.items()], most=4)
    raise UserError(
        f"pattern is {config.pattern!r}, but these layers must keep all their {what}: {layers}: give them the ratio 0 "
        "or name them in skip_layers, or use pattern 'weight'"
    )
