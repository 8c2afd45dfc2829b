"""Adversarial images by momentum iterative FGSM (Dong et al. 2018, https://arxiv.org/abs/1710.06081).

g <- mu g + G(x) / mean |G(x)|      G: the input gradient of one network or of an ensemble
x <- x + (epsilon / steps) sign(g)  projected onto the ball |x - x_0| <= epsilon and onto valid pixels
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

InputGradient = Callable[[Tensor, Tensor], Tensor]
"""Maps images [B, C, H, W] and labels [B] to dL/dx of each image's own cross-entropy, [B, C, H, W]."""


@dataclass(frozen=True)
class Attack:
    """Parameters of the MI-FGSM attack; calling it changes images.

    Attributes:
        epsilon: largest change of a pixel, for pixels in 0..1.
        steps: number of iterations, each of size epsilon/steps.
        momentum: mu.
        targeted: move towards the given labels instead of away from them.
    """

    epsilon: float
    steps: int
    momentum: float
    targeted: bool

    def __call__(self, gradient: InputGradient, x: Tensor, labels: Tensor, pixels: tuple[Tensor, Tensor]) -> Tensor:
        """Return the adversarial images. ``pixels``: bounds, the normalised values of 0 and 1, [C, 1, 1] each."""
        black, white = pixels
        radius = self.epsilon * (white - black)
        low, high = (x - radius).maximum(black), (x + radius).minimum(white)
        step = (-radius if self.targeted else radius) / max(self.steps, 1)
        changed, g = x, torch.zeros_like(x)
        for _ in range(self.steps):  # clamp_min avoids 0/0 for images with zero gradient
            found = gradient(changed, labels)
            g = self.momentum * g + found / found.abs().mean((1, 2, 3), keepdim=True).clamp_min(1e-30)
            changed = (changed + step * g.sign()).maximum(low).minimum(high)
        return changed


def input_gradient(forward: Callable[[Tensor], Tensor], x: Tensor, labels: Tensor) -> Tensor:
    """dL/dx of each image's cross-entropy, [B, C, H, W]. Leaves the gradients of parameters unchanged."""
    with torch.enable_grad():
        x = x.detach().requires_grad_(True)
        loss = F.cross_entropy(forward(x), labels, reduction="sum")
        (gradient,) = torch.autograd.grad(loss, x)
    return gradient


@dataclass
class Fooled:
    """Success counts of an attack on one network, as scalars on the device.

    Attributes:
        right: unchanged images that the network classifies correctly.
        fooled: those of them that it classifies wrongly after the attack; targeted: as the target class.
    """

    right: Tensor
    fooled: Tensor

    @classmethod
    def zero(cls, device: torch.device) -> Fooled:
        return cls(*torch.zeros(2, dtype=torch.int64, device=device).unbind())

    def add(self, before: Tensor, after: Tensor, y: Tensor, target: Tensor | None) -> None:
        """Count a batch. ``before``, ``after``: classes [B] predicted before and after the attack."""
        right = before == y
        self.right = self.right + right.sum()
        self.fooled = self.fooled + (right & (after != y if target is None else after == target)).sum()

    def rate(self) -> float:
        """Share of the correctly classified images that are fooled; 0 if there are none."""
        return int(self.fooled) / max(int(self.right), 1)
