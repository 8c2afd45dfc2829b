"""torchvision's and timm's classifiers as models: what is built, what is refused, and that methods prune them."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from trials.compact import dependencies, kept_rows, shrink
from trials.data import require_data
from trials.data_header import DataHeader
from trials.errors import UserError
from trials.methods.model_facts import facts_of
from trials.methods.parsing import parse
from trials.methods.preconditions import require_runnable
from trials.models import MODELS, build, without_values
from trials.running.trial import TrialHost, run


def _values(model: nn.Module) -> list[float]:
    return [float(parameter.detach().double().square().sum()) for parameter in model.parameters()]


SMALL = ("torchvision:squeezenet1_1", "torchvision:mobilenet_v3_small", "timm:test_resnet", "timm:test_efficientnet")


@pytest.mark.parametrize("name", SMALL)
@pytest.mark.parametrize("channels", [1, 3])
def test_models_are_seeded_have_the_asked_shape_and_change_nothing_in_place(name: str, channels: int) -> None:
    before = torch.random.get_rng_state()
    first, again, other = (build(name, num_classes=7, in_channels=channels, seed=seed) for seed in (1, 1, 2))
    assert torch.equal(torch.random.get_rng_state(), before)
    assert _values(first) == _values(again) != _values(other)
    outputs: list[Tensor] = []
    called: set[nn.Module] = set()

    def note(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        outputs.append(output)
        called.add(module)

    layers = [module for module in first.modules() if isinstance(module, nn.Conv2d | nn.Linear)]
    for layer in layers:
        layer.register_forward_hook(note)
    with torch.no_grad():
        assert first(torch.zeros(2, channels, 64, 64)).shape == (2, 7)
    assert called == set(layers)
    assert all(output._version == 0 for output in outputs), "an activation has changed a layer's output in place"


def test_another_number_of_channels_changes_only_the_first_convolution() -> None:
    gray, rgb = (without_values("torchvision:resnet18", num_classes=10, in_channels=channels) for channels in (1, 3))
    shapes = ({name: value.shape for name, value in model.state_dict().items()} for model in (gray, rgb))
    one, other = shapes
    assert [name for name in one if one[name] != other[name]] == ["conv1.weight"]
    assert one["conv1.weight"] == (64, 1, 7, 7)


def test_auxiliary_classifiers_are_left_out() -> None:
    model = without_values("torchvision:googlenet", num_classes=10, in_channels=3)
    assert not [name for name, _ in model.named_parameters() if name.startswith("aux")]
    assert facts_of(model, DataHeader("any", 10, 3, (64, 64), 100)).outputs == (2, 10)


REFUSED = {
    "torchvision:resnet81": r"torchvision has no classifier .*did you mean torchvision:resnet18",
    "torchvision:fasterrcnn_resnet50_fpn": "torchvision has no classifier of this name: see",
    "timm:resnet18x": r"timm has no classifier of this name: did you mean timm:resnet18",
    "timm:resnet18.none": r"timm knows no such weights: it has timm:resnet18, timm:resnet18\.a1_in1k",
    "timm:hf_hub:owner/name": "timm has no classifier of this name",
    "torchvision:vit_b_16": r"MultiheadAttention, .* masks would not hold",
    "torchvision:swin_t": "ShiftedWindowAttention use weights in another way",
    "timm:nf_resnet26": "ScaledStdConv2d use weights in another way",
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_pruned_is_refused_before_anything_starts(name: str) -> None:
    fields = {"method": "bip", "density": 0.5, "dataset": "digits", "model": name}
    with pytest.raises(UserError, match=REFUSED[name]):
        require_runnable(parse(fields), DataHeader("digits", 10, 1, (64, 64), 1437))


def test_without_timm_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(UserError, match=r"model 'timm:test_vit' needs timm, .*sparsity-sweeper\[timm\]"):
        MODELS.prefixes["timm"]("test_vit")


@pytest.mark.parametrize("name", ["timm:test_resnet", "torchvision:mobilenet_v3_small"])
def test_filters_are_cut_without_a_change_of_outputs(name: str) -> None:
    model = build(name, num_classes=10, in_channels=1, seed=1).eval()
    found = dependencies(model).items()
    weight, channels = next((weight, c) for weight, c in found if not c.pinned and c.norms and not c.depthwise)
    removed = torch.tensor([0, 2])
    for norm in channels.norms:
        for values in (model.get_submodule(norm).weight, model.get_submodule(norm).bias):
            values.data[removed] = 0  # these filters emit zeros, whatever their weights are
    images = torch.randn(2, 1, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        before = model(images)
        rows = len(model.get_parameter(weight))
        shrink(model, kept_rows(model, {weight: removed}, "filter"))
        assert len(model.get_parameter(weight)) == rows - 2
        assert torch.allclose(model(images), before, atol=1e-5)


FEW = {"epochs": 1, "batch_size": 128}
SMALLEST = {
    "bip": {"method": "bip", "density": 0.3, "pretrain": FEW, "prune": FEW, "finetune": FEW},
    "greg1": {
        "method": "greg1",
        "stage_pr": 0.4,
        "pattern": "weight",
        "update_reg_interval": 1,
        "reg_granularity_prune": 1.0,
        "stabilize_reg_interval": 1,
        "pretrain": FEW,
        "prune": {"batch_size": 128},
        "finetune": FEW,
    },
}


@pytest.mark.parametrize("method", SMALLEST)
def test_methods_prune_them(few_digits: None, tmp_path: Path, method: str) -> None:
    config = parse({**SMALLEST[method], "dataset": "few_digits", "model": "timm:test_resnet"})
    require_runnable(config, require_data("few_digits"))
    state = run(config, tmp_path / config.id, TrialHost(tmp_path / "stages"))
    assert state.status == "complete", state.error
    assert 0.2 < state.result["density"] < 0.75
