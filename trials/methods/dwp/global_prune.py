"""One-shot global pruning with random sparing of candidates: the masks of DWP.

https://arxiv.org/abs/2208.08677, section 3.2; unofficial code: zeyuanyin/Network-Pruning at be32233, global_pruning.py.

    K units over all convolutions, score s_u >= 0;  k = int(p_prune K);  candidates C: the k units with the smallest s
    m_u = 1 - [u in C] b_u,  b_u ~ Bernoulli(p_bern)

Paper and code disagree about the unit. The paper and the unofficial code's README rank single weights by |w|
(``pattern: weight``). The code, and therefore the tables in its README, ranks kernels W[o, i, :, :] by their L1 norm,
not divided by their area, and removes whole kernels (``pattern: kernel``, the default, to compare with those tables).
There p_prune is a share of kernels: half of ResNet-50's kernels are little more than a quarter of its weights, because
1x1 kernels are removed first. ``kernel_mean`` divides by the area; ``filter_l1`` is an older ranking of filters there.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator
from torch import Tensor

from trials.methods.base import generator_for
from trials.methods.dwp.drop import Drop, DropConfig
from trials.sparsity import PATTERNS, SCORES, Masks, Pattern
from trials.sparsity.dropping import drop, spare
from trials.training.net import Net
from trials.training.stage_context import StageContext


class GlobalPruneConfig(DropConfig):
    """Select the share ``p_prune`` of all units as candidates and drop each with probability ``p_bern``.

    ``variant: original`` drops only units strictly below the threshold, so ties drop fewer than int(p_prune K).

    Attributes:
        p_bern: probability that a candidate is dropped, drawn from one generator per trial and layer.
        pattern: the unit (see the module's docstring).
        keep_one: drop the best unit of every output channel last. Without it, as released, a global ranking of norms
            that are not divided by the kernel's area can empty whole layers of small kernels.
    """

    method: Literal["global_prune"] = "global_prune"
    p_bern: float = Field(default=1.0, ge=0, le=1)
    pattern: Literal["kernel", "weight", "kernel_mean", "filter_l1"] = "kernel"
    keep_one: bool = False

    @model_validator(mode="after")
    def _one_of_several(self) -> GlobalPruneConfig:
        if self.keep_one and self.pattern == "filter_l1":
            raise ValueError("keep_one is True, but filters are whole output channels: leave it out, or prune kernels")
        return self

    @property
    def unit(self) -> Pattern:
        return PATTERNS[self.pattern]

    @property
    def nominal_ratio(self) -> float:
        return self.p_prune * self.p_bern

    def scores(self, net: Net, weights: dict[str, Tensor], context: StageContext) -> dict[str, Tensor]:
        return SCORES["magnitude"](weights, generator_for(self, "score"))

    def masks(self, scores: dict[str, Tensor]) -> Masks:
        rule: Literal["exact", "below"] = "exact" if self.variant == "corrected" else "below"
        candidates = drop(scores, self.p_prune, pattern=self.unit, rule=rule, keep_one=self.keep_one)
        return spare(
            candidates,
            self.p_bern,
            pattern=self.unit,
            generators=lambda layer: generator_for(self, "bernoulli", layer),
        )


class GlobalPrune(Drop):
    """Global pruning: dense network -> mask -> optional finetuning under the mask."""

    Config = GlobalPruneConfig
