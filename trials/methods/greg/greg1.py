"""GReg-1: a growing penalty on the groups of lowest L1 norm, which are then removed.

Wang et al. 2021, https://arxiv.org/abs/2012.09243, section 3; released code: MingSun-Tse/Regularization-Pruning at
a4044028, pruner/reg_pruner.py.

    picked = the k lowest mean |theta| of each layer's n groups, once   k = min(ceil(pr n), n - 1), pr: the ratio
    update:  R <- 0.9 R + 0.1 r;  lambda[picked] += granularity         r, R: see trials/methods/greg/growing.py
             a layer is finished if lambda > limit, or if every layer's R >= limit (details: ratio_exit)

Compared with dense training, a step costs one extra multiply-add per pruned layer.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from pydantic import model_validator

from trials.methods.greg.groups import Pick
from trials.methods.greg.growing import Growing, GrowingConfig, GrowingLayer, GrowingMethod
from trials.training.net import Net


class Greg1Config(GrowingConfig):
    """Grow the penalty on groups chosen once at the start, then remove them.

    ``variant: original`` changes the default of ``ratio_exit`` to ``mid_sweep``, as in the released code.

    Attributes:
        pick_pruned: pick the lowest scores (min), or as controls the highest (max) or random groups (rand).
        ratio_exit: when R finishes a layer. ``joint``: all unfinished layers finish together once each has R at the
            limit or above. ``own``: each layer finishes once its own R does. ``mid_sweep``, as released: the condition
            is checked layer by layer within an update, on the R of all layers at that moment. Finished layers count
            too, so a layer that finished by its lambda with a low R blocks the ratio exit of the others.
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
    """The prune stage of GReg-1: picks on entry, then grows lambda of the picked groups."""

    def enter(self, net: Net) -> None:
        picked = self.config.picks(net, self.config.pick_pruned)
        self.layers = {name: GrowingLayer(int(pruned.sum()), pruned, picked=0) for name, pruned in picked.items()}

    def update(self, growing: Sequence[GrowingLayer]) -> None:
        rs = self.ratios(growing)
        if self.config.ratio_exit != "mid_sweep":  # every R is current before any layer is judged
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
    """GReg-1: dense network -> lambda grows on the lowest groups -> they are removed -> finetuning."""

    Config = Greg1Config
    Prune = Greg1Stage
    config: Greg1Config
