"""The masked network, the profile's compact form, the exported file and the rows' columns are one and the same."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tests.trials.contract import OWN
from tests.trials.stored_networks import MASKS, enliven, outputs, random_masks, stored
from trials import compact
from trials.commands.profile import costs, forms
from trials.compact import Architecture, simplify
from trials.models import MODELS
from trials.networks.export import export
from trials.networks.stored import network
from trials.sparsity import prunable
from trials.sparsity.accounting import LayerSizes, realised, summary, torch_flops
from trials.training.compact_form import compact_form
from trials.training.net import Net

SHAPE = (3, 8, 8)
IMAGES = torch.rand(4, *SHAPE, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


class Readers(nn.Module):
    """Channels that two layers read behind different operations, a bottleneck, and pools that pad."""

    def __init__(self, num_classes: int, in_channels: int) -> None:
        super().__init__()
        self.stem = nn.Conv2d(in_channels, 12, 3, padding="same")
        self.bn = nn.BatchNorm2d(12)
        self.pool = nn.AvgPool2d(3, stride=1, padding=1)
        self.one = nn.Conv2d(12, 8, 3, padding=1, bias=False)
        self.other = nn.Conv2d(12, 8, 1, bias=False)
        self.norms = nn.ModuleList([nn.BatchNorm2d(8), nn.BatchNorm2d(8), nn.BatchNorm2d(8)])
        self.wide = nn.Conv2d(8, 16, 1, bias=False)
        self.wide_bn = nn.BatchNorm2d(16)
        self.narrow = nn.Conv2d(16, 8, 3, bias=False)
        self.mirrored = nn.Conv2d(8, 10, 3, padding=1, padding_mode="reflect")
        self.fc = nn.Linear(10 * 4, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        a = self.norms[0](self.one(self.pool(F.relu(self.bn(x)))))
        x = a + self.norms[1](self.other(x))
        x = F.silu(self.wide_bn(self.wide(x)))
        x = F.leaky_relu(self.norms[2](self.narrow(x)), 0.1)
        x = F.max_pool2d(F.hardswish(self.mirrored(x)), 3, 2, 1)
        return self.fc(F.adaptive_avg_pool2d(x, 2).flatten(1))


NETS: dict[str, Callable[..., nn.Module]] = {
    **{name: MODELS[name] for name in ("tiny", "resnet20s", "lenet5", "mlp_7_relu", "bip_vgg4")},
    **{name: OWN[name] for name in ("depthwise", "grouped", "grouped_stem", "tied", "repeated")},
    "readers": Readers,
}


@pytest.fixture(scope="module")
def _nets() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        for name, builder in NETS.items():
            patch.setitem(MODELS, name, builder)
        yield


def masked_net(builder: Callable[..., nn.Module], pattern: str, seed: int = 0) -> Net:
    net = Net(enliven(builder(num_classes=5, in_channels=3).double(), seed))
    net.set_masks(random_masks(net.model, pattern, seed))
    return net


@pytest.mark.parametrize("pattern", MASKS)
@pytest.mark.parametrize("name", NETS)
@pytest.mark.usefixtures("_nets")
def test_masked_profiled_exported_and_counted_agree(name: str, pattern: str, tmp_path: Path) -> None:
    assert_agreement(name, NETS[name], pattern, tmp_path)


def assert_agreement(name: str, builder: Callable[..., nn.Module], pattern: str, folder: Path) -> None:
    """Assert that all forms of a model under a random mask compute and count the same; ``folder`` is empty."""
    net = masked_net(builder, pattern)
    expected = outputs(net.model, IMAGES)
    assert expected.std() > 1e-6
    architecture = Architecture(name, 5, 3, SHAPE[1:], "float64")
    trial = stored(folder / "trial", net, architecture)
    export(trial, folder / "net.pt", "compact")
    loaded = compact.load(folder / "net.pt")
    torch.testing.assert_close(outputs(loaded, IMAGES), expected, rtol=1e-9, atol=1e-10)

    dense = architecture.build()
    sizes, total = LayerSizes.measured(dense, SHAPE), torch_flops(dense, SHAPE)
    profiled = forms(Net(dense), network(trial)[1])
    assert list(profiled) == ["dense", "sparse", "compact"]
    assert {key: tensor.shape for key, tensor in profiled["compact"].model.state_dict().items()} == {
        key: tensor.shape for key, tensor in loaded.state_dict().items()
    }
    row = costs(profiled["compact"], sizes, total, torch_flops(profiled["compact"].model, SHAPE))
    parameters = sum(parameter.numel() for parameter in loaded.parameters())
    flops = torch_flops(loaded, SHAPE)
    assert realised(net, sizes) == {
        "compact_macs": flops // 2,
        "compact_flops": flops,
        "compact_parameters": parameters,
    }
    assert (row["flops"], row["macs"], row["parameters"]) == (flops, flops // 2, parameters)
    assert row["speedup"] == total / flops
    promised = costs(profiled["sparse"], sizes, total, torch_flops(net.model, SHAPE))
    figures = summary(net, sizes)
    assert (promised["flops"], promised["parameters"]) == (figures["flops"], figures["parameters"])
    assert row["flops"] <= total  # fewer than promised where columns are gone that no mask covers


@pytest.mark.parametrize("name", ["tiny", "resnet20s", "readers"])
@pytest.mark.usefixtures("_nets")
def test_single_precision(name: str) -> None:
    net = masked_net(NETS[name], "filter", seed=3)
    single = Net(net.model.float())
    single.set_masks(net.masks)
    expected = outputs(single.model, IMAGES)
    torch.testing.assert_close(outputs(compact_form(single).model, IMAGES), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("pattern", MASKS)
def test_a_compact_network_that_is_masked_becomes_smaller_and_keeps_its_masks(pattern: str) -> None:
    net = Net(enliven(NETS["tiny"](num_classes=5, in_channels=3).double()))
    net.shrink({"conv1.weight": torch.tensor([0, 3]), "conv2.weight": torch.tensor([1])}, "filter")
    net.set_masks(random_masks(net.model, pattern))
    before = {name: mask.clone() for name, mask in net.masks.items()}
    smaller = compact_form(net)
    torch.testing.assert_close(outputs(smaller.model, IMAGES), outputs(net.model, IMAGES), rtol=1e-9, atol=1e-10)
    assert all(torch.equal(net.masks[name], mask) for name, mask in before.items())
    for name, mask in smaller.masks.items():
        weight = smaller.model.get_parameter(name)
        assert mask.shape == weight.shape
        assert not weight[~mask].any()
    again = Net(NETS["tiny"](num_classes=5, in_channels=3).double())
    again.load_state_dict(smaller.state_dict())
    assert torch.equal(outputs(again.model, IMAGES), outputs(smaller.model, IMAGES))
    if pattern != "weight":
        assert len(smaller.kept["conv2.weight"]) < len(net.kept["conv2.weight"])


def test_constants_behind_batch_norms_are_taken_over() -> None:
    """tiny's convolutions pad with zeros, so one filter stays for all constant ones; its linear layer needs none."""
    net = Net(enliven(NETS["tiny"](num_classes=5, in_channels=3).double()))
    masks = {name: torch.ones(w.shape, dtype=torch.bool) for name, w in prunable(net.model).items()}
    for name, rows in (("conv1.weight", 10), ("conv2.weight", 20), ("conv3.weight", 40)):
        masks[name][:rows] = False
        net.model.get_parameter(f"bn{name[4]}.bias").data[:rows] = 1.0  # far from zero, whatever the statistics are
    net.set_masks(masks)
    expected = outputs(net.model, IMAGES)
    smaller = compact_form(net)
    assert [len(weight) for weight in prunable(smaller.model).values()] == [16 - 9, 32 - 19, 48 - 40, 5]
    torch.testing.assert_close(outputs(smaller.model, IMAGES), expected, rtol=1e-9, atol=1e-10)
    for layer, rows in ((1, 10), (2, 20)):
        net.model.get_parameter(f"bn{layer}.bias").data[:rows] = -9.0  # ReLU makes zeros of it
    smaller = compact_form(net)
    assert [len(weight) for weight in prunable(smaller.model).values()] == [16 - 10, 32 - 20, 48 - 40, 5]
    torch.testing.assert_close(outputs(smaller.model, IMAGES), outputs(net.model, IMAGES), rtol=1e-9, atol=1e-10)


