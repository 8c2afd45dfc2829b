"""The contracts of scores, distributions and patterns."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from trials.seeding import generator
from trials.sparsity import DISTRIBUTIONS, PATTERNS, SCORES, Layer, Pattern, masks_by_score, nearest_count
from trials.sparsity.distributions import Distribution
from trials.testing.requiring import demand, disturb, equal_bits, object_named, undisturbed

WEIGHT_SHAPES = {"stem": (16, 3, 3, 3), "conv": (24, 16, 3, 3), "point": (32, 24, 1, 1), "head": (10, 32)}
"""Shapes of a small network's weights."""

DIVIDED_DENSITIES = (0.03, 0.2, 1 / 3, 0.5, 0.9, 1.0)


def weights_of(dtype: torch.dtype, memory_format: torch.memory_format = torch.contiguous_format) -> dict[str, Tensor]:
    """Drawn weights of ``WEIGHT_SHAPES``, by name."""
    drawn = generator("weights of a score")
    found = {
        f"{name}.weight": torch.randn(shape, generator=drawn, dtype=torch.float64)
        for name, shape in WEIGHT_SHAPES.items()
    }
    return {
        name: weight.to(dtype).contiguous(memory_format=memory_format if weight.dim() == 4 else torch.contiguous_format)
        for name, weight in found.items()
    }


def check_score(score: object, *, plugins: Sequence[str] = ()) -> None:
    """Check that a score keeps its contract.

    It gives every weight finite scores of the weight's shape, changes no weight, draws from the generator that it is
    given and from nothing else, and ranks alike in both memory formats. With every pattern and distribution of this
    package, masks by it keep exact budgets.

    Args:
        score: a :class:`~trials.extend.Score`, a function of weights by name and a generator, or a name as in a config.
        plugins: as in a file, relative to the working folder, if a name needs them.

    Raises:
        AssertionError: it does not; the message says what it must do.
    """
    what = _name(score, "the score")
    found = _checked(SCORES, score, what, plugins)
    with undisturbed():
        for dtype in (torch.float32, torch.float64):
            weights = weights_of(dtype)
            before = {name: weight.clone() for name, weight in weights.items()}
            disturb()
            one = found(weights, generator("score"))
            disturb()
            other = found(weights, generator("score"))
            demand(one.keys() == weights.keys(), f"{what} must score every weight by its name, but gave {list(one)}")
            for name, scores in one.items():
                demand(
                    scores.shape == weights[name].shape
                    and scores.is_floating_point()
                    and bool(scores.isfinite().all()),
                    f"{what} must give {name} finite floating-point scores of its shape {list(weights[name].shape)}, "
                    f"but gave {scores.dtype} {list(scores.shape)}",
                )
            demand(equal_bits(weights, before), f"{what} must not change the weights")
            demand(equal_bits(one, other), f"{what} must draw from the generator that it is given, and nowhere else")
        turned = found(weights_of(torch.float64, torch.channels_last), generator("score"))
        demand(equal_bits(turned, other), f"{what} must give the same scores in the memory format channels_last")
        _require_masks(found, what)


def _require_masks(score: Any, what: str) -> None:
    weights = weights_of(torch.float32)
    for name, pattern in PATTERNS.items():
        chosen = {key: weight for key, weight in weights.items() if pattern.prunes(weight.shape)}
        for distribution in ("global", "uniform"):
            masks = masks_by_score(
                score,
                chosen,
                generator("masks"),
                density=0.5,
                pattern=pattern,
                distribution=DISTRIBUTIONS[distribution],
            )
            kept = sum(int(pattern.left(mask).sum()) for mask in masks.values())
            units = sum(pattern.units(weight.shape) for weight in chosen.values())
            demand(
                kept == nearest_count(0.5, units),
                f"{what} must rank the units of pattern {name} so that half of {units} stay, but {kept} do: without "
                "NaN, and with unit scores of the shape that the pattern gives them",
            )


