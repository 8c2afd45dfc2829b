"""The pieces alone: prune any module, count what is left, make it permanent, or make it smaller.

Masks are stored as :mod:`torch.nn.utils.prune` stores them (``weight_orig`` and ``weight_mask``), so that its functions
and these can be mixed. docs/pieces.md shows how.
"""

from __future__ import annotations

import copy
from collections.abc import Collection, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize
from torch.nn.utils import prune as torch_prune

from trials.compact import simplify, units_of
from trials.errors import UserError, listed, unknown_name
from trials.seeding import generator
from trials.sparsity.adaptive import threshold_in
from trials.sparsity.counts import nearest_count
from trials.sparsity.coupled import COUPLED_DISTRIBUTIONS, COUPLED_SCORES, coupled_masks, units_left
from trials.sparsity.distributions import DISTRIBUTIONS
from trials.sparsity.masks import Masks, masks_by_score
from trials.sparsity.module_checks import (
    comparable,
    require_own_weights,
    require_unwrapped,
    require_values,
)
from trials.sparsity.patterns import PATTERNS, Pattern
from trials.sparsity.scores import SCORES


def prune(
    model: nn.Module,
    *,
    density: float | None = None,
    score: str = "magnitude",
    distribution: str = "global",
    pattern: str | Pattern = "weight",
    layers: str | Collection[str] | None = None,
    couple: bool = False,
    seed: int = 0,
) -> Masks:
    """Prune a module's convolutions and linear layers in place to exactly ``density``.

    The layers get ``weight_orig`` and ``weight_mask``, so the masks hold while the module trains. What is pruned
    already stays pruned, and counts.

    Args:
        density: share of the layers' units to keep, in (0, 1]. Pattern ``nm`` implies it, or less where masks do.
        score: a name in ``SCORES``: ``magnitude``, ``random`` or ``lamp``.
        distribution: a name in ``DISTRIBUTIONS``: ``global``, ``uniform``, ``uniform_plus`` or ``erk``.
        pattern: a name in ``PATTERNS``, such as ``weight`` or ``filter``, or :func:`n_of_m`.
        layers: names of the layers to prune, or one name; None for all.
        couple: with pattern ``filter``, remove filters over all layers that share them (a sum, a concatenation, heads
            of attention, hidden units), which :func:`compact` then leaves out. The density is a share of these units
            (:mod:`trials.sparsity.coupled`); torch.fx must be able to trace the module.
        seed: of score ``random``.

    Returns:
        The masks, bool, by weight name.

    Raises:
        ValueError: a name is unknown, a layer cannot be pruned (its weight is shared, computed, without values or not
            finite), or the density is out of range or above what is left.
    """
    units = _named_parts(score, distribution, pattern)
    if couple:
        return _prune_coupled(model, density, score, distribution, units, layers, seed)
    chosen = {_mask_name(name): layer for name, layer in _layers(model, units, layers).items()}
    return _apply(_masks_alone(chosen, density, score, distribution, units, seed), chosen)


def _masks_alone(
    layers: Mapping[str, Any], density: float | None, score: str, distribution: str, pattern: Pattern, seed: int
) -> Masks:
    """Masks of units that lie in one layer each, each on its layer's device."""
    weights = comparable({name: _weight(layer) for name, layer in layers.items()})
    before = {name: _kept_by_mask(layer).to(weights[name].device) for name, layer in layers.items()}
    masks = masks_by_score(
        SCORES[score],
        weights,
        generator(seed, "score"),
        density=_density_within(density, before, pattern),
        pattern=pattern,
        distribution=DISTRIBUTIONS[distribution],
        within=before,
        of_dense=True,
    )
    return {name: masks[name].to(_weight(layer).device) for name, layer in layers.items()}


def _apply(masks: Masks, layers: Mapping[str, Any]) -> Masks:
    for name, mask in masks.items():
        torch_prune.custom_from_mask(layers[name], "weight", mask)  # type: ignore[no-untyped-call]
    return masks


