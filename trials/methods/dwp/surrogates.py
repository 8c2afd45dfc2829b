"""Diversified weight pruning (DWP, https://arxiv.org/abs/2208.08677): input gradients of randomly pruned surrogates.

    theta_n = (1 - c b_n) theta,   b_n ~ Bernoulli(p_bern) per unit,   n = 1..N
    G(x) = 1/N sum_n dL(x; theta_n)/dx

c = 1 for the int(p_prune K) units with the smallest norms over all convolutions together. The paper's formula compares
w, without absolute value, to the upper percentile; its text, followed here, takes the lowest norms. Masks are drawn
anew at every call, so that every step of an attack sees other surrogates.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor, nn
from torch.func import functional_call

from trials.config.recipes import BackwardConfig
from trials.methods.dwp.attacks import input_gradient
from trials.sparsity import PATTERNS, prunable
from trials.sparsity.backward import BackwardPruner, Generators
from trials.sparsity.dropping import drop, thin

PrunedPass = Literal["both", "backward"]


class Surrogates:
    """An ensemble of randomly pruned copies of a trained network, of which only the gradient is ever made.

    Args:
        model: the network, in evaluation mode; it is left as it is.
        config: p_prune, p_bern and the pattern; candidates are selected once, here.
        count: N, how many surrogates a gradient is the mean over.
        pruned_pass: ``both``: a surrogate computes with its pruned weights (the paper). ``backward``: the forward pass
            is dense and only the gradient passes through pruned weights (gradient pruning in the unofficial code).
        generators: one by layer name, on the model's device.
    """

    def __init__(
        self, model: nn.Module, config: BackwardConfig, *, count: int, pruned_pass: PrunedPass, generators: Generators
    ) -> None:
        self.model, self.config, self.pruned_pass = model, config, pruned_pass
        self.count = count if 0 < config.p_bern < 1 and config.p_prune else 1  # otherwise they are all equal
        self.pattern = PATTERNS[config.pattern]
        weights = {name: weight.detach() for name, weight in prunable(model, linear=config.linear).items()}
        kept = drop({name: w.abs() for name, w in weights.items()}, config.p_prune, pattern=self.pattern)
        self.weights = weights
        self.kept = {name: mask.to(weights[name].dtype) for name, mask in kept.items()}
        by_layer = {name: generators(name.removesuffix(".weight")) for name in weights}
        self.generators = by_layer
        self._by_layer: Generators = lambda layer: by_layer[f"{layer}.weight"]

    def __call__(self, x: Tensor, labels: Tensor) -> Tensor:
        """G(x): the mean over the surrogates of each image's own input gradient, [B, C, H, W]."""
        if self.pruned_pass == "both":
            return self._mean(lambda images: functional_call(self.model, self.draw(), (images,)), x, labels)
        with BackwardPruner(self.model, self.config, self._by_layer):
            return self._mean(self.model, x, labels)

    def _mean(self, forward: Callable[[Tensor], Tensor], x: Tensor, labels: Tensor) -> Tensor:
        total = torch.zeros_like(x)
        for _ in range(self.count):
            total += input_gradient(forward, x, labels)
        return total.div_(self.count)

    def draw(self) -> dict[str, Tensor]:
        """The weights theta_n of one more surrogate, by name."""
        return {name: weight * self._multiplier(name) for name, weight in self.weights.items()}

    def _multiplier(self, name: str) -> Tensor:
        return thin(self.kept[name], self.config.p_bern, pattern=self.pattern, generator=self.generators[name])
