from __future__ import annotations

import pytest
import torch
import torchvision
from torch import nn

from tests.trials.models.model_table import PARAMETERS, on_meta, prunable
from trials.errors import UserError
from trials.models import MODELS, build
from trials.models.efficientnet import DropConnect
from trials.models.resnet_s import SubsampleAndPad
from trials.models.shufflenet import interleaved

# One of each kind:
SMALL = ["tiny", "resnet20", "resnet20s", "resnet18", "resnet50", "vgg16", "wrn_28_1", "bip_vgg4", "bip_vgg11_bn"]
SMALL += ["ResNet18", "greg_vgg11", "lenet5", "mlp_7_linear"]
SMALL += ["alexnet", "densenet121", "googlenet", "shufflenetv2", "efficientnet_b0"]


def same(a: nn.Module, b: nn.Module) -> bool:
    ours, theirs = a.state_dict(), b.state_dict()
    return ours.keys() == theirs.keys() and all(torch.equal(ours[key], theirs[key]) for key in ours)


def test_every_model_is_in_the_table() -> None:
    assert MODELS.keys() == PARAMETERS.keys()


@pytest.mark.parametrize("name", MODELS)
def test_parameter_counts(name: str) -> None:
    model = on_meta(name)
    total = sum(parameter.numel() for parameter in model.parameters())
    assert (total, sum(layer.weight.numel() for layer in prunable(model).values())) == PARAMETERS[name]


@pytest.mark.parametrize("name", MODELS)
def test_all_weight_tensors_of_two_dimensions_and_more_are_those_of_plain_layers(name: str) -> None:
    model = on_meta(name)
    layers = prunable(model)
    assert {type(layer) for layer in layers.values()} == ({nn.Linear} if "mlp" in name else {nn.Conv2d, nn.Linear})
    assert [key for key, p in model.named_parameters() if p.ndim > 1] == [f"{layer}.weight" for layer in layers]


@pytest.mark.parametrize("name", MODELS)
def test_no_layer_drops_nothing(name: str) -> None:
    """Dropout layers keep a step from being captured as a CUDA graph, also those of rate 0."""
    assert all(module.p > 0 for module in on_meta(name).modules() if isinstance(module, nn.modules.dropout._DropoutNd))


@pytest.mark.parametrize("name", MODELS)
def test_no_activation_works_in_place(name: str) -> None:
    assert not any(getattr(module, "inplace", False) for module in on_meta(name).modules())


@pytest.mark.parametrize("name", MODELS)
def test_classes_and_channels_shape_the_first_and_the_last_layer(name: str) -> None:
    layers = list(prunable(on_meta(name, num_classes=7, in_channels=1)).values())
    assert isinstance(layers[-1], nn.Linear)
    assert layers[-1].out_features == 7
    assert (layers[0].in_channels if isinstance(layers[0], nn.Conv2d) else layers[0].in_features) == (
        1024 if "mlp" in name else 1
    )


def test_vgg16_names() -> None:
    convs = [f"features.{index}" for index in (0, 3, 7, 10, 14, 17, 20, 24, 27, 30, 34, 37, 40)]
    layers = prunable(on_meta("vgg16"))
    assert list(layers) == [*convs, "classifier"]
    assert all(layer.bias is not None for layer in layers.values())


def test_vgg16_image_sizes() -> None:
    sizes: list[int] = []
    model = on_meta("vgg16")
    for layer in prunable(model).values():
        layer.register_forward_hook(lambda _module, _inputs, out: sizes.append(out.shape[-1]))
    model(torch.empty(1, 3, 32, 32, device="meta"))
    assert sizes == [32, 32, 16, 16, 8, 8, 8, 4, 4, 4, 2, 2, 2, 10]


