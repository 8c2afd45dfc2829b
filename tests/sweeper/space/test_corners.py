"""The configs at the corners of a cell's search stand for all of its trials."""

from __future__ import annotations

from typing import Any

import pytest

from sweeper.search.cells.study import CellStudy
from sweeper.space.checks import check_space
from sweeper.space.load import from_document
from sweeper.space.space import Space

TRIAL: dict[str, Any] = {"dataset": "digits", "model": "tiny", "pretrain": {"epochs": 1}}
REGROW: dict[str, Any] = {**TRIAL, "method": "regrow", "finetune": None, "controller": {"episodes": 8}}


def checked(**fields: Any) -> Space:
    space = from_document({"name": "corners", "samples": 4, **fields})
    check_space(space)
    return space


def test_a_hyperparameter_that_only_one_method_has() -> None:
    space = checked(
        trial=TRIAL,
        grid={"method": ["bip", "one_shot"]},
        search={"density": {"uniform": [0.1, 0.5]}, "mask_lr": {"uniform": [0.01, 0.1], "when": {"method": "bip"}}},
    )
    bip, one_shot = (list(space.corner_configs(cell)) for cell in space.cells())
    assert [config.method for config in (*bip, *one_shot)] == ["bip"] * 4 + ["one_shot"] * 2
    assert {config.mask_lr for config in bip if hasattr(config, "mask_lr")} == {0.01, 0.1}
    assert space.most_pieces() == 1


def test_a_field_that_a_method_requires_is_searched_for_it_alone() -> None:
    trial = {key: value for key, value in TRIAL.items() if key != "pretrain"}
    search = {"density": {"uniform": [0.1, 0.5], "when": {"method": "bip"}}}
    assert checked(trial=trial, grid={"method": ["bip", "dense"]}, search=search).most_pieces() == 1


@pytest.mark.parametrize(
    ("path", "values", "value", "other"),
    [("seed", [0, 1], 1, 0), ("selection", ["saliency", "random"], "random", "saliency")],
)
def test_pieces_that_some_cells_run_at_once(path: str, values: list[Any], value: Any, other: Any) -> None:
    pieces = {"controller.episodes_in_flight": {"int": [2, 6], "when": {path: value}}}
    assert checked(trial=REGROW, grid={path: values}, search=pieces).most_pieces() == 6
    assert checked(trial={**REGROW, path: other}, grid={path: [value]}, search=pieces).most_pieces() == 6
    beside = {"episode.lr": {"uniform": [0.1, 0.2]}, **pieces}
    assert checked(trial=REGROW, grid={path: [other, value]}, search=beside).most_pieces() == 6
    searched = {path: {"choice": values}, **pieces}
    assert checked(trial=REGROW, search=searched).most_pieces() == 6


def test_pieces_of_a_method_that_some_cells_have() -> None:
    search = {"in_flight": {"int": [1, 5], "when": {"method": "single_layer"}}, "episode.lr": {"uniform": [0.1, 0.2]}}
    trial = {key: value for key, value in REGROW.items() if key not in ("method", "controller", "finetune")}
    assert checked(trial=trial, grid={"method": ["regrow", "single_layer"]}, search=search).most_pieces() == 5


def test_the_longest_trial_of_each_cell_is_planned_for() -> None:
    trial = {**TRIAL, "method": "one_shot", "finetune": {"epochs": 2}}
    search = {"finetune.epochs": {"int": [3, 9], "when": {"density": 0.5}}, "finetune.lr": {"uniform": [0.1, 0.2]}}
    space = checked(trial=trial, grid={"density": [0.5, 0.2]}, search=search)
    assert [CellStudy(space, cell).next_epochs for cell in space.cells()] == [9, 2]


def test_every_data_set_of_a_search_is_at_a_corner_however_many_fields_are_searched() -> None:
    names = ["digits", "cifar100", "cifar10", "imagenet"]
    search: dict[str, Any] = {"dataset": {"choice": names, "when": {"score": "random"}}}
    search["score"] = {"choice": ["magnitude", "random"]}
    search |= {f"finetune.{field}": {"uniform": [0.1, 0.2]} for field in ("lr", "momentum", "weight_decay")}
    search |= {f"pretrain.{field}": {"uniform": [0.1, 0.2]} for field in ("lr", "momentum", "weight_decay")}
    space = checked(trial={**TRIAL, "method": "one_shot"}, grid={"density": [0.5, 0.2]}, search=search)
    for cell in space.cells():
        configs = list(space.corner_configs(cell))
        assert {config.dataset for config in configs} == set(names)
        assert len(configs) <= sum(len(distribution.edges()) for distribution in space.search.values())
