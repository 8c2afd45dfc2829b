"""GReg-2: a growing penalty on all groups decides which to pick; the picked groups are then removed.

Wang et al. 2021, https://arxiv.org/abs/2012.09243, section 3; released code: MingSun-Tse/Regularization-Pruning at
a4044028, pruner/reg_pruner.py.

Under an equal penalty, weights in flat directions of the loss shrink faster, so the order of magnitudes drifts towards
a Hessian-aware order. Therefore all groups are penalised equally first, and the lowest are picked afterwards.

    before the pick:  lambda[all] += pick granularity;  R as if the k currently lowest groups were picked
                      picked = the k lowest mean |theta|, once lambda >= pick limit     k: see greg1.py
    after the pick:   lambda[picked] += granularity;  lambda[kept] = recover
    a layer is finished if it has picked and (lambda > limit, or its own R >= limit)
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from pydantic import Field, model_validator
from torch import Tensor

from trials.methods.greg.groups import group_scores, lowest_ratio, pick_groups
from trials.methods.greg.growing import Growing, GrowingConfig, GrowingLayer, GrowingMethod, must_reach
from trials.training.net import Net


class Greg2Config(GrowingConfig):
    """Grow the penalty on all groups, pick the lowest groups, grow the penalty on these, then remove them.

    Attributes:
        reg_granularity_pick: increase of lambda of all groups per update before the pick.
        reg_upper_limit_pick: lambda at which groups are picked.
        reg_granularity_recover: lambda of the kept groups from the update after the pick until the stage ends. The
            released value, -1e-4, cancels a weight decay of 1e-4; comments in the released code call negative
            regularisation a bad idea. 0 turns it off.
    """

    method: Literal["greg2"] = "greg2"
    inherit_pruned: Literal["pr"] = "pr"  # GReg-2 picks its own groups, so only counts can be inherited
    reg_granularity_pick: float = Field(default=1e-5, gt=0)
    reg_upper_limit_pick: float = Field(default=1e-2, gt=0)
    reg_granularity_recover: float = Field(default=-1e-4, le=0)

    @model_validator(mode="after")
    def _pick_is_reached(self) -> Greg2Config:
        must_reach("reg_granularity_pick", self.reg_granularity_pick, "reg_upper_limit_pick", self.reg_upper_limit_pick)
        return self


class Greg2Stage(Growing):
    """The prune stage of GReg-2: grows lambda of all groups, picks, then grows lambda of the picked groups."""

    def enter(self, net: Net) -> None:
        self.layers = {name: GrowingLayer(count) for name, count in self.config.counts(net).items()}

    @property
    def updates_before_growing(self) -> int:
        return int(self.config.reg_upper_limit_pick / self.config.reg_granularity_pick * (1 + 1e-6)) + 1

    def update(self, growing: Sequence[GrowingLayer]) -> None:
        config = self.config
        for layer, r in zip(growing, self.ratios(growing), strict=True):
            layer.observe(r)
            if layer.pruned is not None:
                layer.grow(config.reg_granularity_prune, kept=config.reg_granularity_recover)
            else:
                layer.grow(config.reg_granularity_pick)
                if layer.of_pruned >= config.reg_upper_limit_pick:
                    self.pick(layer)
            if layer.pruned is not None:
                self.finish(layer, layer.ratio_reached(config.mag_ratio_limit))

    def pick(self, layer: GrowingLayer) -> None:
        """Pick the currently lowest groups. Kept groups keep the pick's lambda until the next update, as released."""
        layer.pruned = pick_groups(group_scores(layer.weight, self.config.pattern), layer.count, "min")
        layer.picked = self.iteration

    def ratio(self, layer: GrowingLayer) -> Tensor:
        if layer.pruned is not None:
            return super().ratio(layer)
        return lowest_ratio(group_scores(layer.weight, self.config.pattern), layer.count)


class Greg2(GrowingMethod):
    """GReg-2: dense network -> lambda grows on all groups, then on the lowest -> they are removed -> finetuning."""

    Config = Greg2Config
    Prune = Greg2Stage
    config: Greg2Config
