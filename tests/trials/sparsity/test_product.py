"""Every registered score x distribution x pattern, on nets of four kinds: what holds of all of them.

The tables are the registries, so a new score, distribution or pattern is covered once it is registered.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import product

import pytest
import torch
from torch import Tensor, nn

from trials.models import MODELS, build
from trials.sparsity import (
    DISTRIBUTIONS,
    PATTERNS,
    SCORES,
    Masks,
    Pattern,
    build_masks,
    drop_nearest,
    keep_count,
    keep_nearest,
    masks_by_score,
    nearest_count,
    prunable_by,
)

STRUCTURED = [name for name, pattern in PATTERNS.items() if not pattern.of_single_weights]
CHOOSING = [name for name, pattern in PATTERNS.items() if pattern.choose is not None]
RANKED = [name for name in PATTERNS if name not in CHOOSING]


def depthwise() -> nn.Module:
    """A stem, a depthwise and a pointwise convolution, a head; the middle layer's weights are small."""
    net = nn.Sequential(
        *(nn.Conv2d(3, 12, 3), nn.Conv2d(12, 12, 3, groups=12), nn.Conv2d(12, 20, 1)),
        *(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(20, 10)),
    )
    with torch.no_grad():
        net[1].weight.mul_(1e-3)
    return net


NETS: dict[str, Callable[[], nn.Module]] = {
    "residual": lambda: build("resnet20", num_classes=10, in_channels=3, seed=0),
    "plain": lambda: build("tiny", num_classes=10, in_channels=1, seed=0),
    "depthwise": depthwise,
    "linear": lambda: build("mlp_7_relu", num_classes=10, in_channels=1, seed=0),
}
assert {"resnet20", "tiny", "mlp_7_relu"} <= MODELS.keys()


def weights_of(net: str, pattern: Pattern) -> dict[str, Tensor]:
    torch.manual_seed(0)
    return {name: w.detach().clone() for name, w in prunable_by(NETS[net](), pattern).items()}


def masks_of(
    score: str,
    distribution: str,
    pattern: str,
    weights: dict[str, Tensor],
    density: float,
    seed: int = 0,
    **more: object,
) -> Masks:
    generator = torch.Generator().manual_seed(seed)
    chosen = {"density": density, "pattern": PATTERNS[pattern], "distribution": DISTRIBUTIONS[distribution]}
    return masks_by_score(SCORES[score], weights, generator, **chosen, **more)  # type: ignore[arg-type]


def kept_units(pattern: str, masks: Masks) -> list[int]:
    """Units of which anything is kept, by layer; a unit is whole."""
    unit = PATTERNS[pattern]
    for mask in masks.values():
        assert torch.equal(unit.expand(unit.left(mask), mask.shape), mask)
    return [int(unit.left(mask).sum()) for mask in masks.values()]


@pytest.mark.parametrize("net", NETS)
@pytest.mark.parametrize(("score", "distribution", "pattern"), list(product(SCORES, DISTRIBUTIONS, PATTERNS)))
def test_counts_are_exact_and_masks_only_shrink(net: str, score: str, distribution: str, pattern: str) -> None:
    unit = PATTERNS[pattern]
    weights = weights_of(net, unit)
    units = [unit.units(weight.shape) for weight in weights.values()]
    masks = {name: torch.ones_like(weight, dtype=torch.bool) for name, weight in weights.items()}
    if not weights:
        assert net == "linear"
        return
    for level, density in enumerate((0.9, 0.5, 0.23), start=1):
        weights = {name: weight * masks[name] for name, weight in weights.items()}
        for one in SCORES[score].units(weights, unit, torch.Generator().manual_seed(level)).values():
            assert not one.isnan().any()
        try:
            smaller = masks_of(score, distribution, pattern, weights, density, level, within=masks, of_dense=True)
        except ValueError:
            if distribution != "uniform_plus":
                raise
            break
        assert not any((mask & ~masks[name]).any() for name, mask in smaller.items())
        kept = kept_units(pattern, smaller)
        if pattern in CHOOSING:
            assert unit.density is not None
            assert sum(kept) == unit.density * sum(units)
        else:
            assert sum(kept) == nearest_count(density, sum(units))
            if distribution == "uniform":
                assert all(abs(one - density * count) < 1 for one, count in zip(kept, units, strict=True))
        masks = smaller