def _prune_coupled(
    model: nn.Module,
    density: float | None,
    score: str,
    distribution: str,
    pattern: Pattern,
    layers: str | Collection[str] | None,
    seed: int,
) -> Masks:
    """As :func:`prune` with ``couple``, whose units go over several layers."""
    for kind, given, allowed in (
        ("pattern", pattern.name, ("filter",)),
        ("distribution", distribution, COUPLED_DISTRIBUTIONS),
        ("score", score, tuple(COUPLED_SCORES)),
    ):
        if given not in allowed:
            raise ValueError(f"{kind} is {given!r}, but couple takes {' or '.join(map(repr, allowed))} only")
    if layers is not None:
        raise ValueError(f"layers is {layers!r}, but couple goes over all layers of a group: leave out layers")
    density = _share(density)
    require_unwrapped(model)
    chosen = {_mask_name(name): layer for name, layer in _layers(model, PATTERNS["weight"], None).items()}
    before = {name: _kept_by_mask(layer) for name, layer in chosen.items()}
    plain = make_permanent(_copied(model)) if any(_pruned(m, "weight_mask") for m in chosen.values()) else model
    try:
        left = units_left(units_of(plain), before)
        there = int(left.sum())
        if nearest_count(density, len(left)) > there:
            raise ValueError(
                f"density is {density}, but only {there} of {len(left)} coupled units are left: give a lower one"
            )
        masks = coupled_masks(
            plain,
            density=density,
            score=score,
            distribution=distribution,
            generator=generator(seed, "score"),
            within=before,
        )
    except UserError as error:
        raise ValueError(str(error)) from None
    return _apply({name: mask & before[name] for name, mask in masks.items()}, chosen)


def density(model: nn.Module) -> float:
    """Return kept over all weights of a module's Conv2d and Linear layers; 1 without such layers.

    A weight counts as kept where its mask (``weight_mask``) keeps it, where its threshold
    (:func:`~trials.sparsity.adaptive.sparsify_adaptive`) does, or, in a layer without either, where it is not zero.
    """
    require_values(model)
    kept = [_kept(layer) for layer in _found(model).values()]
    total = sum(mask.numel() for mask in kept)
    return sum(int(mask.sum()) for mask in kept) / total if total else 1.0


def make_permanent(model: nn.Module) -> nn.Module:
    """Turn masks and thresholds into zeros of plain weights, in place; ``iter_desparsify`` of the release.

    Ends :func:`prune`, :mod:`torch.nn.utils.prune` and :func:`~trials.sparsity.adaptive.sparsify_adaptive`. Returns the
    module.
    """
    for module in model.modules():
        for mask in [key for key in module._buffers if _pruned(module, key)]:
            torch_prune.remove(module, mask.removesuffix("_mask"))  # type: ignore[no-untyped-call]
        if threshold_in(module) is not None:
            parametrize.remove_parametrizations(module, "weight", leave_parametrized=True)
    return model


def compact(model: nn.Module, example: Tensor) -> nn.Module:
    """Return a physically smaller copy of a module that computes the same, in evaluation mode.

    Filters go that no layer reads, that emit zeros, or that emit another constant which the layers behind can add
    themselves (:mod:`trials.compact.silent`). Filters stay whose removal would change an output, and layers whose
    weight is computed, by a parametrization or a hook, stay whole.

    Args:
        example: a batch that the module takes; the copy's outputs for it are compared with the module's.

    Raises:
        ValueError: torch.fx cannot trace the forward pass, the module wraps another, or weights have no values yet.
        AssertionError: the outputs differ.
    """
    require_unwrapped(model)
    require_values(model)
    smaller = make_permanent(_copied(model)).eval()
    with torch.no_grad():
        before = smaller(example)
        try:
            simplify(smaller)
        except UserError as error:
            raise ValueError(str(error)) from None
        after = smaller(example)
    close = _tolerance(before)
    torch.testing.assert_close(after, before, rtol=close, atol=close * _largest(before), equal_nan=True)
    return smaller


def _tensors(outputs: Any) -> list[Tensor]:
    """The floating-point tensors in nested outputs."""
    if isinstance(outputs, Tensor):
        return [outputs] if outputs.is_floating_point() else []
    parts = list(outputs.values()) if isinstance(outputs, Mapping) else outputs
    return [one for part in parts for one in _tensors(part)] if isinstance(parts, (list, tuple)) else []


def _tolerance(outputs: Any) -> float:
    """How far outputs may differ by rounding, relative to the largest: smaller ones are sums of terms as large."""
    return max([1e-5, *(16 * torch.finfo(one.dtype).eps for one in _tensors(outputs))])


def _largest(outputs: Any) -> float:
    finite = [one.detach()[one.isfinite()].abs() for one in _tensors(outputs)]
    return max([float(one.max()) for one in finite if one.numel()], default=0.0)


