"""Files of weights with scores, as BiP and HYDRA keep them: which mask they give, and what is refused."""

from __future__ import annotations

import pathlib
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.trials.networks.sources import (
    assert_weights,
    refusal_of,
    started,
    tiny,
)
from tests.trials.small_trials import config_of
from trials.errors import UserError
from trials.methods.registry import METHODS
from trials.methods.starting import load_source
from trials.networks.named_files import resolved
from trials.sparsity import density_of, prunable
from trials.training.net import Net

pytestmark = pytest.mark.usefixtures("few_digits")


def scored(kind: str, seed: int = 1) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """A checkpoint's state dict with scores, and the scores by weight name."""
    model, draw = tiny(seed), torch.Generator().manual_seed(seed)
    scores = {}
    for name, weight in prunable(model, linear=kind == "weight").items():
        scores[name] = torch.ones_like(weight) if kind == "ones" else torch.randn(weight.shape, generator=draw)
    named = {f"{name.removesuffix('weight')}popup_scores": score for name, score in scores.items()}
    return {**model.state_dict(), **named}, scores


def test_scores_without_their_density_are_refused(tmp_path: pathlib.Path) -> None:
    said = refusal_of({"state_dict": scored("weight")[0], "epoch": 1}, tmp_path)
    assert "holds scores (popup_scores) and not the density" in said
    assert "source_mask: {density: K, distribution: global} for BiP's" in said
    assert "{density: K, distribution: uniform} for HYDRA's" in said


@pytest.mark.parametrize("density", [0.05, 0.5])
def test_scores_give_the_mask_of_a_density(density: float, tmp_path: pathlib.Path) -> None:
    state, scores = scored("weight")
    mask = {"density": density, "distribution": "global"}
    net = started({"state_dict": state}, tmp_path, "imp-none", source_mask=mask)
    ranked = torch.cat([score.abs().flatten() for score in scores.values()])
    kept = torch.cat([mask.flatten() for mask in net.masks.values()])
    dropped = int((1 - density) * len(ranked))  # as the released code counts
    assert int((~kept).sum()) == dropped
    assert ranked[kept].min() >= ranked[~kept].max()
    for name, weight in prunable(net.model).items():
        assert torch.equal(weight, state[name] * net.masks[name])


@pytest.mark.parametrize("density", [0.05, 0.5])
def test_scores_give_the_mask_of_each_layer_as_hydra_ranks(density: float, tmp_path: pathlib.Path) -> None:
    state, scores = scored("weight")
    mask = {"density": density, "distribution": "uniform"}
    net = started({"state_dict": state}, tmp_path, "imp-none", source_mask=mask)
    for name, score in scores.items():  # GetSubnet of https://github.com/inspire-group/hydra
        order = score.abs().flatten().sort().indices
        kept = torch.ones(score.numel(), dtype=torch.bool)
        kept[order[: int((1 - density) * score.numel())]] = False
        assert torch.equal(net.masks[name], kept.view_as(score))


@pytest.mark.parametrize("density", [0.05, 0.5])
def test_scores_of_weights_without_a_distribution_are_refused(density: float, tmp_path: pathlib.Path) -> None:
    said = refusal_of(scored("weight")[0], tmp_path, source_mask={"density": density})
    assert "give distribution: global" in said
    assert "or uniform" in said


@pytest.mark.parametrize("mask", [{"density": 0.5}, {"density": 0.5, "pattern": "filter"}])
def test_a_distribution_that_is_said_is_no_other_trial(mask: dict[str, Any]) -> None:
    """Trials of before the field keep their names."""
    said, unsaid = (
        config_of("imp-none", source_net="net.pt", source_mask={**mask, **more})
        for more in ({"distribution": "global"}, {})
    )
    assert said.id == unsaid.id
    assert said == unsaid


def test_an_earlier_trial_whose_mask_leaves_it_open_goes_on(tmp_path: pathlib.Path) -> None:
    """Only the check before anything starts refuses; what was scheduled by earlier code has the global mask."""
    torch.save(scored("weight")[0], tmp_path / "net.pt")
    nets = []
    for more in ({}, {"distribution": "global"}):
        mask = {"density": 0.5, **more}
        config = resolved(config_of("imp-none", source_net=str(tmp_path / "net.pt"), source_mask=mask))
        nets.append(Net(tiny(seed=99)))
        load_source(nets[-1], METHODS[config.method](config))
    assert all(torch.equal(nets[0].masks[name], nets[1].masks[name]) for name in nets[0].masks)


