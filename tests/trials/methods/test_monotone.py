"""A method that only prunes never lets a weight return: its masks shrink, and it never grows a network."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.trials.contract import METHODS_AT_ONCE, NONE, kept
from trials.methods.registry import METHODS
from trials.sparsity import DISTRIBUTIONS, SCORES
from trials.sparsity.coupled import COUPLED_DISTRIBUTIONS, COUPLED_SCORES
from trials.training.net import Net

pytestmark = pytest.mark.usefixtures("few_digits")

REVIVE = {
    "bip": "its scores are trained, and the mask keeps the largest at every step",
    "hydra": "its scores are trained, and the mask keeps the largest at every step",
    "adaptive_sparsity": "its thresholds fall as well as rise, and its latent weights go on training",
    "regrow": "regrows by design",
    "regrow_iterative": "regrows by design",
    "single_layer": "regrows by design, one layer at a time",
}
"""Methods whose weights may return, and why. Every other registered method only prunes."""

LEVELS = {"levels": 4, "prune_fraction": 0.4, "finetune": NONE}
MANY: dict[str, dict[str, Any]] = {
    **{
        f"prune_iterative-{score}-{distribution}-{pattern}-{rounding}": dict(
            LEVELS, score=score, distribution=distribution, pattern=pattern, rounding=rounding
        )
        for score, distribution in product(SCORES, DISTRIBUTIONS)
        for pattern, rounding in (("weight", "nearest"), ("filter", "nearest"), ("filter", "released"))
    },
    **{
        f"prune_iterative-{score}-{distribution}-coupled": dict(
            LEVELS, score=score, distribution=distribution, pattern="filter", couple=True
        )
        for score, distribution in product(COUPLED_SCORES, COUPLED_DISTRIBUTIONS)
    },
    **{
        f"imp-{score}-{distribution}": {**LEVELS, "rewind": "none", "score": score, "distribution": distribution}
        for score, distribution in product(SCORES, DISTRIBUTIONS)
    },
}
"""Choices of the methods that rank by score, distribution and pattern, in several levels where they have them."""

ONLY_PRUNE = {
    **{name: fields for name, fields in METHODS_AT_ONCE.items() if name not in REVIVE},
    "greg2-weight": {**METHODS_AT_ONCE["greg2"], "pattern": "weight"},
    "l1-channel": {**METHODS_AT_ONCE["l1"], "pattern": "channel"},
    **MANY,
}


@pytest.fixture
def returned(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Weights that a mask keeps although the same network's mask before did not; and networks that were unmasked."""
    found: list[str] = []
    set_masks, update_masks = Net.set_masks, Net.update_masks

    def note(net: Net, masks: Mapping[str, Tensor]) -> None:
        for name, mask in net.masks.items():
            if name not in masks:
                found.append(f"{name} lost its mask")
            elif mask.shape == masks[name].shape and bool((masks[name] & ~mask).any()):  # else it was made smaller
                found.append(f"{int((masks[name] & ~mask).sum())} of {name} returned")

    def noted_set(net: Net, masks: Mapping[str, Tensor], latent: Mapping[str, Tensor] | None = None) -> None:
        note(net, masks)
        set_masks(net, masks, latent)

    def noted_update(net: Net, masks: Mapping[str, Tensor], latent: Mapping[str, Tensor]) -> None:
        note(net, masks)
        update_masks(net, masks, latent)

    monkeypatch.setattr(Net, "set_masks", noted_set)
    monkeypatch.setattr(Net, "update_masks", noted_update)
    return found


def content(name: str) -> dict[str, Any]:
    what = {"method": name.partition("-")[0], "dataset": "few_digits", "model": "tiny"}
    never_trained = {} if what["method"] in ("dense", "dwp", "finetune") else {"pretrain": NONE}
    return {**what, **never_trained, **ONLY_PRUNE[name]}


def test_every_registered_method_is_here_or_has_a_reason() -> None:
    assert {name.partition("-")[0] for name in ONLY_PRUNE} | REVIVE.keys() == METHODS.keys()


@pytest.mark.parametrize("name", [name for name in ONLY_PRUNE if name != "oracle"])  # too many candidates of tiny
def test_what_is_pruned_never_returns(name: str, tmp_path: Path, returned: list[str]) -> None:
    trained = kept(content(name), tmp_path)
    assert returned == []
    assert trained or "uniform_plus" in name


def test_the_check_sees_what_returns(returned: list[str]) -> None:
    net = Net(torch.nn.Linear(2, 1))
    net.set_masks({"weight": torch.tensor([[True, False]])})
    assert returned == []
    net.set_masks({"weight": torch.tensor([[False, True]])})
    assert returned == ["1 of weight returned"]
