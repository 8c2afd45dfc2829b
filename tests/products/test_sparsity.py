"""Every distribution x pattern on torchvision's classifiers, by their shapes: budgets are exact and no layer grows.

Scores are run on one random net of each kind in tests/trials/sparsity/test_product.py; here the layers are real ones.
"""

from __future__ import annotations

import pytest
import torch
import torchvision

from trials.sparsity import DISTRIBUTIONS, PATTERNS, Layer, nearest_count, prunable

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
