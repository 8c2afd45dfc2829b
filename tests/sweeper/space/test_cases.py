"""Conditional paths of the grid, and cases (``when:``), which change the trial of some cells."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from sweeper.folder.sweep_folder import SweepFolder
from sweeper.results.report import standing
from sweeper.results.tables import load
from sweeper.space.checks import check_space
from sweeper.space.compatibility import contradictions
from sweeper.space.load import from_document, load_space
from sweeper.space.space import Space
from trials.errors import UserError

METHODS: dict[str, Any] = {
    "trial": {"model": "tiny", "dataset": "digits", "pretrain": {"epochs": 2}},
    "grid": {
        "stage_pr": {"values": [0.5, 0.9], "when": {"method": "l1"}},
        "method": ["one_shot", "l1", "imp"],
        "density": {"values": [0.5], "when": {"method": ["one_shot", "bip"]}},
        "finetune.lr": {"values": [0.1, 0.2], "when": {"stage_pr": 0.9}},
        "seed": [0, 1],
    },
    "cases": {
        "short": {"when": {"method": ["one_shot", "l1"]}, "trial": {"finetune": {"epochs": 3, "momentum": 0.5}}},
        "sparse": {"when": {"method": "l1", "stage_pr": 0.9}, "trial": {"finetune": {"epochs": 7}}},
        "bip": {"when": {"method": "bip"}, "trial": {"prune": {"epochs": 1}}},
    },
    "profiles": {
        "demo": {
            "grid": {"stage_pr": [0.8]},
            "cases": {"short": {"trial": {"finetune": {"epochs": 4}}}, "sparse": None},
        }
    },
}


def changed(path: str, value: Any) -> dict[str, Any]:
    """METHODS with the entry at path a/b/c replaced."""
    content = copy.deepcopy(METHODS)
    *parents, last = path.split("/")
    current = content
    for key in parents:
        current = current[key]
    current[last] = value
    return content


def space_of(content: dict[str, Any] = METHODS) -> Space:
    content = {key: value for key, value in content.items() if key != "profiles"}
    return from_document({"name": "methods", **content})


def written(folder: Path) -> str:
    path = folder / "methods.yaml"
    path.write_text(yaml.safe_dump(METHODS, sort_keys=False))
    return str(path)


# --- cells


def test_a_conditional_path_exists_where_its_condition_holds() -> None:
    space = space_of()
    keys = [cell.key for cell in space.cells() if cell.values["seed"] == 0]
    assert keys == [
        "density=0.5,method=one_shot,seed=0",
        "method=l1,seed=0,stage_pr=0.5",
        "finetune.lr=0.1,method=l1,seed=0,stage_pr=0.9",
        "finetune.lr=0.2,method=l1,seed=0,stage_pr=0.9",
        "method=imp,seed=0",
    ]
    assert len(space.cells()) == len({cell.key for cell in space.cells()}) == 10
    check_space(space)
    assert [space.config(cell).method for cell in space.cells()[::2]] == ["one_shot", "l1", "l1", "l1", "imp"]


def test_the_order_of_paths_in_the_file_changes_no_cell() -> None:
    turned = {**METHODS, "grid": dict(reversed(METHODS["grid"].items()))}
    assert {cell.key for cell in space_of(turned).cells()} == {cell.key for cell in space_of().cells()}


def test_documents_come_back() -> None:
    space = space_of()
    document = json.loads(json.dumps(space.document()))
    assert from_document(document) == space
    assert document["grid"]["density"] == {"values": [0.5], "when": {"method": ["one_shot", "bip"]}}
    assert document["cases"]["bip"] == METHODS["cases"]["bip"]
    assert "cases" not in space_of({"trial": METHODS["trial"] | {"method": "imp"}}).document()


def test_the_report_counts_conditional_cells(tmp_path: Path) -> None:
    folder = SweepFolder(tmp_path / "methods")
    folder.append({"space": space_of().document()})
    folder.trials.mkdir(parents=True)
    assert standing(load(folder.path)).startswith("methods: 10 cells, 0 done; 10 trials, 0 done")


# --- cases


def finetuning(space: Space, key: str) -> tuple[int, float, float]:
    (cell,) = (cell for cell in space.cells() if cell.key == key)
    config: Any = space.config(cell)
    return config.finetune.epochs, config.finetune.momentum, config.finetune.lr


def test_cases_follow_each_other_and_cells_win() -> None:
    space = space_of()
    assert finetuning(space, "density=0.5,method=one_shot,seed=0") == (3, 0.5, 0.01)
    assert finetuning(space, "method=l1,seed=0,stage_pr=0.5") == (3, 0.5, 0.01)
    assert finetuning(space, "finetune.lr=0.2,method=l1,seed=0,stage_pr=0.9") == (7, 0.5, 0.2)
    assert finetuning(space, "method=imp,seed=0")[:2] == (40, 0.9)
    assert space.trial == METHODS["trial"]
    first = space.cases["short"].trial
    assert first == {"finetune": {"epochs": 3, "momentum": 0.5}}


def test_a_profile_and_settings_change_values_and_keep_conditions(tmp_path: Path) -> None:
    space = load_space(
        written(tmp_path), profile="demo", overrides=["grid.density=[0.3, 0.2]", "grid.finetune.lr=null"]
    )
    keys = [cell.key for cell in space.cells() if cell.values["seed"] == 0]
    assert keys == [
        *("density=0.3,method=one_shot,seed=0", "density=0.2,method=one_shot,seed=0"),
        *("method=l1,seed=0,stage_pr=0.8", "method=imp,seed=0"),
    ]
    assert list(space.cases) == ["short", "bip"]
    assert finetuning(space, "method=l1,seed=0,stage_pr=0.8") == (4, 0.5, 0.01)
    everywhere = load_space(written(tmp_path), overrides=["grid.stage_pr={values: [0.9]}"])
    assert everywhere.grid["stage_pr"].when == ()


def test_a_space_runs_with_fewer_methods_than_it_knows(tmp_path: Path) -> None:
    space = load_space(written(tmp_path), overrides=["grid.method=[imp]"])
    check_space(space)
    assert [cell.key for cell in space.cells()] == ["method=imp,seed=0", "method=imp,seed=1"]


# --- what is refused


@pytest.mark.parametrize(
    ("path", "value", "says"),
    [
        (
            "grid/density",
            {"when": {"method": "l1"}},
            "grid.density.values is missing: say {values: [...], when: {...}}",
        ),
        (
            "grid/density",
            {"values": 3},
            "grid.density.values is 3, but must be a list of values or the name of a ladder",
        ),
        ("grid/density", {"values": []}, "grid.density.values is [], but must have at least one value"),
        (
            "grid/density/wehn",
            3,
            "grid.density: key is 'wehn', but must be one of: values, when (did you mean 'when'?)",
        ),
        ("grid/density/when", {}, "grid.density.when is {}, but must be a mapping of paths to values"),
        ("grid/density/when", {"methd": "l1"}, "grid.density.when.methd is not in the grid, but conditions of cells"),
        ("grid/density/when", {"method": "l2"}, "grid.density.when.method is 'l2', but method never has that value"),
        ("grid/density/when", {"seed": 2}, "grid.density.when.seed is 2, but seed never has that value: remove it"),
        ("grid/density/when", {"density": 0.5}, "grid.density.when is circular: density depend on each other"),
        ("grid/stage_pr/when", {"finetune.lr": 0.1}, "grid.stage_pr.when is circular: stage_pr, finetune.lr"),
        ("grid/split_seed", {"values": list(range(2000))}, "grid has 20000 cells, but must have at most 10000"),
        ("cases", [3], "cases is [3], but must be a mapping of names to cases such as {when: {method: bip}, trial: "),
        ("cases/bip", 3, "cases.bip is 3, but must be a mapping such as {when: {method: bip}, trial: "),
        ("cases/bip/trail", {}, "cases.bip: key is 'trail', but must be one of: trial, when (did you mean 'trial'?)"),
        ("cases/bip", {"trial": {}}, "cases.bip.when is missing: write {when: {method: bip}, trial: "),
        ("cases/bip", {"when": {"method": "bip"}}, "cases.bip.trial is missing: write {when: {method: bip}, trial: "),
        ("cases/bip/trial", [3], "cases.bip.trial is [3], but must be a mapping of keys to values"),
        ("cases/bip/when", {"method": "bpi"}, "cases.bip.when.method is 'bpi', but method never has that value"),
        ("cases/bip/when", {"prune.lr": 0.1}, "cases.bip.when.prune.lr is not in the grid, but conditions of cells"),
    ],
)
def test_invalid_conditions_and_cases_are_refused(path: str, value: Any, says: str) -> None:
    with pytest.raises(UserError) as caught:
        space_of(changed(path, value))
    assert str(caught.value).startswith(says)
    assert "\n" not in str(caught.value)


def test_a_case_that_its_trials_do_not_accept_is_reported_with_the_cell() -> None:
    with pytest.raises(UserError) as caught:
        check_space(space_of(changed("cases/sparse/trial/levels", 3)))
    assert str(caught.value).startswith("key is 'levels', but must be one of: ")
    assert str(caught.value).endswith("(the trial at finetune.lr=0.1,method=l1,seed=0,stage_pr=0.9)")


# --- what may continue a sweep


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("grid/method", ["one_shot", "l1", "imp", "bip"]),  # the new method has its own density and case
        ("grid/density/when", {"method": ["one_shot", "hydra", "bip"]}),
        ("grid/momentum", {"values": [0.1], "when": {"method": "hydra"}}),
        ("cases/bip/trial/prune", {"epochs": 5}),  # no cell uses this case yet
        ("cases/more", {"when": {"method": "bip"}, "trial": {"mask_lr": 0.1}}),
        ("cases/sparse/trial/finetune/lr", 0.5),  # the grid's value wins
        ("grid/seed", [1, 0, 2]),
    ],
)
def test_may_continue(path: str, value: Any) -> None:
    assert contradictions(space_of(), space_of(changed(path, value))) == []


@pytest.mark.parametrize(
    ("path", "value", "line"),
    [
        (
            "grid/density/when",
            {"method": "bip"},
            "grid has no cell density=0.5,method=one_shot,seed=0 by its conditions, but the sweep was begun with it",
        ),
        (
            "grid/split_seed",
            {"values": [0], "when": {"method": "imp"}},
            "grid has no cell method=imp,seed=0 by its conditions, but the sweep was begun with it",
        ),
        (
            "grid/density",
            {"values": [0.3], "when": {"method": "one_shot"}},
            "grid.density lacks 0.5, which the sweep has: [0.3]",
        ),
        ("cases/sparse/trial/finetune/epochs", 8, "trial.finetune.epochs is 8, but the sweep was begun with 7"),
        ("cases/sparse/when", {"stage_pr": 0.5}, "trial.finetune.epochs is 7, but the sweep was begun with 3"),
        ("cases/sparse", None, "trial.finetune.epochs is 3, but the sweep was begun with 7"),
        (
            "cases/more",
            {"when": {"method": "imp"}, "trial": {"levels": 3}},
            "trial.levels is 3, but the sweep was begun with 21",
        ),
    ],
)
def test_may_not_continue(path: str, value: Any, line: str) -> None:
    assert line in contradictions(space_of(), space_of(changed(path, value)))
