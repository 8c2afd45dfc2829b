"""Which changed spaces may continue a sweep, and the message for those that may not."""

from __future__ import annotations

from typing import Any

import pytest

from sweeper.space.compatibility import contradictions
from sweeper.space.load import from_document
from sweeper.space.space import Space

BEGUN: dict[str, Any] = {
    "name": "begun",
    "trial": {"method": "bip", "model": "tiny", "dataset": "digits", "pretrain": {"epochs": 2}},
    "grid": {"density": [0.5, 0.2], "seed": [0, 1]},
    "search": {"mask_lr": {"loguniform": [0.01, 0.3]}},
    "samples": 4,
}


def space(**changes: Any) -> Space:
    return from_document({**BEGUN, **changes})


def trial(**changes: Any) -> dict[str, Any]:
    return {**BEGUN["trial"], **changes}


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"name": "other", "about": "told anew"},
        {"samples": 9},
        {"grid": {"seed": [2, 1, 0], "density": [0.2, 0.1, 0.5]}},
        {"resources": {"cpu": 2, "gpu": 0.25}, "retries": 5, "max_concurrent": 1},
        {"resources": {"memory": "8GB", "accelerator_type": "H100", "custom": {"license": 1}}},
        {"trial": trial(data_dir="/elsewhere", device="cuda", checkpoint_every_s=5.0)},
        {"trial": trial(pretrain={"epochs": 2, "lr": 0.1}, augment=True)},  # writing out defaults changes nothing
        {"trial": trial(density=0.9, seed=3, mask_lr=0.5)},  # grid and search override these
    ],
)
def test_may_continue(changes: dict[str, Any]) -> None:
    assert contradictions(space(), space(**changes)) == []


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"samples": 2}, "samples is 2, but the sweep was begun with 4"),
        ({"seed": 1}, "seed is 1, but the sweep was begun with 0"),
        ({"sampler": "random"}, "sampler is 'random', but the sweep was begun with 'tpe'"),
        ({"objective": "density"}, "objective is 'density', but the sweep was begun with 'val_accuracy'"),
        ({"direction": "minimize"}, "direction is 'minimize', but the sweep was begun with 'maximize'"),
        (
            {"grid": {"density": [0.5, 0.1], "seed": [0, 1]}},
            "grid.density lacks 0.2, which the sweep has: [0.5, 0.1]",
        ),
        ({"grid": {"density": [0.5, 0.2]}}, "grid.seed is missing, but the sweep was begun with [0, 1]"),
        (
            {"grid": {**BEGUN["grid"], "split_seed": [0]}},
            "grid.split_seed is [0], but the sweep was begun without it",
        ),
        (
            {"search": {"mask_lr": {"loguniform": [0.01, 0.30000001]}}},
            "search.mask_lr is loguniform from 0.01 to 0.30000001, "
            "but the sweep was begun with loguniform from 0.01 to 0.3",
        ),
        (
            {"search": {**BEGUN["search"], "implicit_step": {"choice": [0.1, 0.2]}}},
            "search.implicit_step is one of 0.1, 0.2, but the sweep was begun without it",
        ),
        (
            {"trial": trial(pretrain={"epochs": 3})},
            "trial.pretrain.epochs is 3, but the sweep was begun with 2",
        ),
        ({"trial": trial(model="resnet20s")}, "trial.model is 'resnet20s', but the sweep was begun with 'tiny'"),
    ],
)
def test_may_not_continue(changes: dict[str, Any], line: str) -> None:
    assert contradictions(space(), space(**changes)) == [line]


def test_a_removed_search_is_reported_with_its_samples() -> None:
    assert contradictions(space(), space(search={}, samples=1)) == [
        "search.mask_lr is missing, but the sweep was begun with loguniform from 0.01 to 0.3",
        "samples is 1, but the sweep was begun with 4",
    ]


def test_every_difference_is_a_line() -> None:
    lines = contradictions(space(), space(seed=3, samples=1, trial=trial(prune={"lr": 0.2, "momentum": 0.5})))
    assert [line.split(" is ")[0] for line in lines] == ["seed", "samples", "trial.prune.lr", "trial.prune.momentum"]


def test_an_added_or_removed_part() -> None:
    lines = contradictions(space(), space(trial=trial(finetune={"epochs": 3})))
    assert "trial.finetune.epochs is 3, but the sweep was begun without it" in lines
    assert "trial.finetune is missing, but the sweep was begun with None" in lines


def test_a_template_of_another_version_is_compared_as_written() -> None:
    old = space(trial=trial(forgotten_field=1))
    assert contradictions(old, space(trial=trial(forgotten_field=1))) == []
    assert contradictions(old, space()) == ["trial.forgotten_field is missing, but the sweep was begun with 1"]


def test_each_method_of_a_grid_is_compared() -> None:
    base = {"model": "tiny", "dataset": "digits", "density": 0.5}
    grid = {"method": ["bip", "one_shot"]}
    begun = space(trial=base, grid=grid, search={}, samples=1)
    assert contradictions(begun, space(trial={**base, "finetune": None}, grid=grid, search={}, samples=1))[-1] == (
        "trial.finetune is None, but the sweep was begun without it"
    )
    assert (
        contradictions(begun, space(trial=base, grid={"method": ["one_shot", "imp", "bip"]}, search={}, samples=1))
        == []
    )
