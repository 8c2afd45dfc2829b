"""Drops a share of the units with the smallest scores, over the network or per layer, and spares some at random.

Source: diversified weight pruning (DWP, https://arxiv.org/abs/2208.08677, section 3.2) and its unofficial
implementation, https://github.com/zeyuanyin/Network-Pruning, commit be32233 (the "released" code below).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Literal

import torch
from torch import Tensor, nn

from trials.sparsity.masks import Masks
from trials.sparsity.patterns import Pattern
from trials.sparsity.select import select

Rule = Literal["exact", "below", "through"]
"""Which of n units are dropped; k = int(share n), tau is the (k+1)-th smallest score.

``exact``: the k smallest; ties drop the lower flat index first. ``below``: scores below tau, fewer than k where scores
are equal (released global pruning). ``through``: scores up to and including tau, at least k + 1 (released layer
pruning).
"""


def drop_count(share: float, n: int) -> int:
    """Return int(share n), in double arithmetic, as the released code does.

    >>> drop_count(0.3, 10), drop_count(0.29, 100)
    (3, 28)
    """
    return int(share * n)


def drop(
    scores: Mapping[str, Tensor],
    share: float,
    *,
    pattern: Pattern,
    per_layer: bool = False,
    rule: Rule = "exact",
    keep_one: bool = False,
) -> Masks:
    """Return masks that drop the ``share`` of units with the smallest scores.

    Args:
        scores: not negative, by weight name, each of its weight's shape.
        share: in [0, 1); truncated to whole units by :func:`drop_count`.
        per_layer: take the share of each layer, instead of one share of all layers together.
        keep_one: drop the best unit of every output channel last, so that no layer is emptied. The number of dropped
            units is the same.
    """
    units = {name: pattern.unit_scores(score) for name, score in scores.items()}
    if keep_one:
        units = {name: _best_protected(unit) for name, unit in units.items()}
    pools = [[name] for name in units] if per_layer else [list(units)]
    masks: Masks = {}
    for names in pools:
        kept = _keep([units[name] for name in names], share, rule)
        masks |= {n: pattern.expand(mask, scores[n].shape) for n, mask in zip(names, kept, strict=True)}
    return masks


def _best_protected(unit: Tensor) -> Tensor:
    """Return the unit scores [O, ..] with the best unit of every output channel set to infinity."""
    flat = unit.flatten(1)
    return flat.scatter(1, flat.argmax(1, keepdim=True), torch.inf).view_as(unit)


def _keep(units: list[Tensor], share: float, rule: Rule) -> list[Tensor]:
    total = sum(unit.numel() for unit in units)
    kept = select(units, total - drop_count(share, total))
    if rule == "exact":
        return kept
    tau = smallest_kept(units, kept)
    return [unit >= tau if rule == "below" else unit > tau for unit in units]


def smallest_kept(units: list[Tensor], kept: list[Tensor]) -> Tensor:
    """Return tau, the smallest kept score, as a scalar on the device; infinity if nothing is kept."""
    smallest = [u.masked_fill(~mask, torch.inf).amin() for u, mask in zip(units, kept, strict=True) if u.numel()]
    return torch.stack(smallest).amin()


def spare(masks: Masks, p_bern: float, *, pattern: Pattern, generators: Callable[[str], torch.Generator]) -> Masks:
    """Return masks in which each unit that ``masks`` drop is dropped only with probability ``p_bern``.

    Args:
        generators: returns a weight's CPU generator by its name. One number is drawn for every unit, dropped or not:
            a layer's draws do not depend on what is dropped and are the same on every device.
    """
    if p_bern == 1:
        return dict(masks)
    spared = {}
    for name, mask in masks.items():
        drawn = torch.bernoulli(torch.full(pattern.unit_shape(mask.shape), p_bern), generator=generators(name))
        spared[name] = mask | ~drawn.bool().to(mask.device)
    return spared


def thin(kept: Tensor, p_bern: float, *, pattern: Pattern, generator: torch.Generator | None) -> Tensor:
    """Return M = 1 - c b for one layer, with b ~ Bernoulli(p_bern) per unit, drawn on the layer's device.

    Args:
        kept: 1 - c as numbers, of the weight's shape; returned as it is if p_bern is 1.
        generator: on the layer's device, so that drawing does not synchronise; draws differ between device types.
    """
    if p_bern == 1:
        return kept
    drawn = torch.bernoulli(kept.new_full(pattern.unit_shape(kept.shape), p_bern), generator=generator)
    return kept.maximum(1 - drawn)


def shares(model: nn.Module, masks: Masks, pattern: Pattern) -> dict[str, float]:
    """Return the masked shares of units, weights and parameters. Synchronises with the device once.

    ``unit_sparsity`` is over the units, ``weight_sparsity`` over the weights that have masks, and
    ``parameter_sparsity`` over all parameters of the model.
    """
    units = [pattern.unit_scores(mask.float()) for mask in masks.values()]
    counts = [torch.stack([(unit == 0).sum() for unit in units]), torch.stack([(~m).sum() for m in masks.values()])]
    units_off, weights_off = torch.stack(counts).sum(1).tolist()
    return {
        "unit_sparsity": units_off / sum(unit.numel() for unit in units),
        "weight_sparsity": weights_off / sum(mask.numel() for mask in masks.values()),
        "parameter_sparsity": weights_off / sum(parameter.numel() for parameter in model.parameters()),
    }


@contextmanager
def pruned(model: nn.Module, masks: Masks) -> Iterator[nn.Module]:
    """Multiply the weights of ``model`` by ``masks`` within the context, and restore them bit for bit on exit.

    Works in place: the parameters stay the same objects, so optimisers, tied weights and requires_grad are unaffected.
    Nested contexts compose.
    """
    parameters = dict(model.named_parameters())
    originals = {name: parameters[name].detach().clone() for name in masks}
    try:
        with torch.no_grad():
            for name, mask in masks.items():
                parameters[name].mul_(mask.to(parameters[name].dtype))
        yield model
    finally:
        with torch.no_grad():
            for name, original in originals.items():
                parameters[name].copy_(original)
