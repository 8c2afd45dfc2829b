"""Every torchvision classifier and every model of this project: what is masked can be cut, and the outputs stay."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from torch import nn

from tests.trials.compact.cutting import assert_cut_equals_masked, assert_loads, mask_filters, mask_units, offer
from tests.trials.compact.random_nets import Composed, lively
from trials.compact import dependencies, units_of
from trials.models import MODELS
from trials.networks.onnx import export_onnx

pytestmark = [pytest.mark.products, pytest.mark.filterwarnings("ignore")]

TORCHVISION = [
    *(
        "alexnet",
        "vgg11",
        "vgg13_bn",
        "vgg16",
        "vgg19_bn",
        "squeezenet1_0",
        "squeezenet1_1",
        "googlenet",
        "inception_v3",
    ),
    *("resnet18", "resnet34", "resnet50", "resnet101", "resnext50_32x4d", "resnext101_32x8d", "wide_resnet50_2"),
    *("densenet121", "densenet161", "densenet169", "densenet201", "mobilenet_v2", "mobilenet_v3_small"),
    *("mobilenet_v3_large", "mnasnet0_5", "mnasnet1_3", "shufflenet_v2_x0_5", "shufflenet_v2_x1_0"),
    *("shufflenet_v2_x2_0", "efficientnet_b0", "efficientnet_b3", "efficientnet_v2_s", "regnet_x_400mf"),
    *("regnet_x_3_2gf", "regnet_y_400mf", "regnet_y_3_2gf", "convnext_tiny", "convnext_small", "vit_b_16", "vit_b_32"),
    *("swin_t", "swin_v2_t", "maxvit_t"),
]
"""One or more of each family that torchvision has, 42 in all."""

SIZES = {
    "inception_v3": 299,
    "alexnet": 96,
    **dict.fromkeys(("vit_b_16", "vit_b_32", "swin_t", "swin_v2_t", "maxvit_t"), 224),
}


@pytest.mark.parametrize("name", [*TORCHVISION, *MODELS])
def test_the_compact_form_computes_what_the_masked_net_does(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if name not in MODELS:
        offer(monkeypatch, name)
    dense = lively(MODELS[name](num_classes=5, in_channels=3))
    size = SIZES.get(name, 64 if name in TORCHVISION else 32)
    x = torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    units = units_of(dense)
    graph = dependencies(dense)
    called = {key for key, module in dense.named_modules() if isinstance(module, nn.Conv2d | nn.Linear)}
    for layer, channels in graph.items():  # a layer that stays whole says why
        assert channels.pinned or any(layer in names for names in units.names), layer
    assert graph.keys() <= {f"{key}.weight" for key in called}
    for mask in (mask_filters, mask_units):
        model = copy.deepcopy(dense)
        kept = assert_cut_equals_masked(model, mask(model, 3), x, tolerance=1e-7)
    again = assert_loads(name, model, kept, x, tmp_path)
    del model, dense
    export_onnx(again, (3, size, size), tmp_path / "net.onnx")  # compares onnxruntime's outputs with torch's


@pytest.mark.parametrize("start", range(100, 1100, 100))
def test_many_nets_composed_at_random(start: int) -> None:
    x = torch.randn(3, 3, 8, 8, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    for seed in range(start, start + 100):
        for mask in (mask_units, mask_filters):
            model = lively(Composed(seed), seed)
            assert_cut_equals_masked(model, mask(model, seed), x)
