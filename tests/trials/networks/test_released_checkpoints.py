"""Checkpoints of BiP's and HYDRA's released code, whose models have other names and layers than the ones here."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from tests.trials.networks.sources import assert_weights, prefixed, refusal_of, started_from
from trials import models
from trials.data_header import DataHeader
from trials.sparsity import prunable
from trials.training.net import Net

pytestmark = pytest.mark.usefixtures("few_digits")

DATA = DataHeader("few_digits", 10, 3, (32, 32), 400)


def state_of(model: str, seed: int = 1) -> dict[str, Tensor]:
    return dict(models.build(model, num_classes=10, in_channels=3, seed=seed).state_dict())


def scores_of(state: dict[str, Tensor]) -> dict[str, Tensor]:
    draw = torch.Generator().manual_seed(3)
    weights = [(name, value) for name, value in state.items() if name.endswith("weight") and value.dim() > 1]
    return {
        name.removesuffix("weight") + "popup_scores": torch.rand(value.shape, generator=draw) - 0.5
        for name, value in weights
    }


def with_duplicate(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """In the order of BiP's modules, where sub_block1 follows block1."""
    first = {name: value for name, value in state.items() if name.split(".")[0] in ("conv1", "block1")}
    again = {f"sub_{name}": torch.randn(value.shape) for name, value in first.items() if name.startswith("block1")}
    return {**first, **again, **state}


def started(state: dict[str, Tensor], folder: Path, model: str, **fields: object) -> Net:
    torch.save({"state_dict": prefixed(state, "module."), "arch": model, "epoch": 1}, folder / "checkpoint.pth.tar")
    return started_from(folder / "checkpoint.pth.tar", "imp-none", DATA, model=model, **fields)


@pytest.mark.parametrize("model", ["resnet20s", "resnet32s", "resnet18", "tiny"])
@pytest.mark.parametrize("scored", [False, True])
def test_the_last_layer_under_its_other_name(model: str, scored: bool, tmp_path: Path) -> None:
    state = state_of(model)
    given = {name.replace("linear.", "fc."): value for name, value in {**state, **scores_of(state)}.items()}
    if not scored:
        assert_weights(started({n: v for n, v in given.items() if "popup" not in n}, tmp_path, model), state)
        return
    net = started(given, tmp_path, model, source_mask={"density": 0.3, "distribution": "uniform"})
    kept = net.masks["linear.weight"]
    assert torch.equal(net.model.get_parameter("linear.weight"), state["linear.weight"] * kept)
    scores = given["fc.popup_scores"].abs()
    assert scores[kept].min() >= scores[~kept].max()


def test_both_names_of_the_last_layer_are_refused(tmp_path: Path) -> None:
    state = state_of("tiny")
    more = {**state, "fc.weight": state["linear.weight"]}
    assert "fc.weight" in refusal_of({"state_dict": more}, tmp_path)


@pytest.mark.parametrize("model", ["wrn_28_1", "wrn_40_2"])
def test_the_duplicate_of_a_stage_is_left_out(model: str, tmp_path: Path) -> None:
    state = state_of(model)
    assert_weights(started(with_duplicate(state), tmp_path, model), state)


@pytest.mark.parametrize("density", [0.1, 0.5])
@pytest.mark.parametrize("distribution", ["global", "uniform"])
def test_scores_of_the_duplicate_compete_as_they_did(distribution: str, density: float, tmp_path: Path) -> None:
    """BiP ranks all scores that the model has, those of the duplicate included; HYDRA ranks each layer by itself."""
    given = with_duplicate(state_of("wrn_28_1"))
    scores = scores_of(given)
    mask = {"density": density, "distribution": distribution}
    net = started({**given, **scores}, tmp_path, "wrn_28_1", source_mask=mask)
    assert list(net.masks) == list(prunable(net.model))
    every = torch.cat([score.abs().flatten() for score in scores.values()])
    threshold = every.sort().values[int((1 - density) * len(every))]
    for name, kept in net.masks.items():
        score = scores[name.removesuffix("weight") + "popup_scores"].abs()
        if distribution == "uniform":
            threshold = score.flatten().sort().values[int((1 - density) * score.numel())]
        assert torch.equal(kept, score >= threshold)
