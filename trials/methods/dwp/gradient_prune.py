"""Training with pruned backward passes: the forward pass is dense, gradients pass through the largest weights only.

    forward:   y = conv(x, W)
    backward:  dL/dx = conv_transpose(dL/dy, W M),  dL/dW = corr(x, dL/dy);  M = 1 - [|W| among the smallest] B

The formulas, and the option ``backward`` that gives any stage of any method the same backward pass, are in
:mod:`trials.sparsity.backward`. Here ``train.backward`` is on unless it is said otherwise. Nothing is removed from the
network: its density is 1. Rows say what its backward passes lose (``backward_``...). Source: the gradient pruning of
DWP's unofficial code (https://arxiv.org/abs/2208.08677), which uses it for adversarial input gradients and never
trained with it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

from trials.config.recipes import BackwardConfig, PretrainRecipe
from trials.config.trial_config import StartsDense, TrialConfig
from trials.methods.base import Method, Stage, TrainStage
from trials.methods.dense import dense_source


class GradientPruneRecipe(PretrainRecipe):
    """200 epochs, as dense training has, with pruned backward passes."""

    backward: BackwardConfig | None = BackwardConfig()


class GradientPruneConfig(StartsDense):
    """Train with pruned backward passes.

    Attributes:
        pretrain: dense training before; by default none, which trains from initialisation.
        train: the training with pruned backward passes; ``train.backward`` says how.
    """

    method: Literal["gradient_prune"] = "gradient_prune"
    pretrain: PretrainRecipe = PretrainRecipe(epochs=0)
    train: GradientPruneRecipe = GradientPruneRecipe()


class GradientPrune(Method):
    """(Dense network ->) training with pruned backward passes."""

    Config = GradientPruneConfig
    config: GradientPruneConfig

    def source(self) -> TrialConfig | None:
        return dense_source(self.config)

    def stages(self) -> Iterator[Stage]:
        yield TrainStage("train", self.config.train)
