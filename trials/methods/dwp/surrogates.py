"""Mean input gradient of randomly pruned surrogates (diversified weight pruning, https://arxiv.org/abs/2208.08677).

    theta_n = (1 - c b_n) theta,   b_n ~ Bernoulli(p_bern) per unit,   n = 1..N
    G(x) = 1/N sum_n dL(x; theta_n)/dx

c = 1 for the int(p_prune K) units with the smallest norms, ranked over all convolutions together. The paper's formula
(section 3.2) compares w without absolute value to the upper percentile; its text, followed here, takes the lowest
norms. Every call draws new masks, so every step of an attack uses different surrogates.
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
    """Input gradient of an ensemble of randomly pruned copies of a trained network. Callable as an InputGradient.

    Args:
        model: the network, in evaluation mode; it is not changed.
        config: p_prune, p_bern and the pattern. Candidates are selected once, at construction.
        count: N, the number of surrogates that a gradient is averaged over.
        pruned_pass: ``both``: a surrogate computes with its pruned weights (the paper). ``backward``: the forward pass
            is dense and only the gradient propagates through pruned weights (the unofficial code).
        generators: maps a layer name to its generator on the model's device.
    """

    def __init__(
        self, model: nn.Module, config: BackwardConfig, *, count: int, pruned_pass: PrunedPass, generators: Generators
    ) -> None:
        self.model, self.config, self.pruned_pass = model, config, pruned_pass
        self.count = count if 0 < config.p_bern < 1 and config.p_prune else 1  # otherwise all surrogates are equal
        self.pattern = PATTERNS[config.pattern]
        weights = {name: weight.detach() for name, weight in prunable(model, linear=config.linear).items()}
        kept = drop({name: w.abs() for name, w in weights.items()}, config.p_prune, pattern=self.pattern)
        self.weights = weights
        self.kept = {name: mask.to(weights[name].dtype) for name, mask in kept.items()}
        by_layer = {name: generators(name.removesuffix(".weight")) for name in weights}
        self.generators = by_layer
        self._by_layer: Generators = lambda layer: by_layer[f"{layer}.weight"]

    def __call__(self, x: Tensor, labels: Tensor) -> Tensor:
        """G(x): each image's own input gradient, averaged over the surrogates, [B, C, H, W]."""
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
        """Draw a new surrogate: its weights theta_n, by name."""
        return {name: weight * self._multiplier(name) for name, weight in self.weights.items()}

    def _multiplier(self, name: str) -> Tensor:
        return thin(self.kept[name], self.config.p_bern, pattern=self.pattern, generator=self.generators[name])
