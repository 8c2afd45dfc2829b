"""What networks are rarely made of: the compact form computes the same, or the layer stays whole."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations

from tests.trials.compact.random_nets import lively
from tests.trials.stored_networks import outputs
from trials.compact import dependencies, simplify
from trials.errors import UserError
from trials.sparsity import prunable
from trials.sparsity.accounting import LayerSizes, torch_flops
from trials.training.compact_form import compact_form
from trials.training.net import Net

IMAGES = torch.randn(3, 3, 8, 8, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


class Written(nn.Module):
    """A forward pass that is written as a function of a module with these parts."""

    def __init__(self, forward: Callable[[Any, Tensor], Tensor], **parts: nn.Module) -> None:
        super().__init__()
        for name, part in parts.items():
            setattr(self, name, part)
        self.steps = forward

    def forward(self, x: Tensor) -> Tensor:
        return self.steps(self, x)


def conv(before: int, after: int, kernel: int = 1, bias: bool = True) -> nn.Conv2d:
    return nn.Conv2d(before, after, kernel, bias=bias)


def no_parts(norm: type[nn.Module], **more: bool) -> nn.Module:
    """A norm without scales, shifts or statistics, so that no tensor of it is cut."""
    norms = [norm(8, **more), norm(6, **more)]
    parts = (conv(3, 8, 3), norms[0], nn.ReLU(), conv(8, 6), norms[1], nn.ReLU(), nn.Flatten(), nn.Linear(216, 4))
    return nn.Sequential(*parts)


def one_norm_of_two(net: Any, x: Tensor) -> Tensor:
    """Two layers read constants: one has a norm, the other neither bias nor norm."""
    x = F.relu(net.stem(x))
    return net.head((net.bn(net.one(x)) + net.other(x)).mean((2, 3)))


def written_after(net: Any, x: Tensor) -> Tensor:
    """The second layer reads what an operation wrote into the tensor."""
    x = net.stem(x)
    y = F.hardtanh(x, -0.1, 0.1, inplace=True)
    return net.head(F.relu(net.one(x) + net.other(y)).mean((2, 3)))


def written_through_a_view(net: Any, x: Tensor) -> Tensor:
    x = net.stem(x)
    view = x.flatten(1)
    view.relu_()
    return net.head(F.relu(net.one(x) + net.other(x)).mean((2, 3)))


def where(net: Any, x: Tensor) -> Tensor:
    x = net.stem(x)
    y = net.one(x)
    return net.head(net.other(torch.where((y > 0) & (y < 1), y, x)).mean((2, 3)))


def away_from_zero(net: Any, x: Tensor) -> Tensor:
    return net.head(net.other(F.hardtanh(net.stem(x), 0.2, 0.9)).mean((2, 3)))


def functional(net: Any, x: Tensor) -> Tensor:
    """A layer's weight is used by its module and by a function."""
    x = net.one(F.relu(net.stem(x)))
    return net.head(F.relu(F.conv2d(F.relu(x), net.one.weight)).mean((2, 3)))


def by_written_pixels(net: Any, x: Tensor) -> Tensor:
    """Only images of 8 x 8 pixels fit."""
    x = F.relu(net.stem(x))
    joined = torch.cat([x, net.one(x)], 1).view(x.shape[0], 2, 8, 8, 8)
    return net.head(net.other(F.relu(joined.sum(1))).mean((2, 3)))


def token_major(net: Any, x: Tensor) -> Tensor:
    """Linear layers on tokens, whose constants are then flattened token by token."""
    x = net.stem(x).flatten(2).transpose(1, 2)  # [B, 64, 8]
    x = F.relu(net.tokens(x)).flatten(1)
    return net.last(F.relu(net.flat(x)))


def over_pixels(net: Any, x: Tensor) -> Tensor:
    """A linear layer on the pixels of rows reads 8 of them, as many as there are channels."""
    x = F.relu(net.rows(net.stem(x)))
    return net.head(F.relu(net.one(x)).mean((2, 3)))


def four(forward: Callable[[Any, Tensor], Tensor], **more: nn.Module) -> nn.Module:
    parts: dict[str, nn.Module] = {"stem": conv(3, 8), "one": conv(8, 8, bias=False), "other": conv(8, 8, bias=False)}
    return Written(forward, **{**parts, "head": nn.Linear(8, 4), **more})


def tokens() -> nn.Module:
    return Written(token_major, stem=conv(3, 8), tokens=nn.Linear(8, 6), flat=nn.Linear(384, 5), last=nn.Linear(5, 4))


def shared_bias() -> nn.Module:
    """Two layers have one bias, to which neither may add the other's constants."""
    net = nn.Sequential(conv(3, 8), nn.Sigmoid(), conv(8, 8), nn.Tanh(), conv(8, 8), nn.Flatten(), nn.Linear(512, 4))
    net[4].bias = net[2].bias
    return net


