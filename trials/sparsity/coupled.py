"""Coupled pruning: what enters a sum, a concatenation or a depthwise convolution is removed over all its layers.

The units are those of :mod:`trials.compact.groups`. The score of unit k of group g is, as in DepGraph (Fang et al.,
https://arxiv.org/abs/2301.12900, section 3.3),

    I[g, k] = sum over the weights w of g of ||w[k]||_2^2

over every row that makes the unit and every column that reads it. One ranking over several groups compares I[g, k]
divided by its mean over the group: sums grow with the number and the size of a group's layers. (The paper divides by
the mean of the group's N largest. Its released code, VainF/Torch-Pruning 1.6, takes the mean over the members instead
of the sum; after the division these differ only where the units of a group have different numbers of members.)

Masks are off in the rows and in the columns of a removed unit. No layer reads it then, so that biases, batch norms and
activations between change no output: the network without these channels computes what the masked one does.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from trials.compact import Units, units_of
from trials.errors import UserError
from trials.sparsity.counts import nearest_count
from trials.sparsity.distributions import Count
from trials.sparsity.masks import Masks, prunable
from trials.sparsity.scores import LAMP
from trials.sparsity.select import select, select_each

COUPLED_DISTRIBUTIONS = ("global", "uniform")
"""Ways to divide a budget over groups: one ranking, or the same share of each."""


def unit_squares(model: nn.Module, units: Units) -> Tensor:
    """Return the sum of squares of each unit's rows and columns, float64 [units], on the CPU."""
    device = next(model.parameters()).device
    sums = torch.zeros(len(units.group), dtype=torch.float64, device=device)
    weights = {name for names in units.names for name in names} | set(units.readers)
    for name in sorted(weights):
        square = model.get_parameter(name).detach().double().square()
        for dim, member in units.members[name].items():
            along = square.transpose(0, dim).flatten(1).sum(1)  # [entries of the dimension]
            inside = (member >= 0).to(device)
            sums.index_add_(0, member.to(device)[inside], along[inside])
    return sums.cpu()


def _magnitude(squares: Tensor, group: Tensor, generator: torch.Generator) -> Tensor:
    sums = torch.zeros(int(group.max()) + 1, dtype=squares.dtype).index_add_(0, group, squares)
    mean = sums / torch.bincount(group)
    return squares / mean.clamp(min=torch.finfo(squares.dtype).tiny)[group]


def _lamp(squares: Tensor, group: Tensor, generator: torch.Generator) -> Tensor:
    by_group = {str(g): squares[group == g].sqrt() for g in range(int(group.max()) + 1)}
    scores = torch.empty_like(squares)
    for g, found in LAMP(by_group, generator).items():
        scores[group == int(g)] = found
    return scores


def _random(squares: Tensor, group: Tensor, generator: torch.Generator) -> Tensor:
    return torch.rand(len(squares), generator=generator, dtype=torch.float64)


COUPLED_SCORES: dict[str, Callable[[Tensor, Tensor, torch.Generator], Tensor]] = {
    "magnitude": _magnitude,
    "lamp": _lamp,
    "random": _random,
}
"""Scores of units [units], given their squares and groups."""


def units_to_keep(units: Units, density: float, distribution: str, count: Count = nearest_count) -> list[int]:
    """Return how many units stay: of each group (uniform), or of all together (global). Each group keeps one.

    Raises:
        UserError: the model has no units, or fewer would stay than there are groups.
    """
    sizes = torch.bincount(units.group).tolist()
    if not sizes:
        raise UserError(
            "couple is true, but every channel of the model must stay "
            f"({next(iter(units.fixed.values()), 'it has none')}): give couple false, or another model"
        )
    if distribution == "uniform":
        return [max(count(density, n), 1) for n in sizes]
    keep = count(density, sum(sizes))
    if keep < len(sizes):
        raise UserError(
            f"density is {density:g}, which keeps {keep} of {sum(sizes)} coupled units, but each of {len(sizes)} "
            "groups must keep one: ask for a higher density, or distribution uniform"
        )
    return [keep]


def kept_units_of(
    model: nn.Module,
    units: Units,
    *,
    density: float,
    score: str,
    distribution: str,
    generator: torch.Generator,
    count: Count = nearest_count,
) -> Tensor:
    """Choose the units that stay: bool [units]. Of equal scores the lower unit goes first."""
    budget = units_to_keep(units, density, distribution, count)
    scores = COUPLED_SCORES[score](unit_squares(model, units), units.group, generator)
    groups = [(units.group == g).nonzero().flatten() for g in range(len(units.names))]
    if distribution == "uniform":
        kept = torch.zeros(len(scores), dtype=torch.bool)
        for mine, chosen in zip(groups, select_each([scores[mine] for mine in groups], budget), strict=True):
            kept[mine] = chosen
        return kept
    for mine in groups:  # each group keeps its best, the last of equal ones
        best = mine[scores[mine] == scores[mine].max()][-1]
        scores[best] = torch.inf
    return select([scores], budget[0])[0]


def masks_without(model: nn.Module, units: Units, off: Tensor) -> Masks:
    """Return masks of all convolutions and linear layers, off in the rows and columns of the units ``off``."""
    masks: Masks = {}
    named = dict(model.named_parameters())
    for name, weight in prunable(model).items():
        if name not in named:  # it shares the weight of another layer, and stays
            continue
        mask = torch.ones(weight.shape, dtype=torch.bool)
        for dim, member in units.members.get(name, {}).items():
            gone = (member >= 0) & off[member]
            mask.transpose(0, dim)[gone] = False
        masks[name] = mask.to(weight.device)
    return masks


def coupled_masks(
    model: nn.Module,
    *,
    density: float,
    score: str = "magnitude",
    distribution: str = "global",
    generator: torch.Generator,
    count: Count = nearest_count,
) -> Masks:
    """Return masks that keep the share ``density`` of a model's coupled units; bool, by weight name.

    The rows of attention's queries, keys and values that ``nn.MultiheadAttention`` holds are not masked, since they are
    no layer of their own; the columns that read the heads are, and a compact form leaves out both.

    Raises:
        UserError: the model cannot be traced, has no units, or would keep fewer than it has groups.
    """
    units = units_of(model)
    kept = kept_units_of(
        model, units, density=density, score=score, distribution=distribution, generator=generator, count=count
    )
    return masks_without(model, units, ~kept)
