"""A space file's fields, profiles, overrides, cells and configs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from sweeper.space.checks import check_space
from sweeper.space.grid.cells import Cell
from sweeper.space.grid.grid import LADDERS
from sweeper.space.load import from_document, load_space
from sweeper.space.space import Space
from tests.sweeper.space_files import SHIPPED, SMALL, refusal, small, written
from trials.errors import UserError


def values_of(space: Space) -> dict[str, tuple[Any, ...]]:
    """The grid's values by path."""
    return {path: axis.values for path, axis in space.grid.items()}


# --- what is read


def test_fields_are_those_of_the_file(tmp_path: Path) -> None:
    space = small(tmp_path)
    assert (space.name, space.about, space.samples, space.sampler.name) == ("small", "a small one", 4, "tpe")
    assert (space.objective, space.direction, space.retries, space.max_concurrent, space.seed) == (
        *("val_accuracy", "maximize", 1, None, 0),
    )
    assert values_of(space) == {"density": (0.5, 0.2), "seed": (0, 1, 2)}
    assert (space.resources.cpu, space.resources.gpu) == (1, 0)


def test_numbers_as_people_write_them(tmp_path: Path) -> None:
    text = yaml.safe_dump({**SMALL, "search": None}) + "search: {implicit_step: {loguniform: [1e-6, 1e-2]}}\n"
    text = text.replace("search: null\n", "")
    assert load_space(written(tmp_path, text)).search["implicit_step"].edges() == (1e-6, 1e-2)


def test_ladders() -> None:
    lth = "0.8000 0.6400 0.5120 0.4100 0.3280 0.2620 0.2097 0.1678 0.1342 0.1074 0.0859 0.0687 0.0550 0.0440 0.0350"
    lth += " 0.0280 0.0225 0.0180 0.0144 0.0115 0.0092"
    assert LADDERS["lth"] == tuple(map(float, lth.split()))
    assert len(LADDERS["lth"]) == 21
    assert all(abs(density - 0.8 ** (i + 1)) < 6e-4 for i, density in enumerate(LADDERS["lth"]))
    assert LADDERS["linear"] == (0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1)
    assert values_of(load_space("bip_unstructured"))["density"] == LADDERS["lth"]
    linear = load_space("bip_unstructured", overrides=["grid.density=linear"])
    assert values_of(linear)["density"] == LADDERS["linear"]


def test_samples_default_to_one_without_a_search_only(tmp_path: Path) -> None:
    assert small(tmp_path, {"search": {}, "samples": None}).samples == 1
    assert load_space("imp_kseries").samples == 1
    with pytest.raises(UserError, match="samples is missing: say how many"):
        small(tmp_path, {"samples": None})


def test_empty_sections_mean_nothing_is_swept(tmp_path: Path) -> None:
    space = small(tmp_path, {"grid": None, "search": None, "samples": 1, "trial/density": 0.5})
    assert space.cells() == [Cell("", {})]
    check_space(space)


def test_document_comes_back_equal_through_json_and_yaml(tmp_path: Path) -> None:
    for space in (small(tmp_path), *map(load_space, SHIPPED)):
        assert from_document(json.loads(json.dumps(space.document()))) == space
        assert from_document(yaml.safe_load(yaml.safe_dump(space.document(), sort_keys=False))) == space
    assert small(tmp_path).document()["search"] == {"mask_lr": {"loguniform": [0.01, 0.3]}}


def test_search_order_does_not_depend_on_the_file(tmp_path: Path) -> None:
    entries = {"mask_lr": {"uniform": [0.1, 0.2]}, "implicit_step": {"uniform": [0.1, 0.2]}}
    assert list(small(tmp_path, {"search": entries}).search) == ["implicit_step", "mask_lr"]


# --- profiles and overrides


def test_profile_merges_mappings_and_replaces_the_rest(tmp_path: Path) -> None:
    space = small(tmp_path, profile="demo")
    assert space.trial["pretrain"] == {"epochs": 2, "lr": 0.2}
    assert values_of(space) == {"density": (0.1,), "seed": (0, 1, 2), "prune.epochs": (1, 2)}
    assert space.search["mask_lr"].document() == {"uniform": [0.1, 0.2]}
    assert (space.resources.cpu, space.resources.gpu) == (1, 0.25)
    check_space(space)


def test_null_in_a_profile_removes_an_entry(tmp_path: Path) -> None:
    space = small(tmp_path, profile="plain")
    assert list(space.grid) == ["density"]
    assert (space.search, space.samples) == ({}, 1)


def test_removing_a_missing_entry_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"grid\.sed is null, which removes it, but there is no such entry"):
        small(tmp_path, overrides=["grid.sed=null"])


def test_null_outside_a_profile_removes_nothing(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"grid\.seed is None, but must be a list of values or the name of a ladder"):
        small(tmp_path, {"grid/seed": None})