NETS: dict[str, Callable[[], nn.Module]] = {
    "batch norm without scales": lambda: no_parts(nn.BatchNorm2d, affine=False),
    "batch norm without anything": lambda: no_parts(nn.BatchNorm2d, affine=False, track_running_stats=False),
    "batch norm without statistics": lambda: no_parts(nn.BatchNorm2d, track_running_stats=False),
    "instance norm": lambda: no_parts(nn.InstanceNorm2d),
    "a norm behind one of two readers": lambda: four(one_norm_of_two, bn=nn.BatchNorm2d(8)),
    "written after": lambda: four(written_after),
    "written through a view": lambda: four(written_through_a_view),
    "where": lambda: four(where),
    "away from zero": lambda: four(away_from_zero),
    "a weight that a function uses": lambda: four(functional),
    "written pixels": lambda: four(by_written_pixels),
    "token-major": tokens,
    "over pixels": lambda: four(over_pixels, rows=nn.Linear(8, 8)),
    "a bias of two layers": shared_bias,
}


def masked(model: nn.Module, seed: int) -> Net:
    """Mask most filters of every layer but the last, and most columns of every second one."""
    generator = torch.Generator().manual_seed(seed)
    masks = {}
    for number, (name, weight) in enumerate(list(prunable(model).items())[:-1]):
        if name in dict(model.named_parameters()):
            mask = torch.ones(weight.shape, dtype=torch.bool)
            mask[torch.rand(len(weight), generator=generator) < 0.6] = False
            if number % 2 and seed % 2:
                mask[:, torch.rand(weight.shape[1], generator=generator) < 0.6] = False
            masks[name] = mask
    net = Net(model)
    net.set_masks(masks)
    return net


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("name", NETS)
@pytest.mark.filterwarnings("ignore")
def test_the_compact_form_computes_the_same(name: str, seed: int) -> None:
    torch.manual_seed(seed)
    net = masked(lively(NETS[name](), seed), seed)
    expected = outputs(net.model, IMAGES)
    assert expected.std() > 1e-9
    smaller = compact_form(net)
    torch.testing.assert_close(outputs(smaller.model, IMAGES), expected, rtol=1e-9, atol=1e-9)
    for module in smaller.model.modules():
        if isinstance(module, nn.BatchNorm2d) and module.running_mean is not None:
            assert module.num_features == len(module.running_mean)


@pytest.mark.parametrize("name", ["batch norm without anything", "instance norm", "token-major"])
@pytest.mark.filterwarnings("ignore")
def test_units_that_nothing_reads_go_there_too(name: str) -> None:
    model = lively(NETS[name]())
    weights = list(prunable(model).values())
    with torch.no_grad():
        weights[-1][:, : weights[-1].shape[1] // len(weights[-2])] = 0  # of the last hidden layer's first row
    assert simplify(model)


@pytest.mark.parametrize("wrap", [parametrizations.weight_norm, parametrizations.spectral_norm])
def test_a_layer_that_computes_its_weight_stays_whole(wrap: Callable[[nn.Module], nn.Module]) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(conv(3, 8), nn.ReLU(), wrap(conv(8, 8)), nn.ReLU(), conv(8, 6), nn.Flatten())
    net = masked(nn.Sequential(model, nn.Linear(384, 4)).double().eval(), 0)
    graph = dependencies(net.model)
    assert "computes its weight" in graph["0.0.weight"].pinned
    assert "0.2.weight" not in graph
    expected = outputs(net.model, IMAGES)
    smaller = compact_form(net)
    assert set(smaller.kept) == {"0.4.weight"}
    torch.testing.assert_close(outputs(smaller.model, IMAGES), expected, rtol=1e-9, atol=1e-9)


def test_what_asks_for_the_number_of_images_cannot_be_traced() -> None:
    def forward(net: Any, x: Tensor) -> Tensor:
        return net.head(net.stem(x).mean((2, 3)) / len(x))

    with pytest.raises(UserError, match="cannot be traced"):
        compact_form(Net(four(forward)))


def test_counting_leaves_shared_modules_and_plain_tensors_as_they_are() -> None:
    norm = nn.BatchNorm2d(8)
    model = nn.Sequential(conv(3, 8), norm, conv(8, 8), norm, nn.Flatten())
    whole = Written(lambda net, x: net.head(net.body(x)) + net.offset, body=model, head=nn.Linear(512, 4))
    whole.offset = torch.ones(4)  # no buffer
    for _ in range(2):
        assert LayerSizes.measured(whole, (3, 8, 8)).dense_flops == torch_flops(whole, (3, 8, 8))
    assert {tensor.device.type for tensor in whole.state_dict().values()} == {"cpu"}
