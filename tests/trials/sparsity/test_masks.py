"""Masks: exact counts, nested within earlier masks, of prunable weights only."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from trials.models import MODELS
from trials.sparsity import DISTRIBUTIONS, PATTERNS, SCORES, build_masks, density_of, nearest_count, prunable

SHAPES = {"a.weight": (4, 3, 3, 3), "b.weight": (6, 4, 1, 1), "c.weight": (5, 24)}
WEIGHT = PATTERNS["weight"]


def magnitudes(seed: int, levels: int = 10**6) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {
        name: torch.randint(0, levels + 1, shape, generator=generator).float() / levels
        for name, shape in SHAPES.items()
    }


@pytest.mark.parametrize("distribution", ["global", "uniform"])
@given(seed=st.integers(0, 1000), densities=st.lists(st.floats(0.05, 1), min_size=1, max_size=5), ties=st.booleans())
def test_within_masks_nothing_grows_back_and_counts_are_exact(
    distribution: str, seed: int, densities: list[float], ties: bool
) -> None:
    masks = {name: torch.ones(shape, dtype=torch.bool) for name, shape in SHAPES.items()}
    counts = {name: mask.numel() for name, mask in masks.items()}
    for level, density in enumerate(densities):
        # new scores at each level, zero where masked as weights are; kept zeros must not lose to masked ones
        drawn = magnitudes(seed + level, levels=3 if ties else 10**6)
        scores = {name: drawn[name] * masks[name] for name in drawn}
        smaller = build_masks(
            scores, density=density, pattern=WEIGHT, distribution=DISTRIBUTIONS[distribution], within=masks
        )
        assert list(smaller) == list(masks)
        for name, mask in smaller.items():
            assert not (mask & ~masks[name]).any()
        now = {name: int(mask.sum()) for name, mask in smaller.items()}
        if distribution == "global":
            assert sum(now.values()) == nearest_count(density, sum(counts.values()))
        else:
            assert sum(now.values()) == nearest_count(density, sum(counts.values()))
            assert all(abs(now[name] - density * count) < 1 for name, count in counts.items())
        masks, counts = smaller, now


@given(seed=st.integers(0, 1000), density=st.floats(0.01, 1))
def test_global_masks_keep_the_largest_over_all_layers(seed: int, density: float) -> None:
    scores = magnitudes(seed)
    masks = build_masks(scores, density=density, pattern=WEIGHT, distribution=DISTRIBUTIONS["global"])
    kept = torch.cat([scores[name][masks[name]] for name in scores])
    dropped = torch.cat([scores[name][~masks[name]] for name in scores])
    assert len(kept) == nearest_count(density, sum(score.numel() for score in scores.values()))
    assert not len(dropped) or kept.min() >= dropped.max()
    assert density_of(masks) == len(kept) / (len(kept) + len(dropped))


def test_absolute_ranks_signed_scores_by_size() -> None:
    scores = {"w": torch.tensor([[-3.0, 1.0, -2.0, 0.0]])}
    (signed,), (absolute,) = (
        build_masks(
            scores, density=0.5, pattern=WEIGHT, distribution=DISTRIBUTIONS["global"], absolute=absolute
        ).values()
        for absolute in (False, True)
    )
    assert signed.tolist() == [[False, True, False, True]]
    assert absolute.tolist() == [[True, False, True, False]]


def test_ties_across_layers_drop_the_first_layer_first() -> None:
    scores = {"first": torch.ones(4), "second": torch.ones(4)}
    masks = build_masks(scores, density=0.5, pattern=WEIGHT, distribution=DISTRIBUTIONS["global"])
    assert not masks["first"].any()
    assert masks["second"].all()


def test_within_masks_only_signed() -> None:
    scores = {"w": torch.rand(4)}
    with pytest.raises(ValueError, match="absolute false"):
        build_masks(
            scores,
            density=0.5,
            pattern=WEIGHT,
            distribution=DISTRIBUTIONS["global"],
            within={"w": torch.ones(4, dtype=torch.bool)},
            absolute=True,
        )


def test_density_of_no_masks_is_one() -> None:
    assert density_of({}) == 1.0


@pytest.mark.parametrize("name", MODELS)
def test_prunable_is_every_conv_and_linear_weight_in_module_order(name: str) -> None:
    with torch.device("meta"):
        model = MODELS[name](num_classes=10, in_channels=3)
    expected = [key for key, p in model.named_parameters() if p.dim() in (2, 4)]
    found = prunable(model)
    assert list(found) == expected
    parameters = dict(model.named_parameters())
    assert all(found[key] is parameters[key] for key in found)
    convs = [key for key, p in model.named_parameters() if p.dim() == 4]
    assert list(prunable(model, linear=False)) == convs
    assert len(convs) < len(expected)
    assert convs or name.startswith("mlp")


def test_norms_and_biases_are_not_prunable() -> None:
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Flatten(), nn.Linear(2, 2))
    assert list(prunable(model)) == ["0.weight", "3.weight"]


def test_magnitude_scores_are_absolute_values() -> None:
    weights = {"w": nn.Parameter(torch.tensor([[-2.0, 1.0], [0.0, -0.5]]))}
    scores = SCORES["magnitude"](weights, torch.Generator())
    assert scores["w"].tolist() == [[2.0, 1.0], [0.0, 0.5]]
    assert not scores["w"].requires_grad


def test_random_scores_follow_the_generator_and_nothing_else() -> None:
    weights = {"a": torch.zeros(50, 2), "b": torch.zeros(30, dtype=torch.bfloat16)}
    first, again, other = (SCORES["random"](weights, torch.Generator().manual_seed(seed)) for seed in (1, 1, 2))
    for name, weight in weights.items():
        assert first[name].shape == weight.shape
        assert first[name].dtype == weight.dtype
        assert torch.equal(first[name], again[name])
        assert not torch.equal(first[name], other[name])
        assert float(first[name].min()) >= 0
    assert 0.35 < float(first["a"].mean()) < 0.65
