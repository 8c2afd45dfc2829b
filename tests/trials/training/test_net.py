"""The network that a trial trains: gradients under masks."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from trials.training.net import Net


def network() -> Net:
    torch.manual_seed(0)
    return Net(nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2)).double())


def batch() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(5, 4, dtype=torch.float64, generator=generator), torch.tensor([0, 1, 1, 0, 1])


def test_backward_replaces_gradients_by_those_of_the_mean_cross_entropy() -> None:
    net, (x, y) = network(), batch()
    expected = F.cross_entropy(net.model(x), y)
    gradients = torch.autograd.grad(expected, list(net.model.parameters()))
    for _ in range(2):  # the second pass must not add to the first
        loss, correct = net.backward(x, y)
        assert torch.equal(loss, expected)
        assert not loss.requires_grad
        assert int(correct) == int((net.model(x).argmax(1) == y).sum())
        for parameter, gradient in zip(net.model.parameters(), gradients, strict=True):
            assert parameter.grad is not None
            assert torch.equal(parameter.grad, gradient)


def test_masked_gradients_are_zero_also_after_a_step_has_changed_the_masks() -> None:
    net, (x, y) = network(), batch()
    weight = net.model.get_parameter("0.weight")
    first = torch.arange(12).reshape(3, 4) % 2 == 0
    for mask in (first, ~first):
        net.update_masks({"0.weight": mask}, {"0.weight": torch.ones_like(weight)})
        net.backward(x, y)
        whole = {name: parameter.grad.clone() for name, parameter in net.model.named_parameters()}  # type: ignore[union-attr]
        net.mask_gradients()
        assert weight.grad is not None
        assert torch.equal(weight.grad, whole["0.weight"] * mask)
        assert whole["0.weight"][~mask].count_nonzero() > 0  # there was something to mask
        for name, parameter in net.model.named_parameters():
            if name != "0.weight":
                assert torch.equal(parameter.grad, whole[name])  # type: ignore[arg-type]


def test_a_dense_network_keeps_all_gradients() -> None:
    net = network()
    net.backward(*batch())
    before = [parameter.grad.clone() for parameter in net.model.parameters()]  # type: ignore[union-attr]
    net.mask_gradients()
    for parameter, gradient in zip(net.model.parameters(), before, strict=True):
        assert parameter.grad is not None
        assert torch.equal(parameter.grad, gradient)


def test_a_masked_weight_without_a_gradient_is_a_defect() -> None:
    net = network()
    net.set_masks({"0.weight": torch.ones(3, 4, dtype=torch.bool)})
    with pytest.raises(AssertionError):
        net.mask_gradients()
