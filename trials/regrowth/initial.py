"""Initial values for regrown weights, and the growth of masks and weights at given indices."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from trials.sparsity import Masks

Indices = dict[str, Tensor]
"""Flat indices by weight name."""


@dataclass(frozen=True)
class RegrownWeights:
    """The weights of one layer that come back.

    Attributes:
        shape: shape of the layer's weight, [O, I, kh, kw] or [O, I].
        indices: flat indices of the regrown weights.
        mask: the layer's mask with the regrown weights switched on.
        stale: the layer's weights from when they were pruned; None if they were not kept.
        reference: the layer's weights in another network; None if there are none.
        generator: on the CPU, so that draws are equal on every device.
        kept: mask of the reference network; None if it keeps all weights.
        dense: the layer's weights in the dense network that was pruned; None if it was not kept.
    """

    shape: torch.Size
    indices: Tensor
    mask: Tensor
    stale: Tensor | None
    reference: Tensor | None
    generator: torch.Generator
    kept: Tensor | None = None
    dense: Tensor | None = None

    @property
    def fan_in(self) -> int:
        """Of the dense layer, its kernel's area included; likewise ``fan_out``."""
        return math.prod(self.shape[1:])

    @property
    def fan_out(self) -> int:
        return self.shape[0] * math.prod(self.shape[2:])

    def zeros(self) -> Tensor:
        return torch.zeros(len(self.indices), device=self.indices.device)

    def symmetric(self, bound: float) -> Tensor:
        """Draw one value per regrown weight from U(-bound, bound)."""
        draws = torch.rand(len(self.indices), generator=self.generator, dtype=torch.float64)
        return ((2 * draws - 1) * bound).to(self.indices.device)

    def normal(self, std: float | Tensor) -> Tensor:
        """Draw one value per regrown weight from N(0, std^2)."""
        draws = torch.randn(len(self.indices), generator=self.generator, dtype=torch.float64)
        return draws.to(self.indices.device) * std


def zero(regrown: RegrownWeights) -> Tensor:
    """Return zeros."""
    return regrown.zeros()


def magnitude(regrown: RegrownWeights) -> Tensor:
    """Return the values that the weights had when they were pruned.

    Raises:
        ValueError: these values were not kept.
    """
    if regrown.stale is None:
        raise ValueError("initial is 'magnitude', but the values of the pruned weights were not kept")
    return regrown.stale.reshape(-1)[regrown.indices]


def kaiming_bound(regrown: RegrownWeights) -> float:
    """Return sqrt(6 / fan_in)."""
    return math.sqrt(6 / regrown.fan_in)


def xavier_bound(regrown: RegrownWeights) -> float:
    """Return sqrt(6 / (fan_in + fan_out))."""
    return math.sqrt(6 / (regrown.fan_in + regrown.fan_out))


def kaiming(regrown: RegrownWeights) -> Tensor:
    """Draw from U(-b, b), b = sqrt(6 / fan_in) of the dense layer (He et al. 2015, https://arxiv.org/abs/1502.01852)."""
    return regrown.symmetric(kaiming_bound(regrown))


def xavier(regrown: RegrownWeights) -> Tensor:
    """Draw from U(-b, b), b = sqrt(6 / (fan_in + fan_out)) of the dense layer (Glorot and Bengio 2010)."""
    return regrown.symmetric(xavier_bound(regrown))


def reference(regrown: RegrownWeights) -> Tensor:
    """Return the reference network's values; zeros for a layer without a reference."""
    return regrown.zeros() if regrown.reference is None else regrown.reference.reshape(-1)[regrown.indices]


def dense_values(regrown: RegrownWeights) -> Tensor:
    """Return the values of the dense network, also where a reference chose the weights, as the released code does.

    Raises:
        ValueError: the dense network was not kept.
    """
    if regrown.dense is None:
        raise ValueError("initial is 'dense', but the dense network was not kept")
    return regrown.dense.reshape(-1)[regrown.indices]


def dual_lottery(regrown: RegrownWeights) -> Tensor:
    """Draw from N(0, 2 / n), n the kept weights in the same output row after growth (https://arxiv.org/abs/2203.04248)."""
    kept = regrown.mask.reshape(regrown.shape[0], -1).sum(1)  # [O]
    rows = regrown.indices // regrown.fan_in
    return regrown.normal((2 / kept.clamp_min(1).double()).sqrt()[rows])


def fan_in_normal(regrown: RegrownWeights) -> Tensor:
    """Draw from N(0, 2 / fan_in), with the fan-in of the dense layer."""
    return regrown.normal(math.sqrt(2 / regrown.fan_in))


