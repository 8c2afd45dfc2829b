"""Every model can be made smaller by any removal that its sums allow, and then computes what the masked one does."""

from __future__ import annotations

import copy
from typing import Literal

import pytest
import torch
from torch import Tensor, nn

from tests.trials.contract import OWN
from tests.trials.stored_networks import enliven
from trials.compact import dependencies, kept_rows, obstacles, silent
from trials.models import MODELS
from trials.training.net import Net

KINDS = ["tiny", "resnet20", "resnet20s", "resnet56s", "resnet18", "wrn_28_1", "wrn_40_2", "bip_vgg4", "bip_vgg6_bn"]
KINDS += ["ResNet50", "vgg16", "greg_vgg11", "greg_vgg19", "lenet5", "mlp_7_linear", "mlp_7_relu"]
"""At least one model of each kind; of the other models only the shapes are tested."""

BRANCHING = ("densenet121", "googlenet", "shufflenetv2", "efficientnet_b0")
"""Their channels also enter concatenations, gates and depthwise convolutions."""

Pattern = Literal["filter", "channel"]


def lively(name: str) -> nn.Module:
    """A model in float64 whose batch norms have random statistics, scales and shifts."""
    with torch.device("meta"):
        model = MODELS[name](num_classes=5, in_channels=3).double().eval()
    model.to_empty(device="cpu")
    return enliven(model)


def some_rows(model: nn.Module, seed: int) -> dict[str, Tensor]:
    """Random rows to remove from every layer that may lose some; each keeps at least one."""
    generator = torch.Generator().manual_seed(seed)
    found = {}
    for name, channels in dependencies(model).items():
        if not channels.pinned:
            rows = len(model.get_parameter(name))
            count = int(torch.randint(0, rows, (), generator=generator))
            found[name] = torch.randperm(rows, generator=generator)[:count]
    return found


def columns_of(model: nn.Module, rows: dict[str, Tensor]) -> dict[str, Tensor]:
    """The input columns of every reading layer that these rows produce."""
    graph = dependencies(model)
    found = {}
    for name, indices in rows.items():
        for reader in graph[name].readers:
            width = model.get_parameter(f"{reader}.weight").shape[1] // len(model.get_parameter(name))
            found[f"{reader}.weight"] = (indices[:, None] * width + torch.arange(width)).flatten()
    return found


@torch.no_grad()
def masked(model: nn.Module, removed: dict[str, Tensor], pattern: Pattern) -> None:
    """Set what is removed to zero, which computes the same: filters with bias and batch norm, or columns alone."""
    graph = dependencies(model)
    for name, indices in removed.items():
        if pattern == "channel":
            model.get_parameter(name)[:, indices] = 0
            continue
        layer = graph[name].layer
        for tensor in (
            f"{layer}.bias",
            *(f"{norm}.{part}" for norm in graph[name].norms for part in ("weight", "bias")),
        ):
            if tensor in dict(model.named_parameters()):
                model.get_parameter(tensor)[indices] = 0
        model.get_parameter(name)[indices] = 0


@pytest.mark.parametrize("name", KINDS)
def test_the_compact_network_computes_what_the_masked_one_does(name: str) -> None:
    model = lively(name)
    assert_equal_when_removed(copy.deepcopy(model), name, "filter")
    assert_equal_when_removed(model, name, "channel")


def assert_equal_when_removed(model: nn.Module, name: str, pattern: Pattern) -> None:
    net = Net(model)
    rows = some_rows(net.model, seed=len(name))
    assert rows
    removed = rows if pattern == "filter" else columns_of(net.model, rows)
    masked(net.model, removed, pattern)
    x = torch.randn(1, 3, 8, 8, generator=torch.Generator().manual_seed(1)).double()
    with torch.no_grad():
        expected = net.model(x)
        assert expected.std() > 1e-6
        idle = silent(net.model)
        net.shrink(removed, pattern)
        torch.testing.assert_close(net.model(x), expected, rtol=1e-9, atol=1e-10)
    for weight, indices in rows.items():
        if len(indices):
            assert torch.equal(idle[weight], indices.sort().values)
            assert len(net.kept[weight]) == len(net.model.get_parameter(weight))


