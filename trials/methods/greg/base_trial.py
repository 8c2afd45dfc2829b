"""What another trial removed, read from its folder: its groups, for a trial that takes its ratios or indices over."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from trials.errors import DamagedFile, UserError
from trials.methods.greg.groups import GroupPattern, group_shape
from trials.networks.stored import last_commit


def pruned_groups(
    folder: Path, pattern: GroupPattern, weights: Mapping[str, Tensor] | None = None
) -> dict[str, Tensor]:
    """The groups a finished trial removed: bool, in the form of :mod:`trials.methods.greg.groups`, by weight name.

    Taken from what it picked, or from its masks where they switch off whole groups. Layers that lost none are left out.
    With ``weights``, groups must be theirs.

    Raises:
        UserError: there is no finished trial, or it removed no such groups, or of another network.
    """
    try:
        status, checkpoint = last_commit(folder)
    except DamagedFile as damage:
        raise UserError(f"base_pr_model is {str(folder)!r}, but cannot be read: {damage}") from None
    if status != "complete":
        raise UserError(
            f"base_pr_model is {str(folder)!r}, but must be the folder of a finished trial, and there is "
            f"{'none' if status is None else 'one that is ' + status}"
        )
    net = checkpoint["net"]
    found: dict[str, Tensor] = net.get("picked") or {
        name: _groups_of(~mask, pattern) for name, mask in net["masks"].items()
    }
    found = {name: pruned for name, pruned in found.items() if pruned.any()}
    if not found:
        raise UserError(f"base_pr_model is {str(folder)!r}, but that trial removed no {pattern}s")
    if weights is not None:
        return _in_order(folder, pattern, found, weights)
    return found


def _groups_of(off: Tensor, pattern: GroupPattern) -> Tensor:
    """Groups that a mask switches off whole."""
    if pattern == "weight":
        return off
    own = 0 if pattern == "filter" else 1
    for dim in range(off.dim()):
        off = off if dim == own else off.all(dim, keepdim=True)
    return off


def _in_order(
    folder: Path, pattern: GroupPattern, found: Mapping[str, Tensor], weights: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """``found`` in the order of ``weights``, whose groups they must be."""
    for name, pruned in found.items():
        if name not in weights or pruned.shape != group_shape(weights[name], pattern):
            raise UserError(
                f"base_pr_model is {str(folder)!r}, but what it removed of {name} are no {pattern}s of this model: "
                "give the same model and pattern"
            )
    return {name: found[name] for name in weights if name in found}
