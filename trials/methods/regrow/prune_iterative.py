"""Iterative magnitude pruning with finetuning; makes the sparse networks that regrowth starts from.

    for each level:
        m     <- m without the prune_fraction lowest-scored of the kept weights
        theta <- finetune m theta with AdamW, best epoch kept

Used by https://arxiv.org/abs/2511.11675 (released code: EnumaCaliber/Bidirection-Prune-Regrowth at b40cb9f,
prune_iterative.py); the levels are LAMP's (https://arxiv.org/abs/2010.07611). Differs from imp in that it never
rewinds, counts and rounds as LAMP does, trains with AdamW and keeps the best epoch of every level. One level is
one-shot pruning.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence
from dataclasses import replace
from typing import Annotated, ClassVar, Final, Literal

import torch
from pydantic import Field
from torch import nn

from trials.config.recipes import one_of
from trials.config.source_config import StartsDense
from trials.config.trial_config import ReportRule, TrialConfig
from trials.data_header import DataHeader
from trials.errors import UserError, exact
from trials.methods.asked import AskedShare, share_of
from trials.methods.base import Method, Stage, generator_for
from trials.methods.budgets import (
    Budget,
    LeftLayer,
    Shaped,
    layers_with,
    left_with,
    require_fewer,
    require_left,
    require_untied,
)
from trials.methods.coupling import MayCouple, coupled_share, require_coupled
from trials.methods.dense import dense_source
from trials.methods.magnitude.one_shot import RANKED_BY_WEIGHTS, require_weight_pattern
from trials.methods.model_facts import facts_of
from trials.methods.regrow.finetuning import AdamWRecipe, Finetune
from trials.methods.rounding import HasRounding, NamedShape, with_pattern
from trials.sparsity import (
    DISTRIBUTIONS,
    PATTERNS,
    SCORES,
    Count,
    Masks,
    drop_nearest,
    keep_nearest,
    masks_by_score,
    prunable,
)
from trials.sparsity.counts import Density, exact_share
from trials.sparsity.coupled import coupled_masks
from trials.training.net import Net

DIGITS = 10**6
"""LAMP's rounding is exact for shares of up to six decimal digits: it takes what is closer to a half for one."""

DENSE: Final = "dense"
PRUNED: Final = "pruned"
"""Names of snapshots: the dense network, and the value that every weight had when it was pruned."""


