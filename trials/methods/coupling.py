"""The field ``couple``: filters are scored and removed over all layers that share them (trials/sparsity/coupled.py).

It is for methods that choose whole filters by scores of the present weights, at once or in rounds: ``one_shot`` and
``prune_iterative``. Others have no such field. Where scores or penalties belong to single layers (bip, hydra, GReg),
where ratios do (l1, oracle), or where single filters return (regrow), a unit over several layers has no meaning in the
published method (docs/decisions/016-coupled-groups.md).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from pydantic import model_validator
from torch import Tensor, nn

from trials.compact import units_of
from trials.config.trial_config import TrialConfig
from trials.errors import UserError
from trials.methods.asked import AskedShare
from trials.sparsity.counts import Density
from trials.sparsity.coupled import COUPLED_DISTRIBUTIONS, COUPLED_SCORES, units_left, units_to_keep


class MayCouple(TrialConfig):
    """Config of methods that can prune coupled groups; it also has score, distribution, pattern and rounding.

    Attributes:
        couple: score and remove filters over all layers that share them: what enters a sum, a concatenation or a
            depthwise convolution, heads of attention and hidden units of MLPs (trials/sparsity/coupled.py). Densities
            are then shares of these units. Off, as in the published methods, which leave such layers whole.
    """

    couple: bool = False

    @model_validator(mode="after")
    def _coupled_filters(self) -> MayCouple:
        allowed: dict[str, tuple[str, ...]] = {
            "rounding": ("nearest",),
            "pattern": ("filter",),
            "distribution": COUPLED_DISTRIBUTIONS,
            "score": tuple(COUPLED_SCORES),
        }
        for field, values in allowed.items() if self.couple else ():
            value: Any = getattr(self, field)
            if value not in values:
                raise ValueError(
                    f"{field} is {value!r}, but couple removes filters over several layers and takes {field} "
                    f"{' or '.join(map(repr, values))} only: give that, or couple false"
                )
        return self


class CoupledShare(AskedShare):
    """How many coupled units of a network should be left."""

    def left_in(self, model: nn.Module, masks: Mapping[str, Tensor]) -> int | Tensor:
        return units_left(units_of(model), masks).sum()


def coupled_share(model: nn.Module, density: float) -> CoupledShare:
    """Ask for the share ``density`` of a model's coupled units."""
    units = units_of(model)
    count = len(units.group)
    return CoupledShare(tuple(name for names in units.names for name in names), "filter", count, density * count)


def require_coupled(model: nn.Module, distribution: str, levels: Iterable[tuple[str, Density]]) -> None:
    """Check what densities leave of a model's coupled units, in the order in which they are reached.

    Args:
        model: may be on the meta device.
        levels: for each, the fields that ask for it, as "density is 0.5", and the share of all units.

    Raises:
        UserError: the model cannot be traced or has no units, a group would be empty, or nothing would be pruned.
    """
    units = units_of(model)
    asked, kept, left = "", len(units.group), None
    for asked, density in levels:
        budget = units_to_keep(units, density, distribution, left=left, asked=asked)
        kept, left = sum(budget), budget if distribution == "uniform" else None  # one ranking: only the sum is known
    if kept == len(units.group):
        raise UserError(f"{asked}, but of {kept} coupled units none would be pruned: ask for a lower density")
