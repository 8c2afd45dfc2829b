"""Masks that a file holds beside its state dict are kept, or refused; they are never dropped."""

from __future__ import annotations

import pathlib
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.trials.networks.sources import assert_weights, prefixed, refusal_of, started, tiny
from trials.networks.load import load_into
from trials.sparsity import prunable
from trials.training.net import Net

pytestmark = pytest.mark.usefixtures("few_digits")

Masks = dict[str, Tensor]


def masks_of(layers: int = 4) -> Masks:
    draw = torch.Generator().manual_seed(5)
    weights = list(prunable(tiny()).items())[:layers]
    return {name: torch.rand(weight.shape, generator=draw) > 0.6 for name, weight in weights}


def assert_masked(net: Net, masks: Masks) -> None:
    state = tiny().state_dict()
    assert list(net.masks) == list(prunable(net.model))
    for name, weight in prunable(net.model).items():
        assert torch.equal(net.masks[name], masks.get(name, torch.ones_like(net.masks[name])))
        assert torch.equal(weight, state[name] * net.masks[name])


@pytest.mark.parametrize("key", ["masks", "mask", "mask_dict", "weight_masks", "Masks", "pruned", "m"])
@pytest.mark.parametrize("dtype", [torch.bool, torch.float32, torch.uint8, torch.int64])
@pytest.mark.parametrize("layers", [1, 4])
def test_masks_beside_the_state_dict(key: str, dtype: torch.dtype, layers: int, tmp_path: pathlib.Path) -> None:
    masks = masks_of(layers)
    given = {name: mask.to(dtype) for name, mask in masks.items()}
    assert_masked(started({"state_dict": tiny().state_dict(), key: given, "epoch": 3}, tmp_path, "imp-none"), masks)


FILES: dict[str, Callable[[Any, Any], Any]] = {
    "flat": lambda state, masks: {**state, "masks": masks},
    "flat, among numbers": lambda state, masks: {**state, "masks": masks, "epoch": 3, "loss": np.float32(0.5)},
    "inside": lambda state, masks: {"state_dict": {**state, "masks": masks}},
    "beside": lambda state, masks: {"net": state, "masks": masks, "optimizer": {"state": {0: {"step": 1}}}},
    "beside the container": lambda state, masks: {"model": {"state_dict": state}, "masks": masks},
    "in the container": lambda state, masks: {"model": {"state_dict": state, "masks": masks}, "epoch": 3},
    "deeper": lambda state, masks: {"state_dict": state, "pruner": {"amount": 0.5, "masks": masks}},
    "with None": lambda state, masks: {"state_dict": state, "masks": {**masks, "bn1.bias": None}},
    "with ones": lambda state, masks: {"state_dict": state, "masks": {**masks, "bn1.bias": torch.ones(16)}},
    "buffers": lambda state, masks: {**state, **{f"{name}_mask": mask for name, mask in masks.items()}},
}


PREFIXES = [("", ""), ("module.", "module."), ("module.", ""), ("", "model.")]  # of the weights, and of the masks
WHERE = [(f, p) for f in FILES for p in PREFIXES if f != "buffers" or p[0] == p[1]]  # buffers are named as weights are


@pytest.mark.parametrize(("file", "prefixes"), WHERE)
def test_masks_wherever_they_lie(file: str, prefixes: tuple[str, str], tmp_path: pathlib.Path) -> None:
    masks = masks_of()
    content = FILES[file](prefixed(tiny().state_dict(), prefixes[0]), prefixed(masks, prefixes[1]))
    assert_masked(started(content, tmp_path, "imp-none"), masks)
    refusal_of(content, tmp_path, method="bip")  # which would drop them
    loaded = tiny(7)
    torch.save(content, tmp_path / "net.pt")
    load_into(loaded, tmp_path / "net.pt")
    for name, mask in masks.items():
        assert torch.equal(loaded.get_parameter(name), tiny().state_dict()[name] * mask)


