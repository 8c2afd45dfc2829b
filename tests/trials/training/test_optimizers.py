"""torch's optimisers as stages use them."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from trials.training.optimizers import AdamW, Sgd

LAST = torch.channels_last
Optimizer = Sgd | AdamW


def sgd(tensor: Tensor) -> Optimizer:
    return Sgd([tensor], lr=0.1, momentum=0.9, weight_decay=0.01)


def adamw(tensor: Tensor) -> Optimizer:
    return AdamW([tensor], lr=0.1, beta1=0.9, weight_decay=0.01)


both = pytest.mark.parametrize("make", [sgd, adamw])


def values(seed: int) -> Tensor:
    return torch.randn(3, 4, 2, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


@both
def test_a_gradient_in_another_order_is_refused(make: Callable[[Tensor], Optimizer]) -> None:
    tensor = values(0)
    optimizer = make(tensor)
    tensor.grad = values(1).to(memory_format=LAST)
    with pytest.raises(RuntimeError, match=r"gradient of a tensor of shape \[3, 4, 2, 2\] has strides \[16, 1, 8, 4\]"):
        optimizer.step()
    assert torch.equal(tensor, values(0))


@both
@pytest.mark.parametrize("fits", [False, True])
def test_moments_of_a_checkpoint_take_the_order_of_their_tensors(
    make: Callable[[Tensor], Optimizer], fits: bool
) -> None:
    """A trial may resume with another memory layout, as when it began on a GPU and continues on a CPU."""
    begun, undisturbed = values(0).to(memory_format=LAST), values(0)
    first, reference = make(begun), make(undisturbed)
    begun.grad, undisturbed.grad = values(1).to(memory_format=LAST), values(1)
    first.step()
    reference.step()
    layout = LAST if fits else torch.contiguous_format
    goes_on = begun.clone(memory_format=layout)
    second = make(goes_on)
    second.load_state_dict(first.state_dict())
    goes_on.grad, undisturbed.grad = values(2).contiguous(memory_format=layout), values(2)
    second.step()
    reference.step()
    assert torch.equal(goes_on, undisturbed)
