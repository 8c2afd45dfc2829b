"""GReg-2: growing regularisation picks, too (Wang et al. 2021, https://arxiv.org/abs/2012.09243, section 3.2; the
published code, spec greg, section 8).

Under one and the same penalty, weights in flat directions of the loss shrink faster: magnitudes drift towards an order
that knows the Hessian. So all groups are penalised alike first, and the lowest are picked then.

    before the pick:  lambda[all] += granularity of the pick;  R as if the r n lowest of now were picked
                      picked = the r n lowest mean |theta|, once lambda >= limit of the pick
    after it:         lambda[picked] += granularity;  lambda[kept] = recover
    finished, if picked and (lambda > limit, or its own R >= limit)
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
    """Grow the penalty on all groups, pick the lowest, grow it on them until they hardly count; then remove them.

    Attributes:
        reg_granularity_pick: by how much an update raises lambda of all groups before the pick.
        reg_upper_limit_pick: the lambda at which groups are picked.
        reg_granularity_recover: lambda of the kept groups from the update after the pick, to the end. Released: -1e-4,
            which cancels a weight decay of 1e-4; the authors call negative regularisation a bad idea. 0 is none.
    """

    method: Literal["greg2"] = "greg2"
    inherit_pruned: Literal["pr"] = "pr"  # it picks by itself
    reg_granularity_pick: float = Field(default=1e-5, gt=0)
    reg_upper_limit_pick: float = Field(default=1e-2, gt=0)
    reg_granularity_recover: float = Field(default=-1e-4, le=0)

    @model_validator(mode="after")
    def _pick_is_reached(self) -> Greg2Config:
        must_reach("reg_granularity_pick", self.reg_granularity_pick, "reg_upper_limit_pick", self.reg_upper_limit_pick)
        return self


class Greg2Stage(Growing):
    """The prune stage."""

    def enter(self, net: Net) -> None:
        self.layers = {name: GrowingLayer(count) for name, count in self.config.counts(net).items()}

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
        """picked = the lowest of now. Lambda of the others stays until the next update."""
        layer.pruned = pick_groups(group_scores(layer.weight, self.config.pattern), layer.count, "min")
        layer.picked = self.iteration

    def ratio(self, layer: GrowingLayer) -> Tensor:
        if layer.pruned is not None:
            return super().ratio(layer)
        return lowest_ratio(group_scores(layer.weight, self.config.pattern), layer.count)


class Greg2(GrowingMethod):
    """Dense network -> lambda grows on all groups, then on the lowest -> they are removed -> finetuning."""

    Config = Greg2Config
    Prune = Greg2Stage
    config: Greg2Config
