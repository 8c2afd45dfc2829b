"""Layer pruning: every convolution loses the same share of its own units, by one of three scores.

    taylor    s = |w dL/dw|          a unit is a weight (https://arxiv.org/abs/1906.10771, first order)
    gradient  s = |dL/dw|            a unit is a weight
    l1        s = sum |W[o, i]|      a unit is a kernel

L is the mean cross-entropy over ``score_batches`` batches of training images, not augmented, in an order drawn from the
trial's seed, with BN in evaluation mode. Source: the layer pruning beside DWP's unofficial code. (That code takes
whatever lies in weight.grad, and multiplies its l1 masks onto the weights without the kernel's dimensions, which fails
or masks wrongly: no variant does that.)
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

    ``variant: original``: units up to and including the (int(p_prune n) + 1)-th smallest score go: one more per layer,
    and everything that equals it.

    Attributes:
        score_batches: how many batches the gradients are a mean over.
        score_batch_size: images in each.
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
    """Dense network -> layer pruning -> finetuning under the mask, if wanted."""

    Config = LayerPruneConfig