def test_what_nothing_reads_frees_what_only_it_reads() -> None:
    model = enliven(NETS["tiny"](num_classes=5, in_channels=3).double())
    with torch.no_grad():
        model.get_parameter("linear.weight")[:, :30] = 0
        model.get_parameter("conv3.weight")[30:, :20] = 0  # what reads these filters of conv2 is read by nothing
    expected = outputs(model, IMAGES)
    kept = simplify(model)
    assert kept["conv3.weight"].tolist() == list(range(30, 48))
    assert kept["conv2.weight"].tolist() == list(range(20, 32))
    torch.testing.assert_close(outputs(model, IMAGES), expected, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("name", ["tiny", "lenet5", "mlp_7_relu", "readers", "resnet20s"])
def test_a_network_with_nothing_left_keeps_a_filter_of_each_layer_and_its_outputs(name: str) -> None:
    model = enliven(NETS[name](num_classes=5, in_channels=3).double())
    with torch.no_grad():
        for weight in list(prunable(model).values())[:-1]:
            weight.zero_()
    expected = outputs(model, IMAGES)
    simplify(model)
    assert min(len(weight) for weight in prunable(model).values()) == 1
    torch.testing.assert_close(outputs(model, IMAGES), expected, rtol=1e-9, atol=1e-10)


def test_a_network_without_zeros_stays_whole() -> None:
    for name in NETS:
        model = enliven(NETS[name](num_classes=5, in_channels=3).double())
        assert simplify(model) == {}
