"""Weights of a group are pruned together."""

from __future__ import annotations

from itertools import product

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from trials.sparsity import DISTRIBUTIONS, PATTERNS, Pattern, build_masks, nearest_count

AXES = {
    "kernel": (0, 1),
    "filter": (0,),
    "channel": (1,),
    "kernel_mean": (0, 1),
    "filter_l1": (0,),
}  # the axes that count units; the others are inside one
SHAPES = [(6, 3, 3, 3), (8, 6, 1, 1), (1, 5, 2, 4)]


def unit_masks(mask: Tensor, name: str) -> list[Tensor]:
    """The mask's entries, unit by unit, found without any code under test."""
    ranges = [range(mask.shape[axis]) for axis in AXES[name]]
    return [
        mask[tuple(index[AXES[name].index(axis)] if axis in AXES[name] else slice(None) for axis in range(4))].reshape(
            -1
        )
        for index in product(*ranges)
    ]


@pytest.mark.parametrize("distribution", ["global", "uniform"])
@pytest.mark.parametrize("name", AXES)
@given(density=st.floats(0.01, 1), seed=st.integers(0, 1000))
def test_groups_are_whole_and_exactly_as_many_as_asked_for(
    name: str, distribution: str, density: float, seed: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    scores = {str(i): torch.randn(shape, generator=generator) for i, shape in enumerate(SHAPES)}
    masks = build_masks(
        scores, density=density, pattern=PATTERNS[name], distribution=DISTRIBUTIONS[distribution], absolute=True
    )
    assert list(masks) == list(scores)
    kept, counts = [], []
    for key, mask in masks.items():
        assert mask.shape == scores[key].shape
        assert mask.dtype == torch.bool
        assert mask.is_contiguous()
        units = unit_masks(mask, name)
        assert all(unit.all() or not unit.any() for unit in units)
        kept.append(sum(bool(unit.all()) for unit in units))
        counts.append(len(units))
    if distribution == "global":
        assert sum(kept) == nearest_count(density, sum(counts))
    else:
        assert sum(kept) == nearest_count(density, sum(counts))
        assert all(abs(one - density * count) < 1 for one, count in zip(kept, counts, strict=True))


@pytest.mark.parametrize(("name", "order"), [("kernel", 1), ("filter", 2), ("channel", 2)])
def test_units_are_ranked_by_their_norm(name: str, order: int) -> None:
    scores = torch.randn(5, 4, 3, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    (mask,) = build_masks(
        {"w": scores}, density=0.5, pattern=PATTERNS[name], distribution=DISTRIBUTIONS["global"]
    ).values()
    norms = [float((unit.abs() ** order).sum() ** (1 / order)) for unit in unit_masks(scores, name)]
    kept = [bool(unit.all()) for unit in unit_masks(mask, name)]
    assert min(n for n, k in zip(norms, kept, strict=True) if k) > max(
        n for n, k in zip(norms, kept, strict=True) if not k
    )


def test_kernels_are_ranked_by_l1_and_filters_by_l2() -> None:
    spread, peak = torch.full((1, 1, 3, 3), 1.0), torch.zeros(1, 1, 3, 3)
    peak[0, 0, 1, 1] = 5.0  # L1: 9 against 5; L2: 3 against 5
    scores = {"w": torch.cat([spread, peak])}
    kernels, filters = (
        build_masks(scores, density=0.5, pattern=PATTERNS[name], distribution=DISTRIBUTIONS["global"])["w"]
        for name in ("kernel", "filter")
    )
    assert kernels[:, 0, 0, 0].tolist() == [True, False]
    assert filters[:, 0, 0, 0].tolist() == [False, True]


def test_only_single_weights_are_pruned_in_linear_layers() -> None:
    assert [name for name, pattern in PATTERNS.items() if pattern.linear] == ["weight", "nm"]
    assert all(pattern.name == name for name, pattern in PATTERNS.items())


@pytest.mark.parametrize("pattern", PATTERNS.values(), ids=PATTERNS)
@pytest.mark.parametrize("shape", [(6, 4, 3, 3), (8, 1, 3, 3), (5, 7, 1, 1)])
def test_units_are_as_many_as_their_scores(pattern: Pattern, shape: tuple[int, ...]) -> None:
    assert pattern.units(shape) == pattern.unit_scores(torch.rand(shape)).numel()