def test_resnet20_names() -> None:
    layers = prunable(on_meta("resnet20"))
    assert len(layers) == 22
    assert [name for name in layers if "shortcut" in name] == ["layer2.0.shortcut.0", "layer3.0.shortcut.0"]
    assert list(layers)[:2] == ["conv1", "layer1.0.conv1"]
    assert list(layers)[-2:] == ["layer3.2.conv2", "linear"]
    assert {"bn1.running_var", "layer3.2.bn2.weight", "layer2.0.shortcut.1.bias"} <= on_meta(
        "resnet20"
    ).state_dict().keys()


@pytest.mark.parametrize(
    ("name", "at_64"), [("resnet18", 8), ("resnet50", 8), ("resnet56s", 16), ("resnet20", 16), ("wrn_40_2", 16)]
)
def test_stages_halve_the_image_but_the_first(name: str, at_64: int) -> None:
    shapes: list[torch.Size] = []
    model = on_meta(name)
    model.get_submodule("pool").register_forward_hook(lambda _module, inputs, _out: shapes.append(inputs[0].shape))
    model(torch.empty(1, 3, 64, 64, device="meta"))
    assert shapes[0][2:] == (at_64, at_64)


def test_bottleneck_strides_on_the_3x3() -> None:
    layers = prunable(on_meta("resnet50"))
    strided = [name for name, m in layers.items() if isinstance(m, nn.Conv2d) and m.stride == (2, 2)]
    assert strided == [f"layer{stage}.0.{part}" for stage in (2, 3, 4) for part in ("conv2", "shortcut.0")]
    assert "layer1.0.shortcut.0" in layers


@pytest.mark.parametrize("name", SMALL)
@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 32, 32), (1, 28, 28)])
def test_output_shape_and_finite_values(name: str, shape: tuple[int, int, int]) -> None:
    model = build(name, num_classes=7, in_channels=shape[0], seed=0).eval()
    with torch.inference_mode():
        out = model(torch.randn(2, *shape, generator=torch.Generator().manual_seed(0)))
    assert out.shape == (2, 7)
    assert out.dtype == torch.float32
    assert out.isfinite().all()


