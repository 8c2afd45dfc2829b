"""What a density leaves of a model's layers, in whole units, as far as that is certain before anything is trained."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Protocol

from torch import nn

from trials.data_header import DataHeader
from trials.errors import UserError, exact, listed
from trials.methods.model_facts import LayerFacts, ModelFacts, facts_of
from trials.sparsity import DISTRIBUTIONS, Count, Layer, Pattern, nearest_count
from trials.sparsity.counts import Density


class Shaped(Protocol):
    """A layer of which a budget is made."""

    @property
    def name(self) -> str: ...

    @property
    def shape(self) -> tuple[int, ...]: ...


@dataclass(frozen=True)
class LeftLayer:
    """A convolution or linear layer of the network that a file gives.

    Attributes:
        name: name of its module.
        shape: shape of its weight, [O, I / groups, kh, kw] or [O, I], in that network.
        groups: of a convolution; 1 for linear layers.
        kept: number of its weights that the network's mask keeps; all of them without one.
    """

    name: str
    shape: tuple[int, ...]
    groups: int
    kept: int

    @property
    def weights(self) -> int:
        """Number of entries of its weight."""
        return math.prod(self.shape)

    def units(self, pattern: Pattern) -> int:
        """Number of its units that are left; single weights may be masked, groups are whole."""
        return self.kept if self.kept < self.weights else pattern.units(self.shape)


@dataclass(frozen=True)
class Budget:
    """Units of some layers that stay.

    Attributes:
        units: number of units of each layer, without a mask.
        kept: number that each layer keeps; None where one ranking over several layers decides.
        total: number that all layers keep together.
    """

    units: tuple[int, ...]
    kept: tuple[int | None, ...]
    total: int

    @classmethod
    def dense(cls, layers: Sequence[Shaped], pattern: Pattern) -> Budget:
        """All units of these layers."""
        units = tuple(pattern.units(layer.shape) for layer in layers)
        return cls(units, units, sum(units))

    @classmethod
    def left(cls, layers: Sequence[LeftLayer], pattern: Pattern) -> Budget:
        """The units that a file's mask keeps of its network's layers; a mask counts single weights."""
        kept = tuple(layer.units(pattern) for layer in layers)
        return cls(tuple(pattern.units(layer.shape) for layer in layers), kept, sum(kept))

    def pruned(
        self,
        layers: Sequence[Shaped],
        distribution: str,
        density: Density,
        count: Count | None = None,
        within: Budget | None = None,
    ) -> Budget:
        """The budget after keeping the share ``density`` of what this one keeps.

        Args:
            count: rounds as a released code does; None is this project's rule.
            within: units that are left; no layer keeps more. None is what this budget keeps.

        Raises:
            UserError: the distribution has no such division.
        """
        if None in self.kept:  # one ranking over all layers; only their sum is known
            total = nearest_count(density, self.total) if count is None else count(float(density), self.total)
            return Budget(self.units, self.kept, total)
        shapes = tuple(layer.shape for layer in layers)
        left = self.kept if within is None or None in within.kept else within.kept
        try:
            kept = _divided(shapes, self.units, _known(self.kept), _known(left), distribution, density, count)
        except ValueError as error:
            raise UserError(str(error)) from None
        return Budget(self.units, kept[0], kept[1])


def _known(kept: tuple[int | None, ...]) -> tuple[int, ...]:
    return tuple(units for units in kept if units is not None)


@lru_cache(maxsize=8192)
def _divided(
    shapes: tuple[tuple[int, ...], ...],
    units: tuple[int, ...],
    now: tuple[int, ...],
    left: tuple[int, ...],
    distribution: str,
    density: Density,
    count: Count | None,
) -> tuple[tuple[int | None, ...], int]:
    layers = [Layer(n, whole, shape, most) for n, whole, shape, most in zip(now, units, shapes, left, strict=True)]
    pools = DISTRIBUTIONS[distribution](layers, density, count)
    kept: list[int | None] = [None] * len(layers)
    for pool in pools:
        most = sum(now[i] for i in pool.layers)
        if not 0 <= pool.keep <= most:
            raise ValueError(
                f"distribution {distribution} would keep {pool.keep} of {most} units: ask for another density or "
                "distribution"
            )
        if len(pool.layers) == 1:
            kept[pool.layers[0]] = pool.keep
    return tuple(kept), sum(pool.keep for pool in pools)


def left_with(layers: Sequence[LeftLayer], pattern: Pattern) -> tuple[LeftLayer, ...]:
    """Return the layers of a file's network that a pattern prunes.

    Raises:
        UserError: it has none, because it is smaller than the model.
    """
    chosen = tuple(layer for layer in layers if pattern.prunes(layer.shape))
    if not chosen:
        raise UserError(
            f"pattern {pattern.name!r} prunes layers with a multiple of {pattern.multiple} input channels only, of "
            "which it has none: give another M in nm, another pattern, or another network"
        )
    return chosen


def layers_with(facts: ModelFacts, pattern: Pattern, model: str, field: str = "pattern") -> tuple[LayerFacts, ...]:
    """Return the layers that a pattern prunes.

    Raises:
        UserError: the model has none.
    """
    layers = tuple(layer for layer in facts.layers if pattern.prunes(layer.shape))
    if not layers and pattern.multiple > 1:
        raise UserError(
            f"{field} is {pattern.name!r}, but no layer of {model} has a multiple of {pattern.multiple} input "
            "channels: give another M in nm, or another model"
        )
    if not layers:
        raise UserError(
            f"{field} is {pattern.name!r}, which only convolutions have, but {model} has none: give {field} 'weight', "
            "or another model"
        )
    return layers


def require_untied(layers: Sequence[LayerFacts], model: str) -> None:
    """Check that no two of the layers that get masks have the same weight.

    Raises:
        UserError: some have; the message names all of them.
    """
    tied = [layer.name for layer in layers if layer.tied]
    if tied:
        raise UserError(
            f"model is {model!r}, but {listed(tied)} share weights, which cannot have masks of their own: give a "
            "model whose layers have their own weights, or apply one layer several times"
        )


def require_prunable(
    model: nn.Module,
    data: DataHeader,
    density: float,
    *,
    name: str,
    pattern: Pattern,
    distribution: str = "global",
    field: str = "density",
) -> tuple[LayerFacts, ...]:
    """Check that a model can be pruned to a density at once; return the layers that are pruned, in the model's order.

    For a method's ``check``: some units must stay, some must go, and no layer may lose all of its own.

    Args:
        model: on the meta device.
        data: header of the data set whose images it gets.
        name: of the model, for messages.
        pattern: what is pruned together.
        distribution: name of what divides the budget over layers.
        field: the config's field that holds the density, for messages.

    Raises:
        UserError: it cannot; the message names all layers in the way.
    """
    layers = layers_with(facts_of(model, data), pattern, name)
    require_untied(layers, name)
    if density < 1:
        dense = Budget.dense(layers, pattern)
        budget = dense.pruned(layers, distribution, density)
        require_left(budget, layers, pattern.name, f"{field} is {exact(density)}", before=dense)
    return layers


def require_left(
    budget: Budget,
    layers: Sequence[Shaped],
    unit: str,
    asked: str,
    *,
    empty: bool = False,
    before: Budget | None = None,
) -> None:
    """Check that some units stay in the network, and in each layer unless ``empty``, and that some are pruned.

    Args:
        before: what there was to prune, if not the whole layers; those that were empty may stay so.
        unit: what is counted, for the message.
        asked: the fields that ask for it, as "density is 0.5".

    Raises:
        UserError: all or none of them would stay; the message names all layers that would be empty.
    """
    whole = sum(budget.units)
    if budget.total == whole:
        raise UserError(f"{asked}, but of {whole} {unit}s none would be pruned: ask for a lower density")
    if not budget.total:
        raise UserError(f"{asked}, but none of {whole} {unit}s would be left: ask for a higher density")
    had = budget.units if before is None else before.kept
    gone = [layer.name for layer, kept, then in zip(layers, budget.kept, had, strict=True) if kept == 0 and then != 0]
    if gone and not empty:
        raise UserError(
            f"{asked}, but no {unit} would be left of {listed(gone)}: ask for a higher density or another distribution"
        )


def require_fewer(budget: Budget, before: Budget, unit: str, asked: str) -> None:
    """Check that a level prunes some of the units that the one before has left.

    Raises:
        UserError: it prunes none, and neither would any later level.
    """
    if budget.total == before.total:
        raise UserError(
            f"{asked}, but of the {before.total} {unit}s that are left then none would be pruned: ask for fewer levels "
            "or a larger prune_fraction"
        )