@pytest.mark.parametrize("name", MODELS)
def test_shapes_of_every_model(name: str) -> None:
    """On the meta device: sizes of modules agree with their tensors after removal, and the forward pass runs."""
    with torch.device("meta"):
        net = Net(MODELS[name](num_classes=5, in_channels=3))
    before = {key: tensor.shape for key, tensor in net.model.state_dict().items()}
    rows = some_rows(net.model, seed=3)
    net.shrink(rows, "filter")
    for weight, indices in rows.items():
        assert len(net.model.get_parameter(weight)) == before[weight][0] - len(indices)
    for module in net.model.modules():
        if isinstance(module, nn.Conv2d):
            assert module.weight.shape[:2] == (module.out_channels, module.in_channels // module.groups)
        elif isinstance(module, nn.Linear):
            assert module.weight.shape == (module.out_features, module.in_features)
        elif isinstance(module, nn.BatchNorm2d):
            assert len(module.running_mean) == len(module.weight) == module.num_features
    if name in KINDS:
        with torch.no_grad():
            assert net.model.eval()(torch.zeros(2, 3, 8, 8, device="meta")).shape == (2, 5)


@pytest.mark.parametrize("name", [name for name in MODELS if name not in BRANCHING])
def test_only_layers_that_enter_a_sum_or_the_outputs_are_pinned(name: str) -> None:
    with torch.device("meta"):
        model = MODELS[name](num_classes=5, in_channels=3)
    graph = dependencies(model)
    layers = [key for key, p in model.named_parameters() if p.ndim > 1]
    assert set(graph) == set(layers)
    assert "outputs" in graph[layers[-1]].pinned
    in_blocks = [name for name in layers if "layer" in name or "block" in name]
    for weight, channels in graph.items():
        if weight in in_blocks:
            ends = {"conv2": "conv3" not in "".join(in_blocks), "conv3": True, "conv1": False}
            inside = ends.get(weight.split(".")[-2], True)  # a shortcut's convolution
            assert bool(channels.pinned) == inside, weight
        elif not in_blocks and weight != layers[-1]:
            assert not channels.pinned


def test_impossible_removals_are_refused() -> None:
    model = MODELS["resnet20"](num_classes=5, in_channels=3)
    one = torch.tensor([0])
    for name, pattern, says in (
        ("layer1.0.conv2.weight", "filter", "layer1.0.conv2.weight must keep all its filters: they enter a sum"),
        ("linear.weight", "filter", "they are the network's outputs"),
        ("layer1.0.conv1.weight", "channel", "must keep all its input channels, which conv1 makes: they enter a sum"),
        ("conv1.weight", "channel", "must keep all its input channels: they are the image's"),
        ("bn1.weight", "filter", "bn1.weight is not the weight of"),
    ):
        with pytest.raises(ValueError, match=says):
            kept_rows(model, {name: one}, pattern)  # type: ignore[arg-type]
    conv = "layer1.0.conv1.weight"
    for indices, says in (
        (torch.arange(16), "would lose all its 16"),
        (torch.tensor([16]), r"must be int64 in 0\.\.15"),
        (torch.tensor([-1]), r"must be int64 in 0\.\.15"),
        (torch.tensor([1.0]), "must be int64"),
    ):
        with pytest.raises(ValueError, match=says):
            kept_rows(model, {conv: indices}, "filter")
    assert kept_rows(model, {"linear.weight": one[:0], conv: one[:0]}, "filter") == {}


def test_layers_that_read_the_same_channels_lose_the_same() -> None:
    model = MODELS["wrn_28_4"](num_classes=5, in_channels=3)  # its stem is read by a convolution and a shortcut
    one, two = "block1.layer.0.conv1.weight", "block1.layer.0.convShortcut.weight"
    with pytest.raises(ValueError, match="must all remove the same"):
        kept_rows(model, {one: torch.tensor([0])}, "channel")
    kept = kept_rows(model, {one: torch.tensor([0]), two: torch.tensor([0])}, "channel")
    assert kept["conv1.weight"].tolist() == list(range(1, 16))


def test_a_flattened_channel_goes_whole_or_not_at_all() -> None:
    model = MODELS["lenet5"](num_classes=5, in_channels=3)
    kept = kept_rows(model, {"fc1.weight": torch.arange(50, 75)}, "channel")
    assert kept["conv2.weight"].tolist() == [0, 1, *range(3, 16)]
    with pytest.raises(ValueError, match="all 25 columns of a channel of conv2, or none"):
        kept_rows(model, {"fc1.weight": torch.arange(50, 74)}, "channel")


class Odd(nn.Module):
    """Networks that the dependency graph cannot or must not follow."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind
        self.conv1 = nn.Conv2d(3, 8, 3)
        self.norm = nn.GroupNorm(2, 8)
        self.conv2 = nn.Conv2d(8, 8, 3, groups=2 if kind == "grouped" else 1)
        self.fc = nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv1(x)
        if self.kind == "branch" and x.sum() > 0:
            x = -x
        if self.kind == "norm":
            x = self.norm(x)
        x = self.conv2(self.conv2(x)) if self.kind == "twice" else self.conv2(x)
        return self.fc(x.mean((2, 3)))


@pytest.mark.parametrize(
    ("kind", "says"), [("grouped", "grouped convolution"), ("norm", "enter 'norm'"), ("twice", "used twice")]
)
def test_layers_that_the_graph_cannot_follow_are_pinned(kind: str, says: str) -> None:
    graph = dependencies(Odd(kind))
    assert says in (graph["conv2.weight"] if kind == "twice" else graph["conv1.weight"]).pinned


def test_a_forward_pass_that_branches_is_refused() -> None:
    from trials.errors import UserError

    with pytest.raises(UserError, match="Odd cannot be made smaller"):
        dependencies(Odd("branch"))


@pytest.mark.parametrize(
    ("model", "fixed"),
    [
        ("grouped_stem", {"0": "filters of a grouped convolution go with the channels that they read"}),
        ("depthwise", {"3": "filters of a grouped convolution go with the channels that they read"}),
        ("grouped", {"0": "3 is a grouped convolution", "3": "3 is a grouped convolution"}),
        ("repeated", {"stem": "again is used twice", "again": "again is used twice"}),
        ("tied", {"stem": "one and other share their weight", **dict.fromkeys(("one", "other"), "share their weight")}),
    ],
)
def test_what_several_layers_have_in_common_is_fixed(model: str, fixed: dict[str, str]) -> None:
    with torch.device("meta"):
        net = OWN[model](num_classes=4, in_channels=2)
    graph = dependencies(net)
    convolutions = [f"{name}.weight" for name, module in net.named_modules() if isinstance(module, nn.Conv2d)]
    found = obstacles(graph, convolutions, "filter")
    assert {name.removesuffix(".weight") for name in found} == fixed.keys()
    for name, reason in fixed.items():
        assert reason in found[f"{name}.weight"]
    for name in convolutions:  # and a removal is refused for exactly these
        one = {name: torch.zeros(1, dtype=torch.int64)}
        if name in found:
            with pytest.raises(ValueError, match="must keep all its filters"):
                kept_rows(net, one, "filter")
        else:
            assert kept_rows(net, one, "filter")
