"""Masks, cuts and comparisons that the compaction tests share."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from trials.compact import (
    Architecture,
    dependencies,
    kept_rows,
    load,
    save,
    shrink,
    silent,
    spared,
    unit_rows,
    units_of,
)
from trials.models import MODELS
from trials.sparsity import prunable


@torch.no_grad()
def mask_units(model: nn.Module, seed: int) -> dict[str, Tensor]:
    """Mask the columns that read a random half of the units; returns the rows that these units have."""
    units = units_of(model)
    off = torch.rand(len(units.group), generator=torch.Generator().manual_seed(seed)) < 0.5
    off = spared(units, off)
    for weight in units.readers:
        member = units.members[weight][1]
        model.get_parameter(weight)[:, (member >= 0) & off[member]] = 0
    return unit_rows(units, off)


@torch.no_grad()
def mask_filters(model: nn.Module, seed: int) -> dict[str, Tensor]:
    """Mask a random half of the filters that may go alone, with biases and norms; returns their rows."""
    generator = torch.Generator().manual_seed(seed)
    named = dict(model.named_parameters())
    found = {}
    for name, channels in dependencies(model).items():
        rows = len(model.get_parameter(name))
        if channels.pinned or rows < 2:
            continue
        found[name] = torch.randperm(rows, generator=generator)[: rows // 2]
        for tensor in (
            name,
            f"{channels.layer}.bias",
            *(f"{n}.{p}" for n in channels.norms for p in ("weight", "bias")),
        ):
            if tensor in named:
                named[tensor][found[name]] = 0
    return found


@torch.no_grad()
def mask_rows(model: nn.Module, seed: int) -> None:
    """Mask a random third of the filters of every convolution and linear layer; biases and norms stay as they are."""
    generator = torch.Generator().manual_seed(seed)
    for weight in list(prunable(model).values())[:-1]:
        weight.detach()[torch.rand(len(weight), generator=generator) < 1 / 3] = 0


@torch.no_grad()
def assert_cut_equals_masked(
    model: nn.Module, masked: dict[str, Tensor], x: Tensor, tolerance: float = 1e-9
) -> dict[str, Tensor]:
    """What was masked is found and cut, and the outputs stay the same. Returns the rows that are kept.

    ``tolerance`` is relative to each output and to the largest: random weights of a deep net enlarge rounding.
    """
    expected = model(x)
    assert expected.isfinite().all()
    assert expected.std() > 1e-6
    idle = silent(model)
    for weight, rows in masked.items():
        assert set(rows.tolist()) <= set(idle.get(weight, rows[:0]).tolist()), weight
    kept = kept_rows(model, idle, "filter")
    before = sum(parameter.numel() for parameter in model.parameters())
    shrink(model, kept)
    if masked:
        assert sum(parameter.numel() for parameter in model.parameters()) < before
    torch.testing.assert_close(model(x), expected, rtol=tolerance, atol=tolerance * float(expected.abs().max()))
    return kept


def assert_loads(name: str, model: nn.Module, kept: dict[str, Tensor], x: Tensor, folder: Path) -> nn.Module:
    """The file of a compact network is read back and computes the same; returns it in float32."""
    architecture = Architecture(name, num_classes=5, in_channels=x.shape[1], image_size=(x.shape[2], x.shape[3]))
    save(folder / "compact.pt", architecture, kept, copy.deepcopy(model).float().state_dict())
    again = load(folder / "compact.pt")
    with torch.no_grad():
        expected = model(x)
        torch.testing.assert_close(
            again(x.float()).double(), expected, rtol=1e-3, atol=1e-4 * float(expected.abs().max())
        )
    return again


def offer(patch: pytest.MonkeyPatch, name: str) -> None:
    """Offer a torchvision classifier as a model of this project."""
    import torchvision

    builder = torchvision.models.get_model_builder(name)
    more = {"init_weights": False} if name in ("googlenet", "inception_v3") else {}
    patch.setitem(MODELS, name, lambda *, num_classes, in_channels: builder(num_classes=num_classes, **more))
