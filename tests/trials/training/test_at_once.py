"""Casts and counters at once give the bits of those one by one."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from tests.trials.operators import operators
from trials.models import MODELS, build
from trials.training.at_once import cast_at_once, counters_at_once
from trials.training.net import Net


class Norms(nn.Module):
    """Batch norms called once, twice and never; one that averages by its counter, one frozen, one that keeps none."""

    def __init__(self) -> None:
        super().__init__()
        self.once, self.twice, self.never = nn.BatchNorm1d(3), nn.BatchNorm1d(3), nn.BatchNorm1d(3)
        self.averaging = nn.BatchNorm1d(3, momentum=None)
        self.frozen = nn.BatchNorm1d(3)
        self.untracked = nn.BatchNorm1d(3, track_running_stats=False)

    def forward(self, x: Tensor) -> Tensor:
        x = self.twice(self.averaging(self.twice(self.once(x))))
        return self.untracked(self.frozen(x))


def test_counters_grow_by_the_calls() -> None:
    one = Norms().train()
    one.frozen.eval()
    other, x = copy.deepcopy(one), torch.randn(8, 3)
    for _ in range(3):
        expected = one(x)
        with counters_at_once(other):
            assert torch.equal(other(x), expected)
        assert list(other.state_dict()) == list(one.state_dict())
        assert all(map(torch.equal, other.state_dict().values(), one.state_dict().values()))
    counters = {name: int(norm.num_batches_tracked) for name, norm in other.named_children() if name != "untracked"}
    assert counters == {"once": 3, "twice": 6, "never": 0, "averaging": 3, "frozen": 0}
    assert not any(norm._forward_pre_hooks for norm in other.children())


def test_counters_are_put_back_after_an_error() -> None:
    model = Norms().train()
    with pytest.raises(ZeroDivisionError), counters_at_once(model):
        raise ZeroDivisionError
    assert isinstance(model.once.num_batches_tracked, Tensor)


NETS = ("resnet20s", "vgg16", "tiny", "resnet18", "wrn_16_8", "cifar_alexnet", "efficientnet_b0", "shufflenet_v2_x0_5")


@pytest.mark.parametrize("name", [name for name in NETS if name in MODELS])
@pytest.mark.parametrize("channels_last", [False, True])
def test_a_recorded_pass_has_the_bits_of_a_usual_one(name: str, channels_last: bool) -> None:
    layout = torch.channels_last if channels_last else torch.contiguous_format
    channels = 1 if name == "tiny" else 3
    model = build(name, num_classes=10, in_channels=channels, seed=0).to(memory_format=layout)
    nets = [Net(model.train(), autocast=True), Net(copy.deepcopy(model).train(), autocast=True)]
    size = 8 if name == "tiny" else 32
    x = torch.randn(4, channels, size, size, generator=torch.Generator().manual_seed(1)).contiguous(
        memory_format=layout
    )
    y, results = torch.arange(4), []
    for net, recorded in zip(nets, (False, True), strict=True):
        torch.manual_seed(5)
        if recorded:
            with net.recorded():
                results.append(net.backward(x, y))
        else:
            results.append(net.backward(x, y))
    assert torch.equal(results[0][0], results[1][0])
    for (key, one), other in zip(nets[0].model.named_parameters(), nets[1].model.parameters(), strict=True):
        assert (one.grad is None) == (other.grad is None), key
        if one.grad is not None and other.grad is not None:
            assert one.grad.stride() == other.grad.stride(), key
            assert torch.equal(one.grad, other.grad), key
    assert all(map(torch.equal, nets[0].model.state_dict().values(), nets[1].model.state_dict().values()))
    assert (nets[0].work.gradient_evaluations, nets[1].work.gradient_evaluations) == (4, 0)


def test_tied_and_unused_layers_and_subclasses() -> None:
    class Own(nn.Linear):
        def forward(self, x: Tensor) -> Tensor:
            assert self.weight.dtype == torch.float32  # it may need its weight as it is
            return super().forward(x)

    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one, self.two, self.unused, self.own = nn.Linear(5, 5), nn.Linear(5, 5), nn.Linear(5, 5), Own(5, 5)
            self.two.weight = self.one.weight

        def forward(self, x: Tensor) -> Tensor:
            return self.own(self.two(self.one(x)))

    torch.manual_seed(0)
    model = Tied()
    assert set(cast_at_once(model, torch.bfloat16)) == {
        f"{name}.{own}" for name in ("one", "two", "unused") for own in ("weight", "bias")
    }
    one, other = Net(model, autocast=True), Net(copy.deepcopy(model), autocast=True)
    x, y = torch.randn(7, 5), torch.arange(7) % 5
    one.backward(x, y)
    with other.recorded():
        other.backward(x, y)
    for expected, found in zip(one.model.parameters(), other.model.parameters(), strict=True):
        assert (expected.grad is None) == (found.grad is None)
        assert expected.grad is None or torch.equal(expected.grad, found.grad)


def test_fewer_operators() -> None:
    """One cast forward and one backward for all weights, and one counter operator for all norms."""
    counts = []
    for recorded in (False, True):
        net = Net(build("resnet20s", num_classes=10, in_channels=3, seed=0).train(), autocast=True)
        x, y = torch.randn(2, 3, 32, 32), torch.arange(2)
        with operators() as found:
            if recorded:
                with net.recorded():
                    net.backward(x, y)
            else:
                net.backward(x, y)
        counts.append(found)
    usual, at_once = counts
    assert usual["aten.add_.Tensor"] - at_once["aten.add_.Tensor"] == 19
    assert at_once["aten._foreach_add_.Scalar"] == 1
    assert at_once["aten._foreach_copy_.default"] == 2
    assert usual["aten._to_copy.default"] - at_once["aten._to_copy.default"] == 2 * 21
