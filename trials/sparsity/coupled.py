"""Coupled pruning: what enters a sum, a concatenation or a depthwise convolution is removed over all its layers.

The units are those of :mod:`trials.compact.groups`. The score of unit k of group g is, as in DepGraph (Fang et al.,
https://arxiv.org/abs/2301.12900, section 3.3),

    I[g, k] = sum over the weights w of g of ||w[k]||_2^2

over every row that makes the unit and every column that reads it. One ranking over several groups compares I[g, k]
divided by its mean over the group: sums grow with the number and the size of a group's layers. (The paper divides by
the mean of the group's N largest. Its released code, VainF/Torch-Pruning 1.6, takes the mean over the members instead
of the sum; after the division these differ only where the units of a group have different numbers of members.)

Budgets are exact: all groups together keep nearest(density x units), and each group keeps one unit at least. Within
masks that have removed units, the ranking and the mean are over the units that are left.

Masks are off in the rows and in the columns of a removed unit. No layer reads it then, so that biases, batch norms and
activations between change no output: the network without these channels computes what the masked one does.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from fractions import Fraction

import torch
from torch import Tensor, nn

from trials.compact import Units, units_of
from trials.errors import UserError, exact
from trials.sparsity.counts import Density, exact_share, nearest_count
from trials.sparsity.distributions import Layer, apportioned
from trials.sparsity.masks import Masks, prunable
from trials.sparsity.scores import LAMP
from trials.sparsity.select import select, select_each

COUPLED_DISTRIBUTIONS = ("global", "uniform")
"""Ways to divide a budget over groups: one ranking, or the same share of each."""


def require_couplable(pattern: str, score: str, distribution: str, layers: object) -> None:
    """Check that choices can be coupled. Raises ValueError if one cannot."""
    for kind, given, allowed in (
        ("pattern", pattern, ("filter",)),
        ("distribution", distribution, COUPLED_DISTRIBUTIONS),
        ("score", score, tuple(COUPLED_SCORES)),
    ):
        if given not in allowed:
            raise ValueError(f"{kind} is {given!r}, but couple takes {' or '.join(map(repr, allowed))} only")
    if layers is not None:
        raise ValueError(f"layers is {layers!r}, but couple goes over all layers of a group: leave out layers")


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


def units_left(units: Units, masks: Mapping[str, Tensor]) -> Tensor:
    """Return which units masks (bool, by weight name) leave: bool [units], on the CPU.

    A unit is gone if the masks are off in all rows and columns that it has in masked layers.
    """
    seen = torch.zeros(len(units.group), dtype=torch.bool)
    left = seen.clone()
    for name, mask in masks.items():
        for dim, member in units.members.get(name, {}).items():
            there = mask.transpose(0, dim).flatten(1).any(1).cpu()
            seen[member[member >= 0]] = True
            left[member[there & (member >= 0)]] = True
    return left | ~seen


def _magnitude(squares: Tensor, group: Tensor, left: Tensor, generator: torch.Generator) -> Tensor:
    groups = int(group.max()) + 1
    sums = torch.zeros(groups, dtype=squares.dtype).index_add_(0, group[left], squares[left])
    mean = sums / torch.bincount(group[left], minlength=groups).clamp(min=1)
    return squares / mean.clamp(min=torch.finfo(squares.dtype).tiny)[group]


def _lamp(squares: Tensor, group: Tensor, left: Tensor, generator: torch.Generator) -> Tensor:
    members = [(left & (group == g)).nonzero().flatten() for g in range(int(group.max()) + 1)]
    by_group = {str(g): squares[mine].sqrt() for g, mine in enumerate(members) if len(mine)}
    scores = torch.zeros_like(squares)
    for g, found in LAMP(by_group, generator).items():
        scores[members[int(g)]] = found
    return scores


def _random(squares: Tensor, group: Tensor, left: Tensor, generator: torch.Generator) -> Tensor:
    return torch.rand(len(squares), generator=generator, dtype=torch.float64)


COUPLED_SCORES: dict[str, Callable[[Tensor, Tensor, Tensor, torch.Generator], Tensor]] = {
    "magnitude": _magnitude,
    "lamp": _lamp,
    "random": _random,
}
"""Scores of units [units], given their squares, their groups, and which of them are left (bool)."""


def units_to_keep(
    units: Units, density: Density, distribution: str, *, left: Sequence[int] | None = None, asked: str = ""
) -> list[int]:
    """Return how many units stay: of each group (uniform), or of all together (global).

    All groups together keep ``nearest_count(density, units)``. With uniform each group has the same share, rounded by
    largest remainders; a group whose share is less than one unit keeps one, and the others divide the rest.

    Args:
        density: share of all units of the network.
        left: of each group, how many units can stay; all of them by default.
        asked: what asks for the density, for messages; "density is 0.5" by default.

    Raises:
        UserError: the model has no units, or fewer would stay than there are groups.
    """
    sizes = torch.bincount(units.group).tolist()
    if not sizes:
        raise UserError(
            "couple is true, but every channel of the model must stay "
            f"({next(iter(units.fixed.values()), 'it has none')}): give couple false, or another model"
        )
    most = sizes if left is None else list(left)
    keep = min(nearest_count(density, sum(sizes)), sum(most))
    if keep < len(sizes):
        raise UserError(
            f"{asked or f'density is {exact(float(density))}'}, which keeps {keep} of {sum(sizes)} coupled units, but "
            f"each of {len(sizes)} groups must keep one: keep more, or give couple false"
        )
    if distribution == "global":
        return [keep]
    layers = [Layer(n, n, (n,), there) for n, there in zip(sizes, most, strict=True)]
    return apportioned(_shares(sizes, exact_share(density), keep), layers, keep)


def _shares(sizes: Sequence[int], share: Fraction, keep: int) -> list[Fraction]:
    """The share of each group's units, but at least one; groups above that divide what is left of ``keep``."""
    rest = list(range(len(sizes)))
    while few := {i for i in rest if share * sizes[i] < 1}:
        rest = [i for i in rest if i not in few]
        if rest:
            share = Fraction(keep - (len(sizes) - len(rest)), sum(sizes[i] for i in rest))
    return [share * size if i in rest else Fraction(1) for i, size in enumerate(sizes)]


