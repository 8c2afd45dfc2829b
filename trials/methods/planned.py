"""The density that a stage is planned to have, known before anything runs: :meth:`.base.Method.planned_density`."""

from __future__ import annotations

from collections.abc import Callable, Collection, Hashable, Sequence
from dataclasses import dataclass

from torch import nn

from trials.config.trial_config import TrialConfig
from trials.methods.asked import AskedShare
from trials.models import without_values
from trials.sparsity import prunable


@dataclass(frozen=True)
class PlannedDensity:
    """What decides the density while a stage trains.

    Attributes:
        key: equal keys mean equal densities, up to rounding to whole weights.
        density: the column ``density`` of its rows, up to rounding; None where the key does not say it: units of
            several sizes, or a share of what a file's mask keeps.
    """

    key: Hashable
    density: float | None = None


def planned_by(shares: Sequence[AskedShare], layers: Collection[str], start: Hashable = None) -> PlannedDensity | None:
    """The density that these shares come to; None where nothing is asked.

    Args:
        layers: names of all weights of the model that can be pruned.
        start: of a trial that begins with a file's network, what tells that file from others.
    """
    if not shares:
        return None
    from_file = start if any(share.of_start for share in shares) else None
    first = shares[0]
    if len(shares) == 1 and first.pattern == "weight" and from_file is None:
        density = round(first.keep / max(first.units, 1), 12)
        dense = tuple(sorted(set(layers) - set(first.layers)))
        return PlannedDensity(("weight", density, dense), density)
    return PlannedDensity((*((one.layers, one.pattern, round(one.keep, 6)) for one in shares), from_file))


def planned_by_asking(config: TrialConfig, asked: Callable[[nn.Module], Sequence[AskedShare]]) -> PlannedDensity | None:
    """The density that a method asks of the config's model, on the meta device, for 10 classes of colour images.

    None where nothing is asked, and for a model that takes no such images.
    """
    try:
        model = without_values(config.model, num_classes=10, in_channels=3)
        shares = asked(model)
    except Exception:  # noqa: BLE001  whatever a plug-in's code raises
        return None
    from_file = repr((config.file_hashes, getattr(config, "source_mask", None))) if config.files_given() else None
    return planned_by(shares, [*prunable(model)], from_file)