@pytest.mark.parametrize("name", ["tiny", "resnet20", "resnet20s"])
def test_channels_last_computes_the_same(name: str) -> None:
    model = build(name, num_classes=10, in_channels=3, seed=0)
    images = torch.randn(4, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    out = model(images)
    channels_last = build(name, num_classes=10, in_channels=3, seed=0).to(memory_format=torch.channels_last)
    torch.testing.assert_close(channels_last(images.to(memory_format=torch.channels_last)), out, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("name", ["tiny", "resnet20", "resnet20s", "wrn_28_1", "bip_vgg2_bn"])
def test_initial_values_follow_the_seed(name: str) -> None:
    model = build(name, num_classes=10, in_channels=3, seed=3)
    assert same(model, build(name, num_classes=10, in_channels=3, seed=3))
    assert not same(model, build(name, num_classes=10, in_channels=3, seed=4))


def test_build_neither_reads_nor_moves_the_global_random_state() -> None:
    torch.manual_seed(11)
    before = torch.get_rng_state()
    first = build("resnet20s", num_classes=10, in_channels=3, seed=0)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(12)
    with torch.device("meta"):
        assert same(first, build("resnet20s", num_classes=10, in_channels=3, seed=0))


def test_resnet_s_starts_from_kaiming_normal() -> None:
    for layer in prunable(build("resnet56s", num_classes=100, in_channels=3, seed=0)).values():
        fan_in = layer.weight[0].numel()
        assert layer.weight.std().item() == pytest.approx((2 / fan_in) ** 0.5, rel=0.15)
        assert layer.weight.abs().max().item() > 2.5 * (2 / fan_in) ** 0.5  # tails: not a uniform distribution


def test_option_a_takes_every_second_pixel_between_zero_channels() -> None:
    x = torch.randn(2, 16, 5, 4, generator=torch.Generator().manual_seed(0))
    out = SubsampleAndPad(32)(x)
    assert out.shape == (2, 32, 3, 2)
    assert torch.equal(out[:, 8:24], x[:, :, [0, 2, 4]][..., [0, 2]])
    assert out[:, :8].abs().sum() == out[:, 24:].abs().sum() == 0


def test_option_a_is_where_the_shape_changes() -> None:
    modules = on_meta("resnet32s").named_modules()
    assert [n for n, m in modules if isinstance(m, SubsampleAndPad)] == ["layer2.0.shortcut", "layer3.0.shortcut"]


def test_bip_vgg_names_and_image_sizes() -> None:
    model = on_meta("bip_vgg16_bn")
    sizes: list[int] = []
    layers = prunable(model)
    for layer in layers.values():
        layer.register_forward_hook(lambda _module, _inputs, out: sizes.append(out.shape[-1]))
    model(torch.empty(1, 3, 32, 32, device="meta"))
    assert sizes == [32, 32, 16, 16, 8, 8, 8, 4, 4, 4, 2, 2, 2, 256, 256, 10]
    assert [name for name in layers if "classifier" in name] == ["classifier.0", "classifier.2", "classifier.4"]
    convs = [name for name in prunable(on_meta("bip_vgg11")) if "features" in name]
    assert convs == [f"features.{index}" for index in (0, 3, 6, 8, 11, 13, 16, 18)]
    assert all(layer.bias is None for layer in layers.values() if isinstance(layer, nn.Conv2d))


@pytest.mark.parametrize("name", ["bip_vgg4", "bip_vgg11_bn", "wrn_28_1", "ResNet18"])
def test_convolutions_start_from_kaiming_normal_by_fan_out(name: str) -> None:
    for layer in prunable(build(name, num_classes=100, in_channels=3, seed=0)).values():
        if isinstance(layer, nn.Conv2d):
            fan_out = layer.weight[:, 0].numel()
            assert layer.weight.std().item() == pytest.approx((2 / fan_out) ** 0.5, rel=0.15)


def test_linear_layers_start_as_the_papers_code_has_them() -> None:
    vgg = prunable(build("bip_vgg2_bn", num_classes=100, in_channels=3, seed=0))
    for layer in (vgg[f"classifier.{index}"] for index in (0, 2, 4)):
        assert layer.weight.std().item() == pytest.approx(0.01, rel=0.05)
        assert layer.weight.abs().max().item() > 0.03  # tails: a normal distribution
        assert layer.bias is not None
        assert not layer.bias.any()
    head = prunable(build("wrn_28_1", num_classes=100, in_channels=3, seed=0))["fc"]
    assert head.bias is not None
    assert not head.bias.any()
    assert head.weight.abs().max().item() <= 64**-0.5  # torch's default: uniform


@pytest.mark.parametrize(("depth", "total"), [(18, 11_689_512), (34, 21_797_672), (50, 25_557_032)])
def test_imagenet_resnets_have_torchvisions_names_and_shapes(depth: int, total: int) -> None:
    ours = on_meta(f"ResNet{depth}", num_classes=1000)
    with torch.device("meta"):
        theirs = getattr(torchvision.models, f"resnet{depth}")()
    shapes = [[(key, value.shape) for key, value in model.state_dict().items()] for model in (ours, theirs)]
    assert shapes[0] == shapes[1]
    assert sum(p.numel() for p in ours.parameters()) == total


@pytest.mark.parametrize("depth", [18, 34, 50])
def test_imagenet_resnets_compute_what_torchvisions_do(depth: int) -> None:
    ours = build(f"ResNet{depth}", num_classes=10, in_channels=3, seed=0).eval()
    for module in ours.modules():
        if isinstance(module, nn.BatchNorm2d):  # statistics that are not those of the start
            module.running_mean = torch.linspace(-0.1, 0.1, module.num_features)
            module.running_var = torch.linspace(0.5, 2, module.num_features)
    theirs = getattr(torchvision.models, f"resnet{depth}")(num_classes=10).eval()
    theirs.load_state_dict(ours.state_dict())
    images = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        assert torch.equal(ours(images), theirs(images))


def test_names_that_differ_by_capitals_are_both_named() -> None:
    for name in ("Resnet18", "RESNET18"):
        with pytest.raises(UserError, match=r"\(did you mean 'ResNet18' or 'resnet18'\?\)$"):
            build(name, num_classes=10, in_channels=3, seed=0)
    for name, near in (("VGG16_BN", "bip_vgg16_bn"), ("vgg16_bn", "bip_vgg16_bn"), ("WRN-28-10", "wrn_28_10")):
        with pytest.raises(UserError, match=rf"\(did you mean '{near}'\?\)$"):
            build(name, num_classes=10, in_channels=3, seed=0)


def test_an_unknown_name_is_refused_with_the_nearest() -> None:
    with pytest.raises(
        UserError, match=r"^model is 'resnet20z', but must be one of: .*\(did you mean 'resnet20s?'\?\)$"
    ):
        build("resnet20z", num_classes=10, in_channels=3, seed=0)


def test_small_nets_resize_images_and_leave_32x32_alone() -> None:
    for name in ("lenet5", "mlp_7_relu"):
        resize = on_meta(name).get_submodule("resize")
        images = torch.randn(2, 1, 32, 32, generator=torch.Generator().manual_seed(0))
        assert torch.equal(resize(images), images)
        assert resize(images[..., :28, :28]).shape == images.shape


@pytest.mark.parametrize(
    ("name", "weights", "layers"),
    [
        ("vgg16", 14_715_584, 14),
        ("resnet20", 270_896, 22),
        ("alexnet", 2_260_672, 6),
        ("shufflenetv2", 5_304_600, 57),
        ("densenet121", 6_872_768, 121),
        ("googlenet", 6_142_528, 65),
        ("efficientnet_b0", 3_550_816 - 32 * 32, 82 - 1),  # without a convolution that no forward pass calls
    ],
)
def test_models_of_the_regrowth_paper_have_its_prunable_weights(name: str, weights: int, layers: int) -> None:
    found = prunable(on_meta(name))
    assert (sum(layer.weight.numel() for layer in found.values()), len(found)) == (weights, layers)


def test_alexnet_names_and_image_sizes() -> None:
    model = on_meta("alexnet")
    sizes: list[int] = []
    layers = prunable(model)
    assert list(layers) == [*(f"features.{index}" for index in (0, 3, 6, 8, 10)), "classifier.1"]
    for layer in layers.values():
        layer.register_forward_hook(lambda _module, _inputs, out: sizes.append(out.shape[-1]))
    model(torch.empty(1, 3, 32, 32, device="meta"))
    assert sizes == [16, 8, 4, 4, 4, 10]


def test_interleaved_maps_come_in_turn_from_both_halves() -> None:
    a, b = torch.zeros(2, 3, 4, 5), torch.ones(2, 3, 4, 5)
    assert interleaved(a, b)[:, :, 0, 0].tolist() == [[0, 1, 0, 1, 0, 1]] * 2


def test_drop_connect_drops_whole_samples_in_training_only() -> None:
    layer, x = DropConnect(0.5), torch.randn(64, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    torch.manual_seed(0)
    ratio = layer(x) / x
    assert {0.0, 2.0} == set(ratio[:, 0, 0, 0].tolist())
    assert torch.equal(ratio, ratio[:, :1, :1, :1].expand_as(ratio))
    assert torch.equal(layer.eval()(x), x)


def test_greg_vggs_have_four_pools() -> None:
    sizes: list[int] = []
    model = on_meta("greg_vgg19")
    layers = prunable(model)
    assert list(layers)[:4] == ["features.0", "features.3", "features.7", "features.10"]
    assert list(layers)[-2:] == ["features.49", "classifier"]
    assert not any(layer.bias is not None for layer in list(layers.values())[:-1])
    for layer in layers.values():
        layer.register_forward_hook(lambda _module, _inputs, out: sizes.append(out.shape[-1]))
    model(torch.empty(1, 3, 32, 32, device="meta"))
    assert sizes == [32] * 2 + [16] * 2 + [8] * 4 + [4] * 4 + [2] * 4 + [10]
