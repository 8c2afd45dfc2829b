"""The shipped spaces are listed, pass their check, and hold the recipes that they name."""

from __future__ import annotations

import time
from typing import Any

import pytest

from sweeper.space.checks import check_space
from sweeper.space.load import load_space
from sweeper.space.space_files import SPACES, list_spaces
from tests.sweeper.space_files import SHIPPED


def test_shipped_spaces_are_listed() -> None:
    listed = list_spaces()
    assert [name for name, _, _ in listed] == sorted(path.stem for path in SPACES.glob("*.yaml"))
    assert {name for name, _, _ in listed} >= set(SHIPPED)
    assert all("\n" not in about and "demo" in profiles for _, about, profiles in listed)
    assert [name for name, about, _ in listed if "arxiv.org" not in about] == ["compare_methods"]  # of many papers


@pytest.mark.parametrize(("name", "cells", "demo"), [(SHIPPED[0], 21, 3), (SHIPPED[1], 3, 2), (SHIPPED[2], 126, 12)])
def test_shipped_spaces_check_quickly(name: str, cells: int, demo: int) -> None:
    began = time.perf_counter()
    space = load_space(name)
    check_space(space)
    assert time.perf_counter() - began < 1
    assert len(space.cells()) == cells
    small_one = load_space(name, profile="demo")
    check_space(small_one)
    assert len(small_one.cells()) == demo
    for cell in small_one.cells():
        config = next(small_one.corner_configs(cell))
        assert (config.dataset, config.model) == ("digits", "tiny")
    assert len({next(space.corner_configs(cell)).id for cell in space.cells()}) == cells


def test_bip_unstructured_is_the_released_recipe() -> None:
    space = load_space("bip_unstructured")
    assert (space.samples, space.sampler.name, set(space.search)) == (
        8,
        "tpe",
        {"implicit_step", "mask_lr", "prune.lr"},
    )
    config: Any = space.config(space.cells()[0])
    assert (config.model, config.dataset, config.implicit_gradient) == ("resnet20s", "cifar10", "paper")
    assert (config.pretrain.epochs, config.pretrain.lr, config.pretrain.weight_decay) == (200, 0.1, 5e-4)
    assert (config.prune.epochs, config.prune.lr, config.prune.weight_decay) == (100, 0.1, 1e-4)
    assert config.pretrain.schedule == config.prune.schedule == "cosine"
    low, high = space.search["implicit_step"].edges(), space.search["mask_lr"].edges()
    assert low[0] <= config.implicit_step <= low[-1]
    assert high[0] <= config.mask_lr <= high[-1]


def test_names_of_the_demo_cells_and_trials_are_pinned() -> None:
    space = load_space("imp_kseries", profile="demo")
    assert [cell.key for cell in space.cells()] == ["seed=0", "seed=1"]
    keys = [cell.key for cell in load_space("one_shot_magnitude", profile="demo").cells()]
    assert keys[:3] == [
        "density=0.5,distribution=global,seed=0",
        "density=0.5,distribution=global,seed=1",
        "density=0.5,distribution=uniform,seed=0",
    ]
