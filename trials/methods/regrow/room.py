"""Where a regrowth method finds weights to regrow, as far as that is certain before anything is trained."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from torch import nn

from trials.data_header import DataHeader
from trials.errors import DamagedFile, UserError, exact, listed
from trials.methods.batches import require_company
from trials.methods.budgets import Budget, layers_with
from trials.methods.model_facts import LayerFacts, facts_of
from trials.methods.regrow.growth import RegrowingConfig
from trials.networks.stored import network_of, status
from trials.regrowth.ssim import SMALLEST_WINDOW
from trials.sparsity import PATTERNS
from trials.system.user_path import user_path


@dataclass(frozen=True)
class Room:
    """The sparse network that weights (or filters) return to.

    Attributes:
        unit: weight or filter.
        units: number of all units of the layers that have masks.
        pruned: number of them that are pruned.
        targets: names of the layers that may grow, before SSIM chooses among them.
        capacities: pruned units of each target; None where a ranking over layers decides.
    """

    unit: str
    units: int
    pruned: int
    targets: tuple[str, ...]
    capacities: tuple[int | None, ...]

    @property
    def most(self) -> int:
        """Largest number of units that the targets together can have lost."""
        known = [capacity for capacity in self.capacities if capacity is not None]
        return sum(known) if len(known) == len(self.capacities) else self.pruned

    def full(self) -> list[str]:
        """Targets in which certainly nothing was pruned."""
        return [name for name, capacity in zip(self.targets, self.capacities, strict=True) if capacity == 0]


def room_of(config: RegrowingConfig, model: nn.Module, data: DataHeader) -> Room:
    """Return the room for regrowth after checking what all regrowth methods need.

    Raises:
        UserError: the layers, the reference or the episodes' batches do not fit the model or the data.
    """
    facts, sparse = facts_of(model, data), config.sparse_config()
    layers = layers_with(facts, PATTERNS[config.unit], config.model, "unit")
    *_, budget = sparse.budgets(layers)
    named = dict(
        zip((layer.name for layer in layers), zip(layers, budget.units, budget.kept, strict=True), strict=True)
    )
    targets = config.layers or tuple(named)
    _check_maps(config, [named[name][0] for name in targets])
    _check_gradients(config, budget, layers)
    _check_reference(config, layers)
    if config.batchnorm_batches:
        what, most = "measuring BN's statistics after regrowth", config.batchnorm_batches
        require_company(config, facts, data, what, config.episode.batch_size, most=most)
    capacities = [(units, kept) for _, units, kept in (named[name] for name in targets)]
    return Room(
        config.unit,
        sum(budget.units),
        sum(budget.units) - budget.total,
        tuple(targets),
        tuple(None if kept is None else units - kept for units, kept in capacities),
    )


def require_episodes(config: RegrowingConfig, model: nn.Module, data: DataHeader) -> None:
    """Check that the episodes' brief finetuning never trains on a batch that the model cannot train on.

    Raises:
        UserError: it would.
    """
    recipe = config.episode
    if recipe.epochs:
        facts = facts_of(model, data)
        require_company(config, facts, data, "episode", recipe.batch_size, share=recipe.data_fraction)


def _check_maps(config: RegrowingConfig, targets: list[LayerFacts]) -> None:
    """Refuse an ``ssim_threshold`` if no layer has feature maps on which SSIM is defined."""
    if config.ssim_threshold is None or config.missing is not None:
        return
    if not any(layer.map_size and min(layer.map_size) >= SMALLEST_WINDOW for layer in targets):
        raise UserError(
            f"ssim_threshold is {exact(config.ssim_threshold)}, but no layer of {config.model} that may grow has "
            f"feature maps of {SMALLEST_WINDOW}x{SMALLEST_WINDOW} or more, on which SSIM is defined: give "
            "ssim_threshold null, another model or larger images"
        )


def _check_gradients(config: RegrowingConfig, budget: Budget, layers: tuple[LayerFacts, ...]) -> None:
    """Refuse to score filters by the gradients of kept filters where none is kept."""
    if config.selection != "gradient" or config.unit != "filter":
        return
    gone = [layer.name for layer, kept in zip(layers, budget.kept, strict=True) if kept == 0]
    if gone:
        raise UserError(
            f"selection is 'gradient', which scores filters by the gradients of those that are kept, but prune keeps "
            f"none of {listed(gone)}: prune less, or give selection 'saliency'"
        )


def _check_reference(config: RegrowingConfig, layers: tuple[LayerFacts, ...]) -> None:
    """Refuse a ``reference`` whose network is not of this model, where the trial can be read."""
    if config.reference is None:
        return
    folder = user_path(config.reference, "reference")
    try:
        stands = status(folder)
        if stands is None:
            raise UserError(f"reference is {config.reference!r}, but must be the folder of a trial: there is none")
        shapes = _shapes_in(folder, stands)
    except DamagedFile as damage:
        raise UserError(f"reference is {config.reference!r}, but cannot be read: {damage}") from None
    other = [layer.name for layer in layers if shapes.get(f"{layer.name}.weight") != layer.shape]
    if other:
        raise UserError(
            f"reference is {config.reference!r}, but its network has not the weights of {config.model} in "
            f"{listed(other)}: give a trial of the same model that was not made smaller"
        )


@lru_cache(maxsize=64)
def _shapes_in(folder: Path, stands: str) -> dict[str, tuple[int, ...]]:
    """Shapes of the last committed network, by parameter; read again once the trial ``stands`` otherwise."""
    return {name: tuple(tensor.shape) for name, tensor in network_of(folder)["model"].items()}