def reference_or_normal(regrown: RegrownWeights) -> Tensor:
    """Return the reference's value where it keeps the weight, and draw from N(0, 2 / fan_in) elsewhere."""
    drawn = fan_in_normal(regrown)
    if regrown.reference is None or regrown.kept is None:
        return drawn if regrown.reference is None else reference(regrown)
    return torch.where(regrown.kept.reshape(-1)[regrown.indices], reference(regrown).to(drawn), drawn)


INITIAL: dict[str, Callable[[RegrownWeights], Tensor]] = {
    "zero": zero,
    "magnitude": magnitude,
    "kaiming": kaiming,
    "xavier": xavier,
    "reference": reference,
    "reference_or_normal": reference_or_normal,
    "dual_lottery": dual_lottery,
    "dense": dense_values,
}
"""Where regrown weights start, by name."""

TRAINABLE = ("kaiming", "xavier", "dual_lottery", "reference", "dense")
"""Those by which :func:`reinitialise` starts all kept weights anew, regrown or not."""


def grown(masks: Mapping[str, Tensor], indices: Mapping[str, Tensor]) -> Masks:
    """Return masks with the weights at ``indices`` switched on.

    Raises:
        ValueError: an index is given twice, or its weight is not pruned.
    """
    new: Masks = dict(masks)
    for name, index in indices.items():
        mask = masks[name].clone(memory_format=torch.contiguous_format)
        counts = mask.view(torch.uint8).view(-1)
        counts.index_add_(0, index, torch.ones_like(index, dtype=torch.uint8))
        if not bool((counts.index_select(0, index) == 1).all()):  # above 1: already kept, or given twice
            raise ValueError(f"{name} must grow by {len(index)} weights, but some are kept already, or given twice")
        new[name] = mask
    return new


def write_weights(weights: Mapping[str, Tensor], indices: Mapping[str, Tensor], values: Mapping[str, Tensor]) -> None:
    """Set the weights at ``indices`` to ``values``, in place; all others are unchanged."""
    with torch.no_grad():
        for name, index in indices.items():
            weight, value = weights[name], values[name].to(weights[name])
            if weight.is_contiguous():
                weight.view(-1).index_copy_(0, index, value)
            else:  # channels last
                weight[torch.unravel_index(index, weight.shape)] = value


def initial_values(
    kind: str,
    masks: Mapping[str, Tensor],
    indices: Mapping[str, Tensor],
    generator: torch.Generator,
    *,
    stale: Mapping[str, Tensor] | None = None,
    reference: Mapping[str, Tensor] | None = None,
    kept: Mapping[str, Tensor] | None = None,
    dense: Mapping[str, Tensor] | None = None,
) -> dict[str, Tensor]:
    """Return values of a ``kind`` of ``INITIAL`` for the weights at ``indices``, which ``masks`` already switch on."""
    given = [tensors or {} for tensors in (stale, reference, kept, dense)]

    def regrown(name: str) -> RegrownWeights:
        old, other, mask, first = (tensors.get(name) for tensors in given)
        return RegrownWeights(masks[name].shape, indices[name], masks[name], old, other, generator, mask, first)

    return {name: INITIAL[kind](regrown(name)) for name in indices}


def reinitialise(
    kind: str,
    weights: Mapping[str, Tensor],
    masks: Mapping[str, Tensor],
    generator: torch.Generator,
    reference: Mapping[str, Tensor] | None = None,
) -> None:
    """Reinitialise all kept weights of every masked layer in place, not only the regrown ones.

    ``magnitude`` changes nothing. ``kaiming`` and ``xavier`` draw from normal distributions here. ``dual_lottery``
    leaves rows without kept weights unchanged. With ``reference`` and ``dense``, a layer that ``reference`` lacks keeps
    its weights. All but ``zero`` and the skipped rows are multiplied by the mask.
    """
    if kind == "magnitude":
        return
    with torch.no_grad():
        for name, mask in masks.items():
            weight = weights[name]
            every = torch.arange(mask.numel(), device=mask.device)
            regrown = RegrownWeights(mask.shape, every, mask, None, (reference or {}).get(name), generator)
            if kind == "zero":
                weight.zero_()
            elif kind in ("reference", "dense"):
                weight.copy_(weight if regrown.reference is None else regrown.reference).mul_(mask)
            elif kind == "dual_lottery":
                drawn = dual_lottery(regrown).view(mask.shape).to(weight) * mask
                rows = mask.flatten(1).any(1).view(-1, *[1] * (mask.dim() - 1))
                weight.copy_(torch.where(rows, drawn, weight))
            else:
                # U(-b, b) has the standard deviation b / sqrt(3)
                bound = kaiming_bound(regrown) if kind == "kaiming" else xavier_bound(regrown)
                weight.copy_(regrown.normal(bound / math.sqrt(3)).view(mask.shape)).mul_(mask)
