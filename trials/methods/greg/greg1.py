"""GReg-1: growing regularisation on the groups that L1 would remove (Wang et al. 2021,
https://arxiv.org/abs/2012.09243, section 3.1; the published code, spec greg, section 7).

    picked = the r n lowest mean |theta| of each layer, once
    update:  R <- 0.9 R + 0.1 r;  lambda[picked] += granularity
             finished, if lambda > limit, or every layer's R >= limit (ratio_exit says how)

All a step adds to a step of dense training is one multiply-add per pruned layer.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from pydantic import model_validator

from trials.methods.greg.groups import Pick
from trials.methods.greg.growing import Growing, GrowingConfig, GrowingLayer, GrowingMethod
from trials.training.net import Net


class Greg1Config(GrowingConfig):
    """Grow the penalty on a fixed choice of groups until they hardly count; then remove them.

    ``variant: original`` changes the default of ``ratio_exit`` to what the released code does.

    Attributes:
        pick_pruned: the lowest scores (min), the highest (max), or any (rand): the controls.
        ratio_exit: when R finishes a layer. ``joint``: once R of all layers that still grow is at the limit; they
            finish together. ``own``: once its own is. ``mid_sweep``: as released: judged layer by layer within an
            update, on the R of all layers as they are at that moment (finished ones included, so that one that
            finished by its lambda with a low R blocks the others).
    """

    method: Literal["greg1"] = "greg1"
    pick_pruned: Pick = "min"
    ratio_exit: Literal["joint", "own", "mid_sweep"] = "joint"

    @model_validator(mode="before")
    @classmethod
    def _as_released(cls, content: Any) -> Any:
        if isinstance(content, Mapping) and content.get("variant") == "original":
            return {"ratio_exit": "mid_sweep", **content}
        return content


class Greg1Stage(Growing):
    """The prune stage."""

    def enter(self, net: Net) -> None:
        picked = self.config.picks(net, self.config.pick_pruned)
        self.layers = {name: GrowingLayer(int(pruned.sum()), pruned, picked=0) for name, pruned in picked.items()}

    def update(self, growing: Sequence[GrowingLayer]) -> None:
        rs = self.ratios(growing)
        if self.config.ratio_exit != "mid_sweep":
            for layer, r in zip(growing, rs, strict=True):
                layer.observe(r)
        for layer, r in zip(growing, rs, strict=True):
            if self.config.ratio_exit == "mid_sweep":
                layer.observe(r)
            layer.grow(self.config.reg_granularity_prune, kept=0.0)
            self.finish(layer, self._ratio_exit(layer, growing))

    def _ratio_exit(self, layer: GrowingLayer, growing: Sequence[GrowingLayer]) -> bool:
        limit = self.config.mag_ratio_limit
        if self.config.ratio_exit == "own":
            return layer.ratio_reached(limit)
        judged = growing
        if self.config.ratio_exit == "mid_sweep":
            judged = [other for other in self.layers.values() if other.ratio is not None]
        return bool(judged) and all(other.ratio_reached(limit) for other in judged)


class Greg1(GrowingMethod):
    """Dense network -> lambda grows on the lowest groups -> they are removed -> finetuning."""

    Config = Greg1Config
    Prune = Greg1Stage
    config: Greg1Config
