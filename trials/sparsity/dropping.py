"""Dropping a share of the units, as global and layer pruning count them, and sparing some of those at random.

Source: diversified weight pruning (DWP, https://arxiv.org/abs/2208.08677, section 3.2) and its unofficial code.
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
"""Which units go, of n, k = int(share n), tau the (k+1)-th smallest score.

``exact``: the k smallest; of equal scores the lower flat index first. ``below``: those below tau, fewer than k where
scores are equal (released global pruning). ``through``: those up to and including tau, at least k + 1 (released layer
pruning).
"""


def drop_count(share: float, n: int) -> int:
    """int(share n), in double arithmetic, as the released code counts.

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
    """Masks that drop the ``share`` of units with the smallest scores: of all together, or of each layer.

    Args:
        scores: by weight name, of its shape, not negative.
        share: in [0, 1); truncated to whole units by :func:`drop_count`.
        keep_one: the best unit of every output channel goes last, so that no layer is emptied; as many go as without.
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
    """Scores of units [O, ..] with the best of every output channel at infinity."""
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
    """tau: the smallest score that is kept (a scalar on the device); infinite where nothing is."""
    smallest = [u.masked_fill(~mask, torch.inf).amin() for u, mask in zip(units, kept, strict=True) if u.numel()]
    return torch.stack(smallest).amin()


def spare(masks: Masks, p_bern: float, *, pattern: Pattern, generators: Callable[[str], torch.Generator]) -> Masks:
    """Of the units that ``masks`` drop, drop each with probability ``p_bern`` only.

    ``generators``: a CPU generator by weight name. One number is drawn for every unit, dropped or not, so that a
    layer's draws do not depend on what is dropped, and are the same on every device.
    """
    if p_bern == 1:
        return dict(masks)
    spared = {}
    for name, mask in masks.items():
        drawn = torch.bernoulli(torch.full(unit_shape(pattern, mask.shape), p_bern), generator=generators(name))
        spared[name] = mask | ~drawn.bool().to(mask.device)
    return spared


def thin(kept: Tensor, p_bern: float, *, pattern: Pattern, generator: torch.Generator | None) -> Tensor:
    """M = 1 - c b for one layer, drawn on its own device: ``kept`` is 1 - c as numbers; without p_bern < 1, M itself.

    ``generator`` is of the layer's device, so that nothing waits; draws differ between kinds of device.
    """
    if p_bern == 1:
        return kept
    drawn = torch.bernoulli(kept.new_full(unit_shape(pattern, kept.shape), p_bern), generator=generator)
    return kept.maximum(1 - drawn)


def unit_shape(pattern: Pattern, shape: torch.Size) -> torch.Size:
    """The shape of the units' scores for a weight of ``shape``."""
    return pattern.unit_scores(torch.empty(shape, device="meta")).shape


def shares(model: nn.Module, masks: Masks, pattern: Pattern) -> dict[str, float]:
    """Measured from the masks: ``unit_sparsity``, the share of units that are off; ``weight_sparsity``, of the weights
    that have masks; ``parameter_sparsity``, of all the model's parameters. One wait for the device in all."""
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
    """``model`` with its weights times ``masks`` for as long as the context lasts, and restored to the bit after it.

    In place: parameters stay the same objects, so that optimisers, ties and requires_grad are left alone. Nested, the
    masks compose.
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
