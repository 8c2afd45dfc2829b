"""Layer pruning: drop the same share of units in every convolution, ranked by one of three scores.

    taylor    s = |w dL/dw|          unit: a weight (https://arxiv.org/abs/1906.10771, first order)
    gradient  s = |dL/dw|            unit: a weight
    l1        s = sum |W[o, i]|      unit: a kernel

L is the mean cross-entropy over ``score_batches`` batches of training images without augmentation, in an order drawn
from the trial's seed, with BN in evaluation mode. Source: layer_pruning.py of zeyuanyin/Network-Pruning at be32233. No
variant reproduces two of its faults: it reads the current content of weight.grad, and it multiplies l1 masks onto
weights without the kernel's dimensions, which fails or masks wrongly.
"""

from __future__ import annotations

from itertools import islice
from typing import Literal

from pydantic import Field
from torch import Tensor

from trials.methods.base import generator_for
from trials.methods.dwp.drop import Drop, DropConfig
from trials.sparsity import PATTERNS, SCORES, Masks, Pattern
from trials.sparsity.dropping import drop
from trials.sparsity.gradients import GRADIENT_SCORES, mean_gradients
from trials.training.net import Net
from trials.training.stage_context import StageContext


class LayerPruneConfig(DropConfig):
    """Drop ``p_prune`` of each convolution's units.

    ``variant: original`` drops units up to and including the (int(p_prune n) + 1)-th smallest score: one more per
    layer, plus all ties.

    Attributes:
        score: what ranks units: |w dL/dw| (``taylor``), |dL/dw| (``gradient``), or a kernel's L1 norm.
        score_batches: number of batches that the gradients are averaged over.
        score_batch_size: images per batch.
    """

    method: Literal["layer_prune"] = "layer_prune"
    score: Literal["taylor", "gradient", "l1"] = "taylor"
    score_batches: int = Field(default=1, ge=1)
    score_batch_size: int = Field(default=128, ge=1)

    @property
    def unit(self) -> Pattern:
        return PATTERNS["kernel" if self.score == "l1" else "weight"]

    @property
    def per_layer(self) -> bool:
        return True

    def scores(self, net: Net, weights: dict[str, Tensor], context: StageContext) -> dict[str, Tensor]:
        if self.score == "l1":
            return SCORES["magnitude"](weights, generator_for(self, "score"))
        batches = islice(context.look("train", self.score_batch_size), self.score_batches)
        return GRADIENT_SCORES[self.score](weights, mean_gradients(net, weights, batches))

    def masks(self, scores: dict[str, Tensor]) -> Masks:
        rule: Literal["exact", "through"] = "exact" if self.variant == "corrected" else "through"
        return drop(scores, self.p_prune, pattern=self.unit, per_layer=True, rule=rule)


class LayerPrune(Drop):
    """Layer pruning: dense network -> mask -> optional finetuning under the mask."""

    Config = LayerPruneConfig
    prunes = ("weight", "kernel")