@pytest.mark.parametrize("net", ["residual", "depthwise"])
@pytest.mark.parametrize(("distribution", "pattern"), list(product(("uniform", "erk"), PATTERNS)))
def test_lamp_and_magnitude_agree_within_a_layer(net: str, distribution: str, pattern: str) -> None:
    weights = weights_of(net, PATTERNS[pattern])
    lamp, magnitude = (masks_of(score, distribution, pattern, weights, 0.4) for score in ("lamp", "magnitude"))
    assert all(torch.equal(lamp[name], magnitude[name]) for name in weights)
    generator = torch.Generator()
    for name, scores in SCORES["lamp"].units(weights, PATTERNS[pattern], generator).items():
        norms = SCORES["magnitude"].units({name: weights[name]}, PATTERNS[pattern], generator)[name]
        assert torch.equal(scores.reshape(-1).argsort(stable=True), norms.reshape(-1).argsort(stable=True))


@pytest.mark.parametrize("pattern", STRUCTURED)
def test_lamp_of_units_is_of_their_own_squared_norms(pattern: str) -> None:
    weights = weights_of("plain", PATTERNS[pattern])
    for name, scores in SCORES["lamp"].units(weights, PATTERNS[pattern], torch.Generator()).items():
        u = PATTERNS[pattern].unit_scores(weights[name].abs()).double().square().reshape(-1)
        expected = torch.stack([one / u[u >= one].sum() for one in u])
        torch.testing.assert_close(scores.reshape(-1), expected, rtol=1e-9, atol=0)


@pytest.mark.parametrize("pattern", RANKED)
@pytest.mark.parametrize("keep", [1, 2, 3, 4, 7])
def test_lamp_empties_no_layer_before_another_has_one_to_spare(pattern: str, keep: int) -> None:
    """Four layers of very different sizes: each keeps one while four are kept; fewer go to the last layers."""
    generator = torch.Generator().manual_seed(0)
    weights = {str(i): torch.randn(6, 5, 3, 3, generator=generator) * 10.0 ** (-4 * i) for i in range(4)}
    total = sum(PATTERNS[pattern].units(weight.shape) for weight in weights.values())
    kept = kept_units(pattern, masks_of("lamp", "global", pattern, weights, keep / total))
    assert sum(kept) == keep
    if keep >= 4:
        assert min(kept) >= 1
    else:
        assert kept == [int(i >= 4 - keep) for i in range(4)]


@pytest.mark.parametrize("pattern", RANKED)
def test_lamp_keeps_a_unit_of_a_layer_of_zeros_while_others_have_one_to_spare(pattern: str) -> None:
    generator = torch.Generator().manual_seed(0)
    weights = {"a": torch.randn(6, 5, 3, 3, generator=generator), "zero": torch.zeros(6, 5, 3, 3)}
    within = {name: torch.ones_like(weight, dtype=torch.bool) for name, weight in weights.items()}
    within["zero"].view(6, 5, -1)[-1] = False  # the last filter is gone already
    units = PATTERNS[pattern].units((6, 5, 3, 3))
    for keep, expected in ((2, [1, 1]), (1, [1, 0])):
        masks = masks_of("lamp", "global", pattern, weights, keep / (2 * units), within=within, of_dense=True)
        assert [int(PATTERNS[pattern].left(mask).sum()) for mask in masks.values()] == expected


HALF = (torch.bfloat16, torch.float16)


@pytest.mark.parametrize("dtype", HALF)
@pytest.mark.parametrize("pattern", STRUCTURED)
def test_units_of_half_precision_are_ranked_by_what_they_are(pattern: str, dtype: torch.dtype) -> None:
    """Norms rounded to half precision are mostly equal, and the first of equal ones would go."""
    weights = {name: weight.to(dtype) for name, weight in weights_of("residual", PATTERNS[pattern]).items()}
    exact = {name: weight.double() for name, weight in weights.items()}
    masks, others = (masks_of("magnitude", "global", pattern, given, 0.5) for given in (weights, exact))
    assert all(torch.equal(mask, others[name]) for name, mask in masks.items())


@pytest.mark.parametrize("dtype", HALF)
@pytest.mark.parametrize("pattern", RANKED)
def test_random_does_not_go_by_the_place_in_half_precision(pattern: str, dtype: torch.dtype) -> None:
    unit = PATTERNS[pattern]
    weights = {name: torch.zeros(200, 200, 1, 1, dtype=dtype) for name in ("first", "second")}
    counts = unit.units((200, 200, 1, 1))
    draws = 5
    kept = torch.zeros(2, dtype=torch.float64)
    for seed in range(draws):
        kept += torch.tensor(kept_units(pattern, masks_of("random", "global", pattern, weights, 0.003, seed)))
    deviation = (2 * 0.997 * 0.003 * counts * draws) ** 0.5
    assert abs(float(kept[0] - kept[1])) <= 4.5 * deviation