OTHERS: dict[str, Callable[[Masks], Any]] = {
    "a list": lambda masks: list(masks.values()),
    "a tuple": lambda masks: tuple(masks.values()),
    "a tensor": lambda masks: next(iter(masks.values())),
    "arrays": lambda masks: {name: mask.numpy() for name, mask in masks.items()},
    "layers' names": lambda masks: {name.removesuffix(".weight"): mask for name, mask in masks.items()},
    "names with _mask": lambda masks: {f"{name}_mask": mask for name, mask in masks.items()},
    "numbers as names": lambda masks: dict(enumerate(masks.values())),
    "other shapes": lambda masks: {name: mask.flatten() for name, mask in masks.items()},
    "filters": lambda masks: {name: mask.flatten(1).any(1) for name, mask in masks.items()},
    "deeper": lambda masks: {"conv": masks},
}


@pytest.mark.parametrize(  # a tensor among weights is one of them
    ("other", "flat"), [(other, flat) for other in OTHERS for flat in (False, True) if not flat or other != "a tensor"]
)
def test_masks_in_another_form_are_refused(other: str, flat: bool, tmp_path: pathlib.Path) -> None:
    given, state = OTHERS[other](masks_of()), tiny().state_dict()
    said = refusal_of({**state, "masks": given} if flat else {"state_dict": state, "masks": given}, tmp_path)
    assert "'masks'" in said
    assert "weight_orig and weight_mask" in said


@pytest.mark.parametrize("value", [0.5, 2.0, float("nan")])
def test_masks_that_hold_other_values_are_refused(value: float, tmp_path: pathlib.Path) -> None:
    masks = {name: mask.float() for name, mask in masks_of().items()}
    masks["conv2.weight"][0, 0, 0, 0] = value
    said = refusal_of({"state_dict": tiny().state_dict(), "masks": masks}, tmp_path)
    assert "the mask of conv2.weight must hold 0 and 1" in said


def test_several_masks_are_refused(tmp_path: pathlib.Path) -> None:
    state, masks = tiny().state_dict(), masks_of()
    said = refusal_of({"state_dict": state, "masks": masks, "best_masks": masks}, tmp_path)
    assert "'masks' and 'best_masks'" in said
    said = refusal_of({"state_dict": {**state, "conv1.weight_mask": masks["conv1.weight"]}, "masks": masks}, tmp_path)
    assert "under 'masks' and as weight_mask" in said
    scores = {"conv2.popup_scores": torch.rand(state["conv2.weight"].shape)}
    said = refusal_of({"state_dict": {**state, **scores}, "masks": masks}, tmp_path, source_mask={"density": 0.5})
    assert "holds masks and scores" in said


@pytest.mark.parametrize(
    "beside",
    [
        {"mask_ratio": 0.5},
        {"masks": None},
        {"masks": {}},
        {"masked_layers": ["conv1", "conv2"]},
        {"optimizer": {"state": {0: {"exp_avg": torch.zeros(2, 2), "step": torch.ones(())}}}},
        {"momentum": {"conv1.weight": torch.zeros(16, 1, 3, 3)}},
        {"history": [torch.tensor(0.0), torch.tensor(1.0)]},
        {"seen": torch.ones(3, dtype=torch.bool)},
    ],
    ids=str,
)
def test_what_is_no_mask_is_left_alone(beside: dict[str, Any], tmp_path: pathlib.Path) -> None:
    net = started({"state_dict": tiny().state_dict(), **beside}, tmp_path)
    assert net.masks == {}
    assert_weights(net, tiny().state_dict())


def test_masks_that_keep_everything_are_none(tmp_path: pathlib.Path) -> None:
    masks = {name: torch.ones_like(mask) for name, mask in masks_of().items()}
    net = started({"state_dict": tiny().state_dict(), "masks": masks}, tmp_path, "bip")
    assert net.masks == {}
