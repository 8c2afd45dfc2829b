"""Every torchvision classifier and every model of this project: what is masked can be cut, and the outputs stay."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from torch import nn

from benchmarks.coupled import CLASSIFIERS
from tests.trials.compact.cutting import (
    assert_cut_equals_masked,
    assert_loads,
    mask_filters,
    mask_rows,
    mask_units,
    offer,
)
from tests.trials.compact.random_nets import Composed, lively
from tests.trials.compact.test_models import BRANCHING, KINDS
from trials.compact import dependencies, simplify, units_of
from trials.models import MODELS
from trials.networks.onnx import export_onnx

pytestmark = [pytest.mark.products, pytest.mark.filterwarnings("ignore")]

SIZES = {
    "inception_v3": 299,
    "alexnet": 96,
    **dict.fromkeys(("vit_b_16", "vit_b_32", "swin_t", "swin_v2_t", "maxvit_t"), 224),
}


@pytest.mark.parametrize(
    ("source", "name"), [*(("torchvision", n) for n in CLASSIFIERS), *(("ours", n) for n in MODELS)]
)
def test_the_compact_form_computes_what_the_masked_net_does(
    source: str, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if source == "torchvision":
        offer(monkeypatch, name)
    dense = lively(MODELS[name](num_classes=5, in_channels=3))
    size = SIZES.get(name, 64) if source == "torchvision" else 32
    x = torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    units = units_of(dense)
    graph = dependencies(dense)
    called = {key for key, module in dense.named_modules() if isinstance(module, nn.Conv2d | nn.Linear)}
    for layer, channels in graph.items():  # a layer that stays whole says why
        assert channels.pinned or any(layer in names for names in units.names), layer
    assert graph.keys() <= {f"{key}.weight" for key in called}
    for mask in (mask_filters, mask_units):
        model = copy.deepcopy(dense)
        assert_cut_equals_masked(model, mask(model, 3), x, tolerance=1e-7)
    model = dense
    mask_units(model, 4)
    mask_rows(model, 4)  # biases and norms live, so that masked filters emit constants
    with torch.no_grad():
        expected = model(x)
        assert expected.std() > 1e-6
        kept = simplify(model)
        torch.testing.assert_close(model(x), expected, rtol=1e-7, atol=1e-7 * float(expected.abs().max()))
    again = assert_loads(name, model, kept, x, tmp_path)
    if source == "torchvision" or name in (
        *KINDS,
        *BRANCHING,
    ):  # our other models are deeper or wider ones of these kinds
        export_onnx(again, (3, size, size), tmp_path / "net.onnx")  # compares onnxruntime's outputs with torch's


@pytest.mark.parametrize("start", range(100, 1100, 100))
def test_many_nets_composed_at_random(start: int) -> None:
    x = torch.randn(3, 3, 8, 8, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    for seed in range(start, start + 100):
        for mask in (mask_units, mask_filters):
            model = lively(Composed(seed), seed)
            assert_cut_equals_masked(model, mask(model, seed), x)
