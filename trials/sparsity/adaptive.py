"""Adaptive sparsity for any module: layers learn the thresholds that prune their weights.

Retsinas et al. 2021, https://arxiv.org/abs/2006.02768; released code: georgeretsi/SparsityLoss at 9869e8c. A layer with
n weights w and standard deviation sigma has a trainable threshold r:

    W = w' 1[|w'| > t]        w' = w - mean(w)        t = clamp(r, 0, 5) sigma + eps

    dL/dw = dL/dW             dL/dr = -(sigma/t) sum_{|w'| <= t} dL/dW w'   if 0 < r < 5, else 0

The forward pass changes nothing that is stored. The released code centres the stored weights in every forward pass;
plain SGD with momentum and weight decay gives the same W either way, because centring commutes with its updates.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from trials.sparsity.module_checks import require_own_weights, require_unmasked, require_values, widest

EPS = 1e-6
MOST = 5.0
"""Upper clamp of thresholds, in standard deviations."""


def threshold_of(sparsity: float) -> float:
    """r = sqrt(2) erfinv(s), at which Gaussian weights have sparsity s."""
    return math.sqrt(2) * float(torch.special.erfinv(torch.tensor(sparsity, dtype=torch.float64)))


def analytic_sparsity(r: Tensor) -> Tensor:
    """s = erf(r / sqrt 2), the sparsity of Gaussian weights; r is not clamped."""
    return torch.erf(r / math.sqrt(2))


def sparsity_loss(r: Tensor, n: Tensor, *, starget: float, lv: float, mode: str) -> Tensor:
    """The sparsity loss, a scalar. ``r``, ``n``: threshold and number of weights per layer, [L]; ``starget``: T."""
    if not len(r):
        return r.sum()
    s = analytic_sparsity(r)
    if mode == "fixed":
        return lv * (s - starget).square().mean()
    missing = starget - (n * s).sum() / n.sum()
    return lv * (missing.square() if mode == "adaptive" else missing.relu())


def sparsity_loss_gradient(r: Tensor, share: Tensor, *, starget: float, lv: float, mode: str) -> tuple[Tensor, Tensor]:
    """The sparsity loss and its gradient for r, [L], in fewer operators than autograd takes.

    ``share``: n / sum n, per layer; other arguments as of :func:`sparsity_loss`. ds/dr = sqrt(2/pi) exp(-r^2 / 2).
    """
    s, slope = torch.erf(r * math.sqrt(0.5)), torch.exp(r.square() * -0.5)
    scale = lv * math.sqrt(2 / math.pi)
    if mode == "fixed":
        over = s - starget
        return over.square().mean() * lv, over * slope * (2 * scale / len(r))
    missing = starget - share.dot(s)
    if mode == "adaptive":
        return missing.square() * lv, share * slope * (missing * (-2 * scale))
    return missing.relu() * lv, share * slope * (missing > 0) * -scale


def cut(r: Tensor, sigma: Tensor) -> Tensor:
    """t = clamp(r, 0, 5) sigma + eps, per layer [L]."""
    return r.detach().clamp(0, MOST) * sigma + EPS


def threshold_gradient(pruned: Tensor, r: Tensor, sigma: Tensor, t: Tensor) -> Tensor:
    """dL/dr = -(sigma/t) sum G w if 0 < r < 5, else 0, per layer [L]; ``pruned`` holds the sums over pruned weights.

    The interval is open by definition here, because the gradient of clamp at its ends depends on the torch version.
    """
    return torch.where((r > 0) & (r < MOST), -(sigma / t) * pruned, 0)


class _Cut(torch.autograd.Function):
    """w, r -> W, with the gradients of the module's docstring. Half precision is compared in float32."""

    @staticmethod
    def forward(ctx: Any, w: Tensor, r: Tensor) -> Tensor:
        centred = w.to(torch.promote_types(w.dtype, torch.float32))
        centred = centred - centred.mean()
        sigma = centred.std()
        t = cut(r, sigma)
        keep = centred.abs() > t
        ctx.save_for_backward(centred, keep, r, sigma, t)
        return (centred * keep).to(w.dtype)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor | None]:
        centred, keep, r, sigma, t = ctx.saved_tensors
        if not ctx.needs_input_grad[1]:
            return gradient, None
        pruned = (gradient * centred * ~keep).sum()
        return gradient, threshold_gradient(pruned, r, sigma, t).to(r.dtype)


class LearnedThreshold(nn.Module):
    """Parametrization of a weight: prunes it by the threshold ``r``, a scalar in units of its standard deviation.

    ``r`` is a parameter, or a buffer if it is not trained.
    """

    r: Tensor

    def __init__(self, weight: Tensor, r: float, *, trainable: bool) -> None:
        super().__init__()
        value = torch.tensor(r, dtype=torch.float32, device=weight.device)
        value = value.to(torch.promote_types(weight.dtype, torch.float32))
        if trainable:
            self.r = nn.Parameter(value)
        else:
            self.register_buffer("r", value)

    def forward(self, weight: Tensor) -> Tensor:
        pruned: Tensor = _Cut.apply(weight, self.r)
        return pruned


