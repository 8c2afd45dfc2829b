"""Read which groups a finished trial removed, for trials that inherit its ratios or group indices."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from trials.errors import DamagedFile, UserError
from trials.methods.greg.groups import GroupPattern, group_shape
from trials.networks.named_files import Place
from trials.networks.stored import last_checkpoint, status


def pruned_groups(
    folder: Place, pattern: GroupPattern, weights: Mapping[str, Tensor] | None = None
) -> dict[str, Tensor]:
    """Return the groups that a finished trial removed, by weight name; True is removed.

    Tensors are bool and shaped as in :mod:`trials.methods.greg.groups`. They are the groups that the trial picked, or
    else those that its masks switch off entirely. Layers that lost no group are left out.

    Args:
        weights: if given, the weights that the groups must fit; the result then follows their order.

    Raises:
        UserError: ``folder`` holds no readable finished trial, the trial removed no groups of this pattern, or they do
            not fit ``weights``.
    """
    try:
        stands = status(folder)
        if stands != "complete":
            raise UserError(
                f"base_pr_model is {str(folder)!r}, but must be the folder of a finished trial, and there is "
                f"{'none' if stands is None else 'one that is ' + stands}"
            )
        net = last_checkpoint(folder)["net"]
    except DamagedFile as damage:
        raise UserError(f"base_pr_model is {str(folder)!r}, but cannot be read: {damage}") from None
    found: dict[str, Tensor] = net.get("picked") or {
        name: _groups_of(~mask, pattern) for name, mask in net["masks"].items()
    }
    found = {name: pruned for name, pruned in found.items() if pruned.any()}
    if not found:
        raise UserError(f"base_pr_model is {str(folder)!r}, but that trial removed no {pattern}s: name one that did")
    if weights is not None:
        return _in_order(folder, pattern, found, weights)
    return found


def _groups_of(off: Tensor, pattern: GroupPattern) -> Tensor:
    """Groups whose weights are all off; ``off`` is True where a mask is 0."""
    if pattern == "weight":
        return off
    own = 0 if pattern == "filter" else 1
    for dim in range(off.dim()):
        off = off if dim == own else off.all(dim, keepdim=True)
    return off


def _in_order(
    folder: Place, pattern: GroupPattern, found: Mapping[str, Tensor], weights: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """``found`` in the order of ``weights``. Raises UserError if a group shape does not match."""
    for name, pruned in found.items():
        if name not in weights or pruned.shape != group_shape(weights[name], pattern):
            raise UserError(
                f"base_pr_model is {str(folder)!r}, but what it removed from {name} does not fit the {pattern}s "
                "of this model: give the same model and pattern"
            )
    return {name: found[name] for name in weights if name in found}