def test_a_distribution_of_filters_is_refused() -> None:
    mask = {"density": 0.5, "pattern": "filter", "distribution": "uniform"}
    with pytest.raises(UserError, match="distribution is 'uniform', but is for single weights"):
        config_of("imp-none", source_net="net.pt", source_mask=mask)


@pytest.mark.parametrize("pattern", ["filter", "channel"])
def test_scores_of_groups(pattern: str, tmp_path: pathlib.Path) -> None:
    state, _ = scored("conv")
    net = started(state, tmp_path, "imp-none", source_mask={"density": 0.5, "pattern": pattern})
    assert net.masks["linear.weight"].all()
    mask = net.masks["conv2.weight"]
    groups = mask.flatten(1) if pattern == "filter" else mask.transpose(0, 1).flatten(1)
    assert torch.equal(groups.all(1), groups.any(1))
    assert density_of({"conv2.weight": mask}) == 0.5
    assert "scores of linear layers too" in refusal_of(
        scored("weight")[0], tmp_path, source_mask={"density": 0.5, "pattern": pattern}
    )


@pytest.mark.parametrize(("kind", "fields"), [("ones", {}), ("weight", {"source_mask": {"density": 1.0}})])
def test_dense_weights_beside_scores(kind: str, fields: dict[str, Any], tmp_path: pathlib.Path) -> None:
    """Scores that rank nothing are of a dense training; density 1 asks for the dense weights."""
    net = started(scored(kind)[0], tmp_path, "bip", **fields)
    assert net.masks == {}
    assert_weights(net, tiny().state_dict())


def test_a_density_for_a_file_without_scores_is_refused(tmp_path: pathlib.Path) -> None:
    assert "source_mask is given" in refusal_of(tiny().state_dict(), tmp_path, source_mask={"density": 0.5})
    for fields in ({}, {"source_net": "torchvision", "model": "ResNet18"}):
        with pytest.raises(UserError, match="source_mask is given, but source_net names no file"):
            config_of("bip", source_mask={"density": 0.5}, **fields)


def test_scores_that_are_not_finite_are_refused(tmp_path: pathlib.Path) -> None:
    state = tiny().state_dict()
    scores = torch.full_like(state["conv2.weight"], float("nan"))
    told = refusal_of({**state, "conv2.popup_scores": scores}, tmp_path, source_mask={"density": 0.5})
    assert "popup_scores of conv2.weight that are not finite" in told


@pytest.mark.parametrize("layers", [1, 4])
@pytest.mark.parametrize(
    "dtype", [torch.int64, torch.int32, torch.uint8, torch.bool, torch.complex64, torch.float8_e4m3fn]
)
def test_scores_that_cannot_be_ranked_are_refused(dtype: torch.dtype, layers: int, tmp_path: pathlib.Path) -> None:
    state = scored("weight")[0]
    for name in [name for name in state if name.endswith("popup_scores")][:layers]:
        state[name] = (3 * state[name].clamp(min=0)).to(dtype)
    for mask in ({"density": 0.5, "distribution": "global"}, None):
        told = refusal_of(state, tmp_path, source_mask=mask)
        assert f"as {str(dtype).removeprefix('torch.')}" in told
        assert "floating-point numbers of 16 bits" in told


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("layers", [1, 4])
def test_scores_of_every_precision_are_ranked(dtype: torch.dtype, layers: int, tmp_path: pathlib.Path) -> None:
    """Also where layers have different ones."""
    state = scored("weight")[0]
    names = [name for name in state if name.endswith("popup_scores")]
    for name in names[:layers]:
        state[name] = state[name].to(dtype)
    net = started(state, tmp_path, "imp-none", source_mask={"density": 0.5, "distribution": "global"})
    ranked = torch.cat([state[name].double().abs().flatten() for name in names])
    kept = torch.cat([mask.flatten() for mask in net.masks.values()])
    assert int(kept.sum()) == len(ranked) - len(ranked) // 2
    assert ranked[kept].min() >= ranked[~kept].max()