class PruneIterativeConfig(MayCouple, HasRounding, StartsDense):
    """Prune in ``levels`` levels, each removing ``prune_fraction`` of the remaining weights.

    Level l keeps (1 - ``prune_fraction``)^l of the filters of the dense network, chosen among those that are left.
    ``rounding: released`` is LAMP's for score lamp, else that of torch.nn.utils.prune.

    Attributes:
        distribution: how the budget is divided over layers; ``global``: one ranking.
        levels: number of rounds of pruning and finetuning.
        prune_fraction: share of the remaining weights (or filters) that a level removes.
        finetune: recipe of every level.
        score: ``lamp`` (with distribution global: Layer-Adaptive Magnitude Pruning), ``magnitude`` or another.
        pattern: ``filter`` removes whole filters of convolutions, by their norms.
        keep: snapshots to keep for later methods: the ``dense`` network, and the ``pruned`` weights' last values.
    """

    own_report: ClassVar[ReportRule] = "best_val"

    method: Literal["prune_iterative"] = "prune_iterative"
    score: Annotated[str, one_of(SCORES)] = "lamp"
    distribution: Annotated[str, one_of(DISTRIBUTIONS)] = "global"
    pattern: Literal["weight", "filter"] = "weight"
    levels: int = Field(default=15, ge=1)
    prune_fraction: float = Field(default=0.3, gt=0, lt=1)
    finetune: AdamWRecipe = AdamWRecipe()
    keep: tuple[Literal["dense", "pruned"], ...] = Field(default=(), strict=False)

    def asked_share(self, model: nn.Module, level: int, more: float = 0.0, grown: int = 0) -> AskedShare:
        """Ask for what is left after ``level``, and for the share ``more`` of all units, regrown in ``grown`` times."""
        weights = prunable(model, linear=PATTERNS[self.pattern].linear) or prunable(model)
        each = 1 if self.distribution == "global" or self.rounding == "nearest" else len(weights)
        rounds = min(level, 1 / self.prune_fraction) if self.pattern == "weight" else 1
        density = min((1 - self.prune_fraction) ** level + more, 1.0)
        return share_of(weights, density, self.pattern, slack=rounds * each + grown)

    def coupled_levels(self) -> Iterator[tuple[str, Density]]:
        """With ``couple``, yield which share of the network's units each level keeps, and how the config says it."""
        for level in range(1, self.levels + 1):
            yield self.asked_at(level), self.share(self.prune_fraction) ** level

    def asked_at(self, level: int) -> str:
        """The fields that ask for what a level keeps, for messages."""
        return f"prune_fraction is {exact(self.prune_fraction)} at level {level} of {self.levels}"

    def masks(self, net: Net, level: int) -> Masks:
        """Masks for a level: the current ones without ``prune_fraction`` of the kept weights."""
        if self.couple:
            return coupled_masks(
                net.model,
                density=self.share(self.prune_fraction) ** level,
                score=self.score,
                distribution=self.distribution,
                generator=generator_for(self, "score", level),
                within=net.masks,
            )
        pattern = PATTERNS[self.pattern]
        left, groups = self.share(self.prune_fraction), not pattern.of_single_weights
        return masks_by_score(
            SCORES[self.score],
            prunable(net.model, linear=pattern.linear),
            generator_for(self, "score", level),
            density=left**level if groups else left,
            pattern=pattern,
            distribution=DISTRIBUTIONS[self.distribution],
            within=net.masks or None,
            of_dense=groups,
            count=self.count,
        )

    @property
    def released_count(self) -> Count:
        return keep_nearest if self.score == "lamp" else drop_nearest

    @property
    def decides_budgets(self) -> tuple[Hashable, ...]:
        return self.score == "lamp", self.distribution, self.pattern, self.levels, self.prune_fraction

    @property
    def never_differs(self) -> bool:
        """One ranking of the network, at shares of so few digits that LAMP's rounding is exact; or coupled units."""
        if self.couple:
            return True
        exponent = 1 if self.pattern == "weight" else self.levels
        few = exact_share(1 - self.prune_fraction).denominator ** exponent <= DIGITS
        return self.score == "lamp" and self.distribution == "global" and few

    def levels_of(self, layers: Sequence[NamedShape]) -> Iterator[Budget]:
        chosen = with_pattern(layers, self.pattern)
        return self.budgets(chosen) if chosen else iter(())

    @property
    def ranks_units_anew(self) -> bool:
        """Filters ranked by random or LAMP scores; and such as returned, since a layer kept more at a later level."""
        if self.pattern == "weight" or self.couple:
            return False
        return self.score in RANKED_BY_WEIGHTS or (
            self.distribution == "uniform_plus" and self.levels > 1 and self.holds("grows", self._layer_grew)
        )

    def _layer_grew(self, layers: Sequence[NamedShape]) -> bool:
        """Whether versions that counted every level by itself kept more filters of a layer than at the level before."""
        before = Budget.dense(chosen := with_pattern(layers, self.pattern), PATTERNS[self.pattern])
        kept, left, grew = before.kept, 1 - self.prune_fraction, False
        try:
            for level in range(1, self.levels + 1 if chosen else 0):
                now = before.pruned(chosen, self.distribution, left**level, self.released_count).kept
                grew |= any((one or 0) > (other or 0) for one, other in zip(now, kept, strict=True))
                kept = now
        except UserError:
            return grew
        return grew

    def budgets(self, layers: Sequence[Shaped], start: Budget | None = None) -> Iterator[Budget]:
        """Yield what each level leaves of the layers, or of the budget ``start``.

        Raises:
            UserError: the distribution cannot divide it.
        """
        first = budget = start or Budget.dense(layers, PATTERNS[self.pattern])
        left = self.share(self.prune_fraction)
        for level in range(1, self.levels + 1):
            before, share = (budget, left) if self.pattern == "weight" else (first, left**level)
            try:
                budget = before.pruned(layers, self.distribution, share, self.count, within=budget)
            except UserError as error:
                raise UserError(f"{self.asked_at(level)}, but {error}, or for fewer levels") from None
            yield budget