def sparsify_adaptive(
    model: nn.Module,
    *,
    sparsity: float = 0.5,
    threshold: float | None = None,
    trainable: bool = True,
    min_weights: int = 1000,
) -> list[nn.Parameter]:
    """Give convolutions and linear layers thresholds that prune their weights; ``iter_sparsify`` of the release.

    The weights become parametrized (:mod:`torch.nn.utils.parametrize`): ``layer.weight`` is the pruned weight, and the
    parameter that is trained is ``layer.parametrizations.weight.original``. Layers that have a threshold keep it.

    Args:
        model: any module; its Conv2d and Linear layers are changed in place.
        sparsity: T; the first threshold is that of Gaussian weights of sparsity 0.6 T, or T if it is not trained.
        threshold: the initial threshold itself, in standard deviations, in [0, 5].
        trainable: whether thresholds are trained; if not, they keep their value.
        min_weights: layers with fewer weights stay as they are.

    Returns:
        The trained thresholds, scalars, for an optimiser with a hundredth of the rate, as released, and no decay.

    Raises:
        ValueError: sparsity or threshold is out of range, or a weight has no values, is not finite, or is masked,
            computed or shared.
    """
    _require_sparsity(sparsity)
    require_values(model)
    r = threshold_of((0.6 if trainable else 1.0) * sparsity) if threshold is None else threshold
    if not 0 <= r <= MOST:
        raise ValueError(f"threshold is {threshold}, but must be in [0, {MOST:g}] standard deviations")
    named = {name: layer for name, layer in model.named_modules() if isinstance(layer, (nn.Conv2d, nn.Linear))}
    layers = {name: layer for name, layer in named.items() if _size(layer) >= max(min_weights, 2)}
    new = {name: layer for name, layer in layers.items() if threshold_in(layer) is None}
    require_own_weights(model, new)
    require_unmasked(new)
    for layer in new.values():
        own = LearnedThreshold(layer.weight.detach(), r, trainable=trainable)
        parametrize.register_parametrization(layer, "weight", own, unsafe=True)
    found = [each.r for each in map(threshold_in, layers.values()) if each is not None]
    if not found:
        warnings.warn(f"min_weights is {min_weights}, but no layer has as many weights: none is pruned", stacklevel=2)
    return [r for r in found if isinstance(r, nn.Parameter)]


def adaptive_loss(
    model: nn.Module,
    *,
    sparsity: float,
    weight: float = 10.0,
    mode: Literal["adaptive", "fixed", "one_sided"] = "adaptive",
) -> Tensor:
    """Return the sparsity loss to add to a task's loss, a scalar with gradients for the thresholds only.

    For Gaussian weights layer l has sparsity s_l = erf(r_l / sqrt 2), and all N weights that have thresholds have
    S = sum n_l s_l / N. The loss pulls them towards T; it does not guarantee it, so measure the density.

    Args:
        model: a module that :func:`sparsify_adaptive` has given thresholds. Without any the loss is 0.
        sparsity: T, the target over the weights that have thresholds, in [0, 1).
        weight: lv, the loss's weight.
        mode: ``adaptive``: lv (S - T)^2, layers find their shares of one budget. ``fixed``: lv mean_l (s_l - T)^2.
            ``one_sided``: lv max(T - S, 0).

    Raises:
        ValueError: the sparsity or the mode is none of these.
    """
    _require_sparsity(sparsity)
    if mode not in ("adaptive", "fixed", "one_sided"):
        raise ValueError(f"mode is {mode!r}, but must be one of: adaptive, fixed, one_sided")
    thresholds = list(_thresholds(model))
    if not thresholds:
        return torch.zeros(())
    values = [each.r for _, each in thresholds]
    device, dtype = values[0].device, widest(values)
    r = torch.stack([value.to(device, dtype) for value in values])
    n = torch.tensor([float(count) for count, _ in thresholds], dtype=dtype, device=device)
    return sparsity_loss(r, n, starget=sparsity, lv=weight, mode=mode)


def _require_sparsity(sparsity: float) -> None:
    if not 0 <= sparsity < 1:
        raise ValueError(f"sparsity is {sparsity}, but must be in [0, 1)")


def threshold_in(layer: nn.Module) -> LearnedThreshold | None:
    """Return the threshold of a layer's weight; None if it has none."""
    if not parametrize.is_parametrized(layer, "weight"):
        return None
    chain: Any = layer.parametrizations
    return next((each for each in chain["weight"] if isinstance(each, LearnedThreshold)), None)


def _thresholds(model: nn.Module) -> Iterator[tuple[int, LearnedThreshold]]:
    """Yield the number of weights and the threshold of every layer that has one, in module order."""
    for layer in model.modules():
        if (own := threshold_in(layer)) is not None:
            yield _size(layer), own


def _size(layer: Any) -> int:
    """Number of weights of a layer, without computing one that has a threshold."""
    if threshold_in(layer) is not None:
        return int(layer.parametrizations["weight"].original.numel())
    return int(layer.weight.numel())
