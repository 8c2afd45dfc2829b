"""What a method was asked to keep of a network, in units of its pattern; a trial compares it with what it reached."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from torch import Tensor, nn

from trials.sparsity import PATTERNS, prunable


@dataclass(frozen=True)
class AskedShare:
    """How many units of some layers should be left.

    Attributes:
        layers: names of the layers' weights. Their units are counted together.
        pattern: what a unit is: weight, kernel, filter or channel.
        units: number of units in the dense layers.
        keep: number of units to keep, before it is rounded.
        slack: by how many units rounding may miss ``keep``; for a method that only aims at a density, its tolerance.
        fewer_is_fine: whether the method may keep less than it was asked for.
        at_end: whether this is meant for the end of a stage only, not for its earlier epochs.
        of_start: whether ``keep`` is a share of what the network had when the trial began, which the mask
            of a ``source_net`` may have thinned.
    """

    layers: tuple[str, ...]
    pattern: str
    units: int
    keep: float
    slack: float = 1.0
    fewer_is_fine: bool = False
    at_end: bool = False
    of_start: bool = False

    def from_start(self, density: float) -> AskedShare:
        """What is asked of a trial whose network had this density when it began."""
        return replace(self, keep=self.keep * density) if self.of_start else self

    def left_in(self, model: nn.Module, masks: Mapping[str, Tensor]) -> int | Tensor:
        """How many of the units masks leave in a model; a tensor where masks decide."""
        return kept_units(self.layers, prunable(model), masks, self.pattern)

    def missed_by(self, kept: int) -> bool:
        """Whether ``kept`` units differ from what was asked by more than rounding explains."""
        slack = self.slack + 1e-6 * max(1.0, self.keep)  # float error of ``keep``
        return kept - self.keep > slack or (not self.fewer_is_fine and self.keep - kept > slack)


def share_of(
    weights: Mapping[str, Tensor],
    density: float,
    pattern: str = "weight",
    *,
    slack: float = 1.0,
    fewer_is_fine: bool = False,
    at_end: bool = False,
) -> AskedShare:
    """Ask for the share ``density`` of all units of some weights of a dense network."""
    units = sum(count_units(weight, pattern) for weight in weights.values())
    return AskedShare(tuple(weights), pattern, units, density * units, slack, fewer_is_fine, at_end)


def count_units(weight: Tensor, pattern: str) -> int:
    """Number of units of a weight [O, I, ...]."""
    return PATTERNS[pattern].units(weight.shape)


def kept_units(
    layers: Sequence[str], weights: Mapping[str, Tensor], masks: Mapping[str, Tensor], pattern: str
) -> int | Tensor:
    """Number of units of these layers that are left: any of their weights is kept. A tensor where masks decide."""
    total: int | Tensor = 0
    for name in layers:
        mask = masks.get(name)
        total = total + (count_units(weights[name], pattern) if mask is None else PATTERNS[pattern].left(mask).sum())
    return total