def check_distribution(distribution: Distribution | str, *, plugins: Sequence[str] = ()) -> None:
    """Check that a distribution keeps its contract: pools that hold every layer once and keep exactly the budget.

    It may raise ValueError, in one line, for densities that it cannot divide.

    Args:
        distribution: the function of layers, a density and a Count or None, or a name as in a config.
        plugins: as in a file, relative to the working folder, if a name needs them.

    Raises:
        AssertionError: it does not; the message says what it must do.
    """
    what = _name(distribution, "the distribution")
    found = _checked(DISTRIBUTIONS, distribution, what, plugins)
    layers = tuple(
        Layer(units, units, shape) for shape in WEIGHT_SHAPES.values() for units in [torch.Size(shape).numel()]
    )
    thinned = tuple(Layer(layer.units // 2, layer.total, layer.shape) for layer in layers)
    divided = 0
    for case in (layers, thinned):
        for density in DIVIDED_DENSITIES:
            divided += _require_divided(found, case, density, what)
    demand(divided > 0, f"{what} must divide some of the densities {', '.join(f'{d:.3g}' for d in DIVIDED_DENSITIES)}")


def _require_divided(distribution: Distribution, layers: tuple[Layer, ...], density: float, what: str) -> bool:
    try:
        pools = distribution(layers, density, None)
    except ValueError as error:
        demand(bool(str(error)) and "\n" not in str(error), f"{what} must refuse a density in one line")
        return False
    places = sorted(place for pool in pools for place in pool.layers)
    demand(
        places == list(range(len(layers))), f"{what} must put every layer into one pool, but the pools hold {places}"
    )
    for pool in pools:
        most = sum(layers[place].most for place in pool.layers)
        demand(
            type(pool.keep) is int and 0 <= pool.keep <= most,
            f"{what} must keep a whole number of a pool's {most} units, but keeps {pool.keep!r} at density "
            f"{density:.3g}",
        )
    units = sum(layer.units for layer in layers)
    keep = sum(pool.keep for pool in pools)
    demand(
        keep == nearest_count(density, units),
        f"{what} must keep exactly nearest_count({density:.3g}, {units}) = {nearest_count(density, units)} units if "
        f"count is None, but keeps {keep}: apportioned() divides a total exactly",
    )
    again = distribution(layers, density, None)
    demand(list(again) == list(pools), f"{what} must divide the same layers in the same way at every call")
    return True


def check_pattern(pattern: Pattern | str, *, plugins: Sequence[str] = ()) -> None:
    """Check that a pattern keeps its contract: its units cover each weight, and their scores and masks fit it.

    Args:
        pattern: the :class:`~trials.extend.Pattern`, or its name as in a config.
        plugins: as in a file, relative to the working folder, if a name needs them.

    Raises:
        AssertionError: it does not; the message says what it must do.
    """
    what = pattern if isinstance(pattern, str) else pattern.name
    found = _checked(PATTERNS, pattern, what, plugins)
    weights = {name: weight for name, weight in weights_of(torch.float32).items() if found.prunes(weight.shape)}
    demand(bool(weights), f"pattern {what} must prune a layer of {', '.join(map(str, WEIGHT_SHAPES.values()))}")
    for name, weight in weights.items():
        scores = found.unit_scores(weight.abs())
        expected = found.unit_shape(weight.shape)
        demand(
            tuple(scores.shape) == expected,
            f"pattern {what} must give {name} unit scores of shape {list(expected)}, with 1 for the dimensions in "
            f"inside, but gives {list(scores.shape)}",
        )
        demand(
            bool(scores.isfinite().all()) and scores.is_floating_point(),
            f"pattern {what} must give {name} finite floating-point scores",
        )
        kept = found.choose(scores) if found.choose is not None else scores >= scores.median()
        mask = found.expand(kept, weight.shape)
        demand(
            mask.dtype == torch.bool and mask.shape == weight.shape and torch.equal(found.left(mask), kept),
            f"pattern {what} must choose units by a bool mask of their scores' shape, for {name}",
        )
        if found.choose is not None:
            share = float(kept.float().mean())
            demand(
                abs(share - (found.density or 0)) < 1e-6,
                f"pattern {what} must choose the share of units that its density says, {found.density}, but chooses "
                f"{share:.6g} of {name}",
            )


def _name(part: object, otherwise: str) -> str:
    return part if isinstance(part, str) else str(getattr(part, "__name__", otherwise))


def _checked(registry: Any, part: object, what: str, plugins: Sequence[str]) -> Any:
    """The part as its registry holds it."""
    if isinstance(part, str):
        return object_named(registry, part, plugins)
    check: Callable[[object], Any] = registry.check
    try:
        return check(part)
    except TypeError as error:
        raise AssertionError(f"{what} must be usable by its name, but {error}") from None