def test_overrides_come_after_the_profile(tmp_path: Path) -> None:
    settings = ["trial.pretrain.lr=3e-1", "grid.density=[0.3]", "samples=7", "resources.gpu=2", "direction=minimize"]
    space = small(tmp_path, profile="demo", overrides=settings)
    assert space.trial["pretrain"] == {"epochs": 2, "lr": 0.3}
    assert values_of(space)["density"] == (0.3,)
    assert (space.samples, space.resources.gpu, space.direction) == (7, 2, "minimize")


def test_everything_after_grid_and_search_is_one_path(tmp_path: Path) -> None:
    settings = [
        "grid.pretrain.epochs=[1,2]",
        "grid.seed=null",
        "search.prune.lr={uniform: [0.1, 0.2]}",
        "search.mask_lr={choice: [0.1, 0.2]}",
    ]
    space = small(tmp_path, overrides=settings)
    assert values_of(space) == {"density": (0.5, 0.2), "pretrain.epochs": (1, 2)}
    assert {path: d.document() for path, d in space.search.items()} == {
        "mask_lr": {"choice": [0.1, 0.2]},
        "prune.lr": {"uniform": [0.1, 0.2]},
    }
    check_space(space)
    again = small(tmp_path, overrides=[*settings, "grid.pretrain.epochs=null", "search={}", "samples=1"])
    assert (list(again.grid), again.search) == (["density"], {})


def test_options_override_samples_and_concurrency(tmp_path: Path) -> None:
    space = small(tmp_path, overrides=["samples=7"], samples=9, max_concurrent=2)
    assert (space.samples, space.max_concurrent) == (9, 2)


@pytest.mark.parametrize(
    ("setting", "says"),
    [
        ("grid.density", "--set is 'grid.density', but must be a.b=c"),
        ("grid.=[1]", "--set is 'grid.=[1]', but must be a.b=c"),
        ("grid.density=[", "--set grid.density=[ is not YAML"),
        ("samples.x=1", "--set is 'samples.x=1': samples is 4, but must be a mapping: --set sets samples.x"),
        ("sampels=1", "key is 'sampels', but must be one of: "),
        ("grid=3", "grid is 3, but must be a mapping of dotted paths to lists of values"),
        ("search=[1]", "search is [1], but must be a mapping of dotted paths to distributions"),
        ("name=x", "name is 'x', but a space is named after its file: remove it"),
    ],
)
def test_bad_overrides(tmp_path: Path, setting: str, says: str) -> None:
    assert refusal(lambda: small(tmp_path, overrides=[setting])).startswith(says)


# --- cells and configs


def test_cells_come_in_grid_order_with_stable_keys(tmp_path: Path) -> None:
    cells = small(tmp_path).cells()
    assert len(cells) == len({cell.key for cell in cells}) == 6
    assert cells[0] == Cell("density=0.5,seed=0", {"density": 0.5, "seed": 0})
    assert cells[1].key == "density=0.5,seed=1"
    turned = small(tmp_path, {"grid": {"seed": [2, 1, 0], "density": [0.2, 0.5]}}).cells()
    assert turned[0].key == "density=0.2,seed=2"
    assert {cell.key for cell in turned} == {cell.key for cell in cells}


def test_keys_tell_apart_what_differs_and_nothing_else(tmp_path: Path) -> None:
    grid = {
        "density": [1.0, 1e-3],
        "compile": [True, False],
        "finetune": [None],
        "model": ["tiny", "a,b=c", "1", "null"],
    }
    keys = [cell.key for cell in small(tmp_path, {"grid": grid}).cells()]
    assert keys[0] == "compile=true,density=1,finetune=null,model=tiny"
    assert 'compile=false,density=0.001,finetune=null,model="a,b=c"' in keys
    assert {key.rpartition("model=")[2] for key in keys} == {"tiny", '"a,b=c"', '"1"', '"null"'}
    assert small(tmp_path, {"grid": {"density": [1]}}).cells() == small(tmp_path, {"grid": {"density": [1.0]}}).cells()


def test_config_is_template_then_cell_then_params(tmp_path: Path) -> None:
    space = small(tmp_path, {"trial/seed": 5, "grid/prune.epochs": [3], "grid/finetune.lr": [0.02]})
    config: Any = space.config(space.cells()[-1], {"mask_lr": 0.25, "pretrain.lr": 0.3})
    assert (config.method, config.model, config.seed, config.density, config.mask_lr) == ("bip", "tiny", 2, 0.2, 0.25)
    assert (config.pretrain.epochs, config.pretrain.lr, config.prune.epochs) == (2, 0.3, 3)
    assert config.finetune.lr == 0.02
    assert space.trial["pretrain"] == {"epochs": 2}


def test_a_grid_may_be_over_methods(tmp_path: Path) -> None:
    trial = {"model": "tiny", "dataset": "digits", "density": 0.5}
    space = small(tmp_path, {"trial": trial, "grid": {"method": ["bip", "one_shot"]}, "search": {}, "samples": 1})
    check_space(space)
    assert [space.config(cell).method for cell in space.cells()] == ["bip", "one_shot"]