@pytest.mark.parametrize(("score", "pattern"), list(product([name for name in SCORES if name != "random"], PATTERNS)))
def test_scores_follow_a_permutation_of_filters(score: str, pattern: str) -> None:
    weights = {name: w.double() for name, w in weights_of("residual", PATTERNS[pattern]).items()}
    drawn = torch.Generator().manual_seed(2)  # values without ties, which go by their places
    weights = {name: torch.randn(w.shape, generator=drawn, dtype=torch.float64) for name, w in weights.items()}
    orders = {name: torch.randperm(len(w), generator=torch.Generator().manual_seed(1)) for name, w in weights.items()}
    turned = {name: weight[orders[name]] for name, weight in weights.items()}
    scores, others = (SCORES[score].units(w, PATTERNS[pattern], torch.Generator()) for w in (weights, turned))
    for name, order in orders.items():
        expected = scores[name][order] if len(scores[name]) > 1 else scores[name]
        torch.testing.assert_close(others[name], expected, rtol=1e-6, atol=0)


@pytest.mark.parametrize("pattern", PATTERNS)
def test_random_is_uniform_over_units(pattern: str) -> None:
    """However large a unit is, each is kept with the same probability: shares per layer lie within 4.5 deviations."""
    weights = {
        "small": torch.zeros(8, 8, 1, 1),
        "large": torch.zeros(8, 8, 7, 7),
        "wide": torch.zeros(8, 64, 3, 3),
        "deep": torch.zeros(64, 8, 3, 3),
    }
    unit, draws = PATTERNS[pattern], 150
    density = unit.density or 0.3
    kept = torch.zeros(len(weights), dtype=torch.float64)
    for seed in range(draws):
        kept += torch.tensor(kept_units(pattern, masks_of("random", "global", pattern, weights, density, seed)))
    counts = torch.tensor([unit.units(weight.shape) for weight in weights.values()], dtype=torch.float64)
    deviation = (density * (1 - density) / (counts * draws)).sqrt()
    assert ((kept / draws / counts - density).abs() <= 4.5 * deviation).all(), kept / draws / counts


def test_random_keeps_the_share_of_filters_in_every_layer_of_a_residual_net() -> None:
    """Norms of draws ranked layers by their size: the first eight kept nothing, the last all."""
    weights = weights_of("residual", PATTERNS["filter"])
    shares = torch.zeros(len(weights), dtype=torch.float64)
    for seed in range(40):
        kept = kept_units("filter", masks_of("random", "global", "filter", weights, 0.5, seed))
        shares += torch.tensor([one / len(w) for one, w in zip(kept, weights.values(), strict=True)]) / 40
    assert float(shares.min()) > 0.4
    assert float(shares.max()) < 0.6


@pytest.mark.parametrize("count", [keep_count, keep_nearest, drop_nearest])
@pytest.mark.parametrize("distribution", DISTRIBUTIONS)
def test_released_rounding_only_shrinks_too(distribution: str, count: Callable[[float, int], int]) -> None:
    weights = weights_of("residual", PATTERNS["filter"])
    masks = {name: torch.ones_like(weight, dtype=torch.bool) for name, weight in weights.items()}
    for level in range(1, 7):
        density = 0.7**level
        more = {"within": masks, "of_dense": True, "count": count}
        smaller = masks_of("random", distribution, "filter", weights, density, level, **more)
        assert not any((mask & ~masks[name]).any() for name, mask in smaller.items())
        if distribution == "global":
            assert sum(kept_units("filter", smaller)) == count(density, sum(len(w) for w in weights.values()))
        masks = smaller


def test_a_pattern_may_choose_its_units_itself() -> None:
    def best_of_every_row(scores: Tensor) -> Tensor:
        rows = scores.reshape(scores.shape[0], -1)
        return torch.zeros_like(rows, dtype=torch.bool).scatter_(1, rows.argmax(1, keepdim=True), True).view_as(scores)

    pattern = Pattern("best", lambda score: score, linear=True, choose=best_of_every_row)
    weights = weights_of("plain", pattern)
    found = masks_by_score(
        SCORES["magnitude"],
        weights,
        torch.Generator(),
        density=0.9,
        pattern=pattern,
        distribution=DISTRIBUTIONS["global"],
    )
    for name, mask in found.items():
        assert mask.shape == weights[name].shape
        assert (mask.flatten(1).sum(1) == 1).all()
    scores = {name: weight.abs() for name, weight in weights.items()}
    same = build_masks(scores, density=0.1, pattern=pattern, distribution=DISTRIBUTIONS["erk"])
    assert all(torch.equal(mask, same[name]) for name, mask in found.items())
