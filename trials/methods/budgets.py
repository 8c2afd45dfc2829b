"""What a density leaves of a model's layers, in whole units, as far as that is certain before anything is trained."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from trials.errors import UserError, listed
from trials.methods.model_facts import LayerFacts, ModelFacts
from trials.sparsity import DISTRIBUTIONS, Count, Layer, Pattern, keep_count


@dataclass(frozen=True)
class Budget:
    """Units of some layers that stay.

    Attributes:
        units: number of units of each dense layer.
        kept: number that each layer keeps; None where one ranking over several layers decides.
        total: number that all layers keep together.
    """

    units: tuple[int, ...]
    kept: tuple[int | None, ...]
    total: int

    @classmethod
    def dense(cls, layers: Sequence[LayerFacts], pattern: Pattern) -> Budget:
        """All units of these layers."""
        units = tuple(pattern.units(layer.shape) for layer in layers)
        return cls(units, units, sum(units))

    def pruned(
        self, layers: Sequence[LayerFacts], distribution: str, density: float, count: Count = keep_count
    ) -> Budget:
        """The budget after keeping the share ``density`` of what this one keeps.

        Raises:
            UserError: the distribution has no such division.
        """
        if None in self.kept:  # one ranking over all layers; only their sum is known
            return Budget(self.units, self.kept, count(density, self.total))
        shapes = tuple(layer.shape for layer in layers)
        now = tuple(units for units in self.kept if units is not None)
        try:
            kept = _divided(shapes, self.units, now, distribution, density, count)
        except ValueError as error:
            raise UserError(str(error)) from None
        return Budget(self.units, kept[0], kept[1])


@lru_cache(maxsize=8192)
def _divided(
    shapes: tuple[tuple[int, ...], ...],
    units: tuple[int, ...],
    now: tuple[int, ...],
    distribution: str,
    density: float,
    count: Count,
) -> tuple[tuple[int | None, ...], int]:
    layers = [Layer(left, whole, shape) for left, whole, shape in zip(now, units, shapes, strict=True)]
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


def layers_with(facts: ModelFacts, pattern: Pattern, model: str, field: str = "pattern") -> tuple[LayerFacts, ...]:
    """Return the layers that a pattern prunes.

    Raises:
        UserError: the model has none.
    """
    layers = facts.prunable(linear=pattern.linear)
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


def require_left(budget: Budget, layers: Sequence[LayerFacts], unit: str, asked: str, *, empty: bool = False) -> None:
    """Check that some units stay in the network, and in each layer unless ``empty``, and that some are pruned.

    Args:
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
    gone = [layer.name for layer, kept in zip(layers, budget.kept, strict=True) if kept == 0]
    if gone and not empty:
        raise UserError(
            f"{asked}, but no {unit} would be left of {listed(gone)}: ask for a higher density or another distribution"
        )
