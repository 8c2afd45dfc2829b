"""How far onnxruntime may be from torch: relative to the largest logit, however large or small, and to rounding."""

from __future__ import annotations

import copy
import warnings

import pytest
import torch
from torch import nn

from trials.networks.onnx import _check, _converted

SHAPE = (1, 4, 4)


def content_of(model: nn.Module) -> bytes:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return _converted(model, SHAPE, "")


@pytest.mark.parametrize("scale", [1e-4, 1.0, 1e4])
def test_a_wrong_file_is_refused_at_any_scale_of_the_logits(scale: float) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(16, 5), nn.Linear(5, 3)).eval()
    with torch.no_grad():
        for tensor in model[2].parameters():
            tensor.mul_(scale)
    content = content_of(model)
    _check(content, model, SHAPE)
    other = copy.deepcopy(model)
    with torch.no_grad():
        other[2].weight.mul_(1.001)
    with pytest.raises(AssertionError):
        _check(content, other, SHAPE)


def test_logits_that_are_differences_of_large_numbers_are_no_fault() -> None:
    torch.manual_seed(0)
    wide = nn.Linear(16, 4096)
    model = nn.Sequential(nn.Flatten(), wide, nn.Linear(4096, 3)).eval()
    with torch.no_grad():
        wide.bias.fill_(1e4)
        model[2].weight.sub_(model[2].weight.double().mean(1, keepdim=True).float())
        model[2].bias.zero_()
    _check(content_of(model), model, SHAPE)
