"""Selection of the pruned weights of a layer that come back, as flat (row-major) indices, the best first."""

from __future__ import annotations

import torch
from torch import Tensor


def highest(mask: Tensor, score: Tensor, count: int) -> Tensor:
    """Return the ``count`` pruned weights with the highest scores, or all of them if fewer; ties: lower index first."""
    pruned = (~mask.reshape(-1)).nonzero().squeeze(1)
    count = min(count, len(pruned))
    if not count:
        return pruned[:0]
    values = score.reshape(-1)[pruned]
    if count < len(pruned):
        threshold = values.kthvalue(len(values) - count + 1).values
        above = values > threshold
        ties = (values == threshold).nonzero().squeeze(1)[: count - int(above.sum())]
        above[ties] = True
        pruned, values = pruned[above], values[above]
    return pruned[values.argsort(descending=True, stable=True)]


def uniform(mask: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """Draw ``count`` pruned weights uniformly. Drawn on the CPU: equal on every device."""
    return _draw((~mask.reshape(-1)).nonzero().squeeze(1), count, generator)


def referenced(
    mask: Tensor, allowed: Tensor, reference: Tensor, count: int, generator: torch.Generator
) -> tuple[Tensor, int]:
    """Select ``allowed`` pruned weights, first those that a reference mask keeps, then others.

    If a group has more weights than needed, the choice within it is random.

    Returns:
        The indices, and how many of them the reference mask keeps.
    """
    eligible = (~mask & allowed).reshape(-1)
    kept = (eligible & reference.reshape(-1)).nonzero().squeeze(1)
    if len(kept) >= count:
        return (kept if len(kept) == count else _draw(kept, count, generator)), count
    others = (eligible & ~reference.reshape(-1)).nonzero().squeeze(1)
    return torch.cat([kept, _draw(others, count - len(kept), generator)]), len(kept)


def _draw(group: Tensor, count: int, generator: torch.Generator) -> Tensor:
    return group[torch.randperm(len(group), generator=generator)[:count].to(group.device)]
