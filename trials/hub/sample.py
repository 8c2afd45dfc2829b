"""Outputs of a network for one fixed input, by which a later build of it is compared with the one exported."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from trials.errors import UserError

_TOLERANCE = 0.01
"""How far a logit may be from the exported one, as a share of the largest: rounding on other processors is far less."""


def sample_input(shape: Sequence[int], dtype: torch.dtype) -> Tensor:
    """A fixed image [1, C, H, W]: sin(0.7 k) at its k-th value, computed in float64."""
    count = int(torch.Size(shape).numel())
    return torch.arange(count, dtype=torch.float64).mul_(0.7).sin_().to(dtype).view(1, *shape)


@torch.no_grad()
def logits_of_sample(network: nn.Module, shape: Sequence[int]) -> tuple[float, ...] | None:
    """Outputs [classes] of a network in evaluation mode for the sample.

    Returns:
        None if they are no test of the network: not finite, not the same twice, or no row of logits.
    """
    image = sample_input(shape, next(iter(network.parameters())).dtype)
    first, second = network(image), network(image)
    if not isinstance(first, Tensor) or first.dim() != 2 or not torch.equal(first, second):
        return None
    return tuple(first[0].double().tolist()) if first.isfinite().all() else None


def require_same_outputs(
    network: nn.Module, shape: Sequence[int], expected: Sequence[float] | None, where: str, way_out: str
) -> None:
    """Check that the network has the outputs that it had when it was exported.

    Raises:
        UserError: it has others, although its weights fit.
    """
    if expected is None:
        return
    found = logits_of_sample(network, shape)
    then = torch.tensor(expected, dtype=torch.float64)
    if found is not None and len(found) == len(then):
        off = float((torch.tensor(found, dtype=torch.float64) - then).abs().max())
        largest = float(then.abs().max())
        if off <= _TOLERANCE * max(largest, 1e-6):
            return
        says = f"outputs differ by {off:.2g}, of {largest:.2g} at most, from those at the export"
    else:
        says = "outputs are of another kind than at the export"
    raise UserError(
        f"{where}: the weights fit, but the code of the model computes something else now ({says}): {way_out}"
    )