def kept_units_of(
    model: nn.Module,
    units: Units,
    *,
    density: Density,
    score: str,
    distribution: str,
    generator: torch.Generator,
    left: Tensor | None = None,
) -> Tensor:
    """Choose the units that stay: bool [units]. Of equal scores the lower unit goes first.

    Args:
        density: share of all units.
        left: units among which to choose, bool [units]; all of them by default.

    Raises:
        UserError: as :func:`units_to_keep`.
    """
    left = torch.ones(len(units.group), dtype=torch.bool) if left is None else left
    counts = torch.bincount(units.group[left], minlength=len(units.names)).tolist()
    budget = units_to_keep(units, density, distribution, left=counts)
    scores = COUPLED_SCORES[score](unit_squares(model, units), units.group, left, generator)
    scores[~left] = -torch.inf
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
    density: Density,
    score: str = "magnitude",
    distribution: str = "global",
    generator: torch.Generator,
    within: Mapping[str, Tensor] | None = None,
) -> Masks:
    """Return masks that keep the share ``density`` of a model's coupled units; bool, by weight name.

    The rows of attention's queries, keys and values that ``nn.MultiheadAttention`` holds are not masked, since they are
    no layer of their own; the columns that read the heads are, and a compact form leaves out both.

    Args:
        model: any module that torch.fx traces; of masked weights it holds zeros.
        density: share of all units of the network, also within masks.
        within: masks that this function made of a network of the same shapes; units that they remove stay removed.

    Raises:
        UserError: the model cannot be traced, has no units, or would keep fewer than it has groups.
    """
    units = units_of(model)
    left = units_left(units, within or {})
    kept = kept_units_of(
        model, units, density=density, score=score, distribution=distribution, generator=generator, left=left
    )
    return masks_without(model, units, ~kept)
