"""Units over several layers: whatever a network is composed of, its compact form computes what it did masked."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from tests.trials.compact.cutting import assert_cut_equals_masked, assert_loads, mask_filters, mask_units, offer
from tests.trials.compact.random_nets import Attention, Composed, Fixed, Halves, lively
from trials.compact import dependencies, kept_rows, require_rows, shrink, silent, units_of
from trials.models import MODELS
from trials.networks.onnx import export_onnx
from trials.training.net import Net


def images(size: int = 8, channels: int = 3) -> Tensor:
    return torch.randn(3, channels, size, size, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


@pytest.mark.parametrize("seeds", [range(start, start + 20) for start in range(0, 80, 20)], ids=str)
def test_nets_composed_at_random(seeds: range) -> None:
    cut = 0
    for seed in seeds:
        for mask in (mask_units, mask_filters):
            model = lively(Composed(seed), seed)
            masked = mask(model, seed)
            kept = assert_cut_equals_masked(model, masked, images())
            cut += len(masked)
            again = Composed(seed).double().eval()  # as a file is read
            require_rows(again, kept)
            shrink(again, kept)
            again.load_state_dict(model.state_dict())
            torch.testing.assert_close(again(images()), model(images()))
    assert cut > 50


@pytest.mark.parametrize("seed", range(0, 40, 5))
def test_a_compact_net_is_cut_again(seed: int) -> None:
    net = Net(lively(Composed(seed), seed))
    x = images()
    for round_ in (1, 2):
        mask_units(net.model, round_)
        expected = net.model(x)
        net.shrink(silent(net.model), "filter")
        torch.testing.assert_close(net.model(x), expected, rtol=1e-9, atol=1e-9)
    other = Net(Composed(seed).double().eval())
    other.load_state_dict(net.state_dict())
    torch.testing.assert_close(other.model(x), net.model(x))


@pytest.mark.parametrize("name", ["shufflenet_v2_x0_5", "mobilenet_v3_small"])
@pytest.mark.filterwarnings("ignore")
def test_torchvision_nets(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    offer(monkeypatch, name)
    dense = lively(MODELS[name](num_classes=5, in_channels=3))
    x = images(64)
    for mask in (mask_filters, mask_units):
        model = copy.deepcopy(dense)
        kept = assert_cut_equals_masked(model, mask(model, 3), x)
        assert_loads(name, model, kept, x, tmp_path)


@pytest.mark.parametrize("name", ["small_vit", "small_shuffle"])
@pytest.mark.filterwarnings("ignore")
def test_the_compact_form_runs_elsewhere(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    build = small_vit if name == "small_vit" else small_shuffle
    monkeypatch.setitem(MODELS, name, lambda *, num_classes, in_channels: build(num_classes))
    model = lively(MODELS[name](num_classes=5, in_channels=3))
    x = images(32)
    kept = assert_cut_equals_masked(model, mask_units(model, 3), x)
    export_onnx(assert_loads(name, model, kept, x, tmp_path), (3, 32, 32), tmp_path / "net.onnx")  # compares outputs
    assert (tmp_path / "net.onnx").stat().st_size > 0


def small_shuffle(num_classes: int = 5) -> nn.Module:
    convolutions = nn.Conv2d(3, 8, 3, stride=4), nn.Conv2d(8, 8, 3, groups=8), nn.BatchNorm2d(8), Halves(8, split=True)
    return nn.Sequential(*convolutions, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, num_classes))


def small_vit(num_classes: int = 5) -> nn.Module:
    from torchvision.models import VisionTransformer

    return VisionTransformer(32, 8, num_layers=2, num_heads=4, hidden_dim=16, mlp_dim=24, num_classes=num_classes)


def test_heads_and_hidden_units_of_a_transformer_go_and_its_stream_stays() -> None:
    model = lively(small_vit())
    units = units_of(model)
    makers = [name for names in units.names for name in names]
    parts = ("self_attention.in_proj_weight", "mlp.0.weight")
    assert sorted(makers) == sorted(f"encoder.layers.encoder_layer_{i}.{part}" for i in (0, 1) for part in parts)
    assert len(units.group) == 2 * (4 + 24)
    assert "encoder.layers.encoder_layer_0.mlp.3.weight" in units.fixed
    mask_units(model, 0)
    shrink(model, kept_rows(model, silent(model), "filter"))
    attention = model.get_submodule("encoder.layers.encoder_layer_0.self_attention")
    assert attention.num_heads < 4
    with pytest.raises(ValueError, match="self-attention only"):
        attention(torch.zeros(1, 2, 16), torch.zeros(1, 2, 16), torch.zeros(1, 2, 16))


def test_timm_transformers() -> None:
    timm = pytest.importorskip("timm", reason="timm is not installed, so its transformers are not tested")
    x = images(32)
    model = lively(timm.create_model("vit_tiny_patch16_224", img_size=32, patch_size=8, depth=2, num_classes=5))
    masked = mask_units(model, 0)
    assert {"blocks.0.attn.qkv.weight", "blocks.1.mlp.fc1.weight"} <= masked.keys()
    assert_cut_equals_masked(model, masked, x)


def test_what_is_taken_by_written_numbers_stays() -> None:
    for kind in range(3):
        model = nn.Sequential(nn.Conv2d(3, 8, 1), Fixed(kind), nn.Conv2d(8, 4, 1))
        assert dependencies(model)["0.weight"].pinned
        assert len(units_of(model).group) == 0


def test_both_halves_of_a_split_lose_the_same() -> None:
    model = nn.Sequential(nn.Conv2d(3, 8, 1), Halves(8, split=False), nn.Conv2d(8, 4, 1))
    units = units_of(model)
    member = units.members["0.weight"][0]
    assert torch.equal(member[:4], member[4:])
    with pytest.raises(ValueError, match="must keep all its filters"):
        kept_rows(model, {"0.weight": torch.tensor([0])}, "filter")


def test_a_sum_goes_over_all_its_layers_or_not_at_all() -> None:
    model = MODELS["resnet20"](num_classes=5, in_channels=3)
    stream = ["conv1.weight", *(f"layer1.{i}.conv2.weight" for i in range(3))]
    units = units_of(model)
    assert next(list(names) for names in units.names if "conv1.weight" in names) == stream
    row = torch.tensor([5])
    kept = kept_rows(model, dict.fromkeys(stream, row), "filter")
    assert all(len(kept[name]) == 15 for name in stream)
    with pytest.raises(ValueError, match="they enter a sum"):
        kept_rows(model, dict.fromkeys(stream[:3], row), "filter")


def test_a_group_of_a_grouped_convolution_goes_whole() -> None:
    model = lively(nn.Sequential(nn.Conv2d(3, 8, 1), nn.ReLU(), nn.Conv2d(8, 12, 3, groups=4), nn.Conv2d(12, 4, 1)))
    units = units_of(model)
    assert len(units.group) == 4
    x = images()
    with torch.no_grad():
        model[3].weight[:, 3:6] = 0
        expected = model(x)
        shrink(model, kept_rows(model, silent(model), "filter"))
        assert (model[0].out_channels, model[2].groups, model[2].in_channels, model[2].out_channels) == (6, 3, 6, 9)
        torch.testing.assert_close(model(x), expected)


@pytest.mark.parametrize("own", [True, False])
def test_attention_inside_a_convolutional_net(own: bool) -> None:
    model = lively(nn.Sequential(nn.Conv2d(3, 6, 1), Attention(6, own), nn.Conv2d(8, 4, 1)))
    masked = mask_units(model, 2)
    assert any("attention" in name or "qkv" in name for name in masked)
    assert_cut_equals_masked(model, masked, images())
