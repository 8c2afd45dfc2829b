"""Training with pruned backward passes: dense forward pass, gradients propagate only through the largest weights.

    forward:   y = conv(x, W)
    backward:  dL/dx = conv_transpose(dL/dy, W M),  dL/dW = corr(x, dL/dy);  M = 1 - [|W| among the smallest] B

:mod:`trials.sparsity.backward` has the formulas. Any stage of any method can use the same backward pass through its
recipe's field ``backward``; here ``train.backward`` is on by default. The network itself is not pruned: density is 1.
Columns ``backward_...`` report what the backward passes drop. Source: gredient_pruning.py (sic) of DWP's unofficial
code (zeyuanyin/Network-Pruning at be32233; https://arxiv.org/abs/2208.08677), made for adversarial input gradients; its
authors did not train with it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

from trials.config.recipes import BackwardConfig, PretrainRecipe
from trials.config.source_config import StartsDense
from trials.config.trial_config import TrialConfig
from trials.methods.base import Method, Stage, TrainStage
from trials.methods.dense import dense_source


class GradientPruneRecipe(PretrainRecipe):
    """200 epochs, as in dense training, with pruned backward passes."""

    backward: BackwardConfig | None = BackwardConfig()


class GradientPruneConfig(StartsDense):
    """Train with pruned backward passes.

    Attributes:
        pretrain: dense training beforehand; 0 epochs by default, so that ``train`` starts from initialisation.
        train: training with pruned backward passes, configured by ``train.backward``.
    """

    method: Literal["gradient_prune"] = "gradient_prune"
    pretrain: PretrainRecipe = PretrainRecipe(epochs=0)
    train: GradientPruneRecipe = GradientPruneRecipe()


class GradientPrune(Method):
    """Gradient pruning: optional dense training -> training with pruned backward passes."""

    Config = GradientPruneConfig
    config: GradientPruneConfig

    def source(self) -> TrialConfig | None:
        return dense_source(self.config)

    def stages(self) -> Iterator[Stage]:
        yield TrainStage("train", self.config.train)