def _named_parts(score: str, distribution: str, pattern: str | Pattern) -> Pattern:
    """Return the pattern. Raises ValueError for a name that is not known."""
    registries: dict[str, tuple[str, Collection[str]]] = {
        "score": (score, SCORES),
        "distribution": (distribution, DISTRIBUTIONS),
    }
    if isinstance(pattern, str):
        registries["pattern"] = (pattern, PATTERNS)
    for kind, (name, known) in registries.items():
        if name not in known:
            raise ValueError(unknown_name(kind, name, known))
    return PATTERNS[pattern] if isinstance(pattern, str) else pattern


def _density_within(density: float | None, before: Masks, pattern: Pattern) -> float:
    """Return the density that is asked. Raises ValueError if there is none, or if it cannot be reached."""
    if pattern.density is not None and density not in (None, pattern.density):
        raise ValueError(f"density is {density}, but the pattern keeps {pattern.density:.4g}: leave out density")
    density = pattern.density if density is None else density
    density = _share(density)
    units = [pattern.left(mask) for mask in before.values()]
    left, total = sum(int(unit.sum()) for unit in units), sum(unit.numel() for unit in units)
    if pattern.choose is None and nearest_count(density, total) > left:
        raise ValueError(
            f"density is {density}, but only {left / total:.4g} of {total} {pattern.name}s are left: give a lower one"
        )
    return density


def _share(density: object) -> float:
    """Return a density. Raises ValueError if it is none."""
    if isinstance(density, bool) or not isinstance(density, (int, float)) or not 0 < density <= 1:
        raise ValueError(f"density is {density!r}, but must be a number in (0, 1]")
    return density


def _layers(model: nn.Module, pattern: Pattern, only: str | Collection[str] | None) -> dict[str, Any]:
    """Return the modules to prune, by name. Raises ValueError if one of them cannot be pruned."""
    require_values(model)
    named = [only] if isinstance(only, str) else only
    known = {name: layer for name, layer in _found(model).items() if pattern.linear or isinstance(layer, nn.Conv2d)}
    chosen = {name: layer for name, layer in known.items() if named is None or name in named}
    require_own_weights(model, chosen)
    found = {name: layer for name, layer in chosen.items() if pattern.prunes(layer.weight.shape)}
    unknown = [name for name in named or () if name not in found]
    if unknown:
        can = [name for name in known if name in found or name not in chosen]
        raise ValueError(f"layers has {listed(unknown)}, which the pattern cannot prune: name some of {listed(can)}")
    if not found:
        kinds = "Conv2d or Linear" if pattern.linear else "Conv2d"
        inputs = f" with a multiple of {pattern.multiple} input channels" if pattern.multiple > 1 else ""
        raise ValueError(f"{type(model).__name__} has no layer that pattern {pattern.name} prunes: no {kinds}{inputs}")
    return found


def _found(model: nn.Module) -> dict[str, Any]:
    return {name: module for name, module in model.named_modules() if isinstance(module, (nn.Conv2d, nn.Linear))}


def _mask_name(layer: str) -> str:
    return f"{layer}.weight".lstrip(".")  # the module itself may be a layer


def _weight(layer: Any) -> Tensor:
    """A layer's effective weight."""
    weight: Tensor = layer.weight_orig * layer.weight_mask if _pruned(layer, "weight_mask") else layer.weight
    return weight.detach()


def _kept_by_mask(layer: Any) -> Tensor:
    """A layer's mask, bool; all True without one."""
    mask: Tensor = layer.weight_mask != 0 if _pruned(layer, "weight_mask") else torch.ones_like(layer.weight) == 1
    return mask


def _kept(layer: Any) -> Tensor:
    weight: Tensor = layer.weight_mask if _pruned(layer, "weight_mask") else layer.weight
    return weight.detach() != 0


def _pruned(module: nn.Module, mask: str) -> bool:
    """Whether ``mask`` is a buffer that torch.nn.utils.prune made."""
    return (
        mask.endswith("_mask")
        and mask in module._buffers
        and f"{mask.removesuffix('_mask')}_orig" in module._parameters
    )


def _copied(model: nn.Module) -> nn.Module:
    """Deep copy a module; torch.nn.utils.prune's weights have a history, which cannot be copied."""
    for module in model.modules():
        for key in [key for key in module._buffers if _pruned(module, key)]:
            name = key.removesuffix("_mask")
            setattr(module, name, getattr(module, name).detach())  # computed anew by the next forward pass
    return copy.deepcopy(model)
