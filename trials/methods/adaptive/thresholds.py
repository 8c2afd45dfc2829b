"""Trainable thresholds, one per layer, in units of the standard deviation of its weights, with their gradients.

Retsinas et al. 2021, https://arxiv.org/abs/2006.02768. Notation: :mod:`trials.methods.adaptive.adaptive_sparsity`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from trials.methods.adaptive.rows import Rows
from trials.sparsity.adaptive import (
    MOST,
    analytic_sparsity,
    cut,
    sparsity_loss,
    sparsity_loss_gradient,
    threshold_gradient,
    threshold_of,
)
from trials.sparsity.counts import Density
from trials.sparsity.distributions import DISTRIBUTIONS, Count
from trials.sparsity.masks import Masks, build_masks
from trials.sparsity.patterns import PATTERNS
from trials.training import launches

__all__ = [
    "MOST",
    "Thresholded",
    "analytic_sparsity",
    "cut",
    "sparsity_loss",
    "threshold_gradient",
    "threshold_of",
]


class Thresholded:
    """The latent weights of all layers that have thresholds, and per layer, in the same order, r, sigma, t and n, [L].

    Attributes:
        w: latent weights by name.
        r: the thresholds, as one tensor.
        n: number of weights of each layer, in r's dtype.
        sigma, t: standard deviation and threshold at the last :meth:`centre`; zero before.
    """

    def __init__(self, weights: Mapping[str, Tensor], r: float) -> None:
        self.w = {name: weight.detach().clone() for name, weight in weights.items()}
        like = next(iter(self.w.values()), torch.empty(0))
        self.counts = [w.numel() for w in self.w.values()]
        self.n = torch.tensor(self.counts, dtype=like.dtype, device=like.device)
        # the released code rounds r to float32 in float64 networks too
        self.r = torch.full_like(self.n, float(torch.tensor(r, dtype=torch.float32)))
        self.sigma, self.t = torch.zeros_like(self.n), torch.zeros_like(self.n)
        self.rows: Rows | None = None
        if self.w and launches.few_launches(like.device):
            self._lie_in_rows(Rows(list(self.w.values())))

    def _lie_in_rows(self, rows: Rows) -> None:
        """Keep all latent weights in one matrix, where few operators do what others do layer by layer."""
        self.rows = rows
        self.w = dict(zip(self.w, rows.views(rows.values), strict=True))
        self.share = self.n / self.n.sum()
        self._less_one = self.n - 1
        self._products = torch.zeros_like(rows.values)
        self._pruned = rows.views(self._products)

    def centre(self) -> None:
        """w <- w - mean(w); update sigma and t. In place, because a captured step reads fixed memory."""
        with torch.no_grad():
            if self.rows is not None:
                mean = self.rows.sums(self.rows.values) / self.n
                self.rows.values.addcmul_(self.rows.filled, self.rows.spread(mean), value=-1)
                torch.sqrt(self.rows.sums(self.rows.values.square()) / self._less_one, out=self.sigma)
                self.t.copy_(cut(self.r, self.sigma))
                return
            for w in self.w.values():
                w -= w.mean()
            if self.w:
                self.sigma.copy_(torch.stack([w.std() for w in self.w.values()]))
                self.t.copy_(cut(self.r, self.sigma))

    def masks(self) -> Masks:
        """Masks 1[|w| > t], by weight name."""
        if self.rows is not None:
            kept = self.rows.values.abs() > self.rows.spread(self.t)
            return dict(zip(self.w, self.rows.views(kept), strict=True))
        return {name: w.abs() > t for (name, w), t in zip(self.w.items(), self.t, strict=True)}

    def exact_masks(self, density: Density, distribution: str, count: Count | None = None) -> Masks:
        """Masks of exactly this density: a cut of |w|/t other than 1, common to all layers or one per layer."""
        return build_masks(
            {name: w.abs() / t for (name, w), t in zip(self.w.items(), self.t, strict=True)},
            density=density,
            pattern=PATTERNS["weight"],
            distribution=DISTRIBUTIONS[distribution],
            count=count,
        )

    @torch.no_grad()
    def pass_through(self, effective: Mapping[str, Tensor], *, trainable: bool = True) -> None:
        """Set the gradients of w to those of W (``effective``, by name); if trainable, add dL/dr to r's gradient."""
        for name, w in self.w.items():
            w.grad = effective[name].grad
        if self.w and trainable:
            task = threshold_gradient(self._sums_over_pruned(effective), self.r, self.sigma, self.t)
            self.r.grad = task if self.r.grad is None else self.r.grad + task

    def take_sparsity_gradient(self, *, starget: float, lv: float, mode: str) -> Tensor:
        """Set r's gradient to that of the sparsity loss; return the loss. For weights that lie in rows."""
        loss, self.r.grad = sparsity_loss_gradient(self.r.detach(), self.share, starget=starget, lv=lv, mode=mode)
        return loss

    def _sums_over_pruned(self, effective: Mapping[str, Tensor]) -> Tensor:
        """Sum of G w over each layer's pruned weights, [L]; w - W is w where it is pruned, and exactly 0 elsewhere."""
        if self.rows is not None:
            products = torch._foreach_sub(list(self.w.values()), [effective[name] for name in self.w])
            torch._foreach_mul_(products, [w.grad for w in self.w.values() if w.grad is not None])
            torch._foreach_copy_(self._pruned, products)
            return self.rows.sums(self._products)
        sums = []
        for name, w in self.w.items():
            assert w.grad is not None
            sums.append((w - effective[name]).mul_(w.grad).sum())
        return torch.stack(sums)

    def analytic_density(self) -> list[float]:
        """d = 1 - s of each layer. Waits for the device."""
        return (1 - analytic_sparsity(self.r.detach().double())).tolist()

    def state_dict(self) -> dict[str, Any]:
        return {"w": self.w, "r": self.r.detach(), "sigma": self.sigma, "t": self.t}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        with torch.no_grad():
            for name, w in self.w.items():
                w.copy_(state["w"][name])
            for tensor, saved in ((self.r, "r"), (self.sigma, "sigma"), (self.t, "t")):
                tensor.copy_(state[saved])