class PruneLevel(Finetune):
    """One level: prune the remaining weights, then finetune."""

    changes_network = True

    def __init__(self, config: PruneIterativeConfig, level: int) -> None:
        super().__init__("prune", config.finetune, level=level)
        self.config = config

    def enter(self, net: Net) -> None:
        if DENSE in self.config.keep and DENSE not in net.snapshots:
            net.snapshot(DENSE)
        masks = self.config.masks(net, self.level)
        if PRUNED in self.config.keep:
            self._keep_pruned(net, masks)
        net.set_masks(masks)

    def _keep_pruned(self, net: Net, masks: Masks) -> None:
        known_before = net.snapshots.get(PRUNED, {})
        for name, weight in ((n, w) for n, w in prunable(net.model).items() if n in masks):
            goes = ~masks[name] & net.masks.get(name, torch.ones_like(masks[name]))
            known_before[name] = torch.where(goes, weight.detach(), known_before.get(name, torch.zeros_like(weight)))
        net.snapshots[PRUNED] = known_before


class PruneIterative(Method):
    """Iterative pruning with finetuning: level l keeps (1 - prune_fraction)^l of the weights."""

    Config = PruneIterativeConfig
    config: PruneIterativeConfig
    takes_masks = True
    takes_compact = True

    def check_start(self, density: float | None, *, compact: bool) -> None:
        super().check_start(density, compact=compact)
        if density is not None:
            require_weight_pattern(self.config.pattern, density, couple=self.config.couple)

    def source(self) -> TrialConfig | None:
        return dense_source(self.config)

    def asked(self, model: nn.Module, stage: Stage) -> tuple[AskedShare, ...]:
        if self.config.couple:
            return (coupled_share(model, (1 - self.config.prune_fraction) ** stage.level),)
        return (replace(self.config.asked_share(model, stage.level), of_start=True),)

    def check(self, model: nn.Module, data: DataHeader) -> None:
        config = self.config
        if config.couple:
            if not config.file_starts:
                require_coupled(model, config.distribution, config.coupled_levels())
            return
        layers = layers_with(facts_of(model, data), PATTERNS[config.pattern], config.model)
        require_untied(layers, config.model)
        if not config.file_starts:
            self._check_levels(layers, Budget.dense(layers, PATTERNS[config.pattern]))

    def check_network(self, model: nn.Module) -> None:
        if self.config.couple:
            require_coupled(model, self.config.distribution, self.config.coupled_levels())

    def check_left(self, layers: Sequence[LeftLayer]) -> None:
        if self.config.couple:  # see check_network
            return
        pattern = PATTERNS[self.config.pattern]
        chosen = left_with(layers, pattern)
        self._check_levels(chosen, Budget.left(chosen, pattern))

    def _check_levels(self, layers: Sequence[Shaped], start: Budget) -> None:
        config, before = self.config, start
        for level, budget in enumerate(config.budgets(layers, start), start=1):
            asked = config.asked_at(level)
            if budget.total == start.total and level < config.levels:
                continue  # too few groups for a level of its own; the next one counts from the first network
            empty = DENSE in config.keep  # regrowth may fill layers
            require_left(budget, layers, config.pattern, asked, empty=empty, before=start)
            if config.pattern == "weight":
                require_fewer(budget, before, config.pattern, asked)
            before = budget

    def stages(self) -> Iterator[Stage]:
        for level in range(1, self.config.levels + 1):
            yield PruneLevel(self.config, level)
