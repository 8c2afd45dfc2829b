"""Every score x distribution x pattern on torchvision's classifiers: budgets are exact and no layer grows.

Distributions and patterns see the layers in their full shapes; scores rank random weights of the same layers with at
most MOST rows and columns. tests/trials/sparsity/test_product.py has more tests of the same product on small nets.
"""

from __future__ import annotations

from itertools import product

import pytest
import torch
import torchvision
from torch import Tensor, nn

from benchmarks.coupled import CLASSIFIERS
from tests.trials.sparsity.test_product import kept_units, masks_of
from trials.sparsity import DISTRIBUTIONS, PATTERNS, SCORES, Layer, nearest_count, prunable

pytestmark = pytest.mark.products

FAMILIES = (
    "alexnet",
    "densenet",
    "efficientnet_b0",
    "efficientnet_v2_s",
    "googlenet",
    "mnasnet",
    "mobilenet",
    "regnet_x_400mf",
    "regnet_y_400mf",
    "resnet",
    "resnext",
    "shufflenet",
    "squeezenet",
    "vgg",
    "wide_resnet",
    "convnext_tiny",
    "swin_t",
    "vit_b",
)
NETS = [name for name in torchvision.models.list_models(module=torchvision.models) if name.startswith(FAMILIES)]


MOST = (10, 8)
"""Rows and columns of a layer of which scores see no more."""


def shapes_only(net: str) -> nn.Module:
    with torch.device("cpu" if net.startswith("regnet") else "meta"):  # regnet's builder reads values
        more = {"init_weights": False} if net in ("googlenet", "inception_v3") else {}
        model: nn.Module = torchvision.models.get_model(net, weights=None, **more)
    return model


def weights_of(net: str) -> dict[str, dict[str, Tensor]]:
    """Random weights by pattern and name."""
    model, generator = shapes_only(net), torch.Generator().manual_seed(0)
    shapes = {name: tuple(weight.shape) for name, weight in prunable(model).items()}
    small = {name: (min(s[0], MOST[0]), min(s[1], MOST[1]), *s[2:]) for name, s in shapes.items()}
    drawn = {name: torch.randn(shape, generator=generator) for name, shape in small.items()}
    return {
        name: {key: weight for key, weight in drawn.items() if pattern.prunes(weight.shape)}
        for name, pattern in PATTERNS.items()
    }


@pytest.mark.parametrize("net", CLASSIFIERS)
def test_masks_of_every_score_distribution_and_pattern(net: str) -> None:
    by_pattern = weights_of(net)
    for score, distribution, pattern in product(SCORES, DISTRIBUTIONS, PATTERNS):
        unit, weights = PATTERNS[pattern], by_pattern[pattern]
        units = sum(unit.units(weight.shape) for weight in weights.values())
        masks = {name: torch.ones_like(weight, dtype=torch.bool) for name, weight in weights.items()}
        for level, density in enumerate((0.6, 0.2), start=1):
            left = {name: weight * masks[name] for name, weight in weights.items()}
            scores = SCORES[score].units(left, unit, torch.Generator().manual_seed(level))
            assert not any(one.isnan().any() for one in scores.values())
            try:
                smaller = masks_of(score, distribution, pattern, left, density, level, within=masks, of_dense=True)
            except ValueError:
                assert distribution == "uniform_plus"
                break
            assert not any((mask & ~masks[name]).any() for name, mask in smaller.items()), (
                score,
                distribution,
                pattern,
            )
            expected = nearest_count(density, units) if unit.density is None else unit.density * units
            assert sum(kept_units(pattern, smaller)) == expected, (score, distribution, pattern)
            masks = smaller


@pytest.mark.parametrize("net", CLASSIFIERS)
def test_random_keeps_the_same_share_of_every_layer(net: str) -> None:
    """Shares of units in layers, over draws with fixed seeds, lie within 6 deviations of the density."""
    draws, density = 12, 0.5
    for pattern, weights in weights_of(net).items():
        if PATTERNS[pattern].choose is None:
            counts = torch.tensor([PATTERNS[pattern].units(weight.shape) for weight in weights.values()])
            kept = torch.zeros(len(weights), dtype=torch.float64)
            for seed in range(draws):
                kept += torch.tensor(kept_units(pattern, masks_of("random", "global", pattern, weights, density, seed)))
            deviation = (density * (1 - density) / (counts * draws)).sqrt()
            assert ((kept / draws / counts - density).abs() <= 6 * deviation).all(), pattern


@pytest.mark.parametrize("net", NETS)
def test_budgets_are_exact_and_levels_only_shrink(net: str) -> None:
    with torch.device("cpu" if net.startswith("regnet") else "meta"):  # regnet's builder reads values
        more = {"aux_logits": False, "init_weights": False} if net == "googlenet" else {}
        model = torchvision.models.get_model(net, weights=None, **more)
    for pattern in PATTERNS.values():
        shapes = [tuple(weight.shape) for weight in prunable(model, linear=pattern.linear).values()]
        units = [pattern.units(shape) for shape in shapes]
        for distribution in DISTRIBUTIONS.values() if pattern.choose is None else ():
            left = units
            for level in range(1, 6):
                layers = [Layer(n, n, shape, most) for n, shape, most in zip(units, shapes, left, strict=True)]
                try:
                    pools = distribution(layers, 0.7**level, None)
                except ValueError:
                    break  # uniform_plus cannot remove so much of the other layers
                assert sum(pool.keep for pool in pools) == nearest_count(0.7**level, sum(units))
                if len(pools) == len(units):
                    assert all(pool.keep <= most for pool, most in zip(pools, left, strict=True))
                    left = [pool.keep for pool in pools]
