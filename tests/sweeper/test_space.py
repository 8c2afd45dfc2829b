"""Space files: what they resolve to, what their cells are, and what is said about those that cannot run."""

from __future__ import annotations

import copy
import json
import time
from pathlib import Path
from typing import Any

import optuna
import pytest
import yaml

from sweeper.cells import LADDERS
from sweeper.distributions import MOST_CORNERS, corners, read_distribution
from sweeper.space import SPACES, Cell, Space, list_spaces, load_space
from trials.errors import UserError
from trials.methods import METHODS

METHOD_NAMES = ", ".join(sorted(METHODS))
SHIPPED = ("bip_unstructured", "imp_kseries", "one_shot_magnitude")

SMALL: dict[str, Any] = {
    "about": "a small one",
    "trial": {"method": "bip", "model": "tiny", "dataset": "digits", "pretrain": {"epochs": 2}},
    "grid": {"density": [0.5, 0.2], "seed": [0, 1, 2]},
    "search": {"mask_lr": {"loguniform": [0.01, 0.3]}},
    "samples": 4,
    "resources": {"cpu": 1},
    "profiles": {
        "demo": {
            "trial": {"pretrain": {"lr": 0.2}},
            "grid": {"density": [0.1], "prune.epochs": [1, 2]},
            "search": {"mask_lr": {"uniform": [0.1, 0.2]}},
            "resources": {"gpu": 0.25},
        },
        "plain": {"grid": {"seed": None}, "search": {"mask_lr": None}, "samples": None},
    },
}


def written(folder: Path, content: Any, name: str = "small") -> str:
    path = folder / f"{name}.yaml"
    path.write_text(content if isinstance(content, str) else yaml.safe_dump(content, sort_keys=False))
    return str(path)


def small(folder: Path, changes: dict[str, Any] | None = None, **options: Any) -> Space:
    """SMALL with fields changed (a/b is b inside a)."""
    content = copy.deepcopy(SMALL)
    for path, value in (changes or {}).items():
        *parents, last = path.split("/")
        current = content
        for key in parents:
            current = current[key]
        current[last] = value
    return load_space(written(folder, content), **options)


# --- what is read


def test_fields_are_those_of_the_file(tmp_path: Path) -> None:
    space = small(tmp_path)
    assert (space.name, space.about, space.samples, space.sampler.name) == ("small", "a small one", 4, "tpe")
    assert (space.objective, space.direction, space.retries, space.max_concurrent, space.seed) == (
        *("val_accuracy", "maximize", 1, None, 0),
    )
    assert space.grid == {"density": (0.5, 0.2), "seed": (0, 1, 2)}
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
    assert load_space("bip_unstructured").grid["density"] == LADDERS["lth"]
    assert load_space("bip_unstructured", overrides=["grid.density=linear"]).grid["density"] == LADDERS["linear"]


def test_samples_default_to_one_without_a_search_only(tmp_path: Path) -> None:
    assert small(tmp_path, {"search": {}, "samples": None}).samples == 1
    assert load_space("imp_kseries").samples == 1
    with pytest.raises(UserError, match="samples is missing: say how many"):
        small(tmp_path, {"samples": None})


def test_empty_sections_mean_nothing_is_swept(tmp_path: Path) -> None:
    space = small(tmp_path, {"grid": None, "search": None, "samples": 1, "trial/density": 0.5})
    assert space.cells() == [Cell("", {})]
    space.check()


def test_document_comes_back_equal_through_json_and_yaml(tmp_path: Path) -> None:
    for space in (small(tmp_path), *map(load_space, SHIPPED)):
        assert Space.from_document(json.loads(json.dumps(space.document()))) == space
        assert Space.from_document(yaml.safe_load(yaml.safe_dump(space.document(), sort_keys=False))) == space
    assert small(tmp_path).document()["search"] == {"mask_lr": {"loguniform": [0.01, 0.3]}}


def test_search_order_does_not_depend_on_the_file(tmp_path: Path) -> None:
    entries = {"mask_lr": {"uniform": [0.1, 0.2]}, "implicit_step": {"uniform": [0.1, 0.2]}}
    assert list(small(tmp_path, {"search": entries}).search) == ["implicit_step", "mask_lr"]


# --- profiles and overrides


def test_profile_merges_mappings_and_replaces_the_rest(tmp_path: Path) -> None:
    space = small(tmp_path, profile="demo")
    assert space.trial["pretrain"] == {"epochs": 2, "lr": 0.2}
    assert space.grid == {"density": (0.1,), "seed": (0, 1, 2), "prune.epochs": (1, 2)}
    assert space.search["mask_lr"].document() == {"uniform": [0.1, 0.2]}
    assert (space.resources.cpu, space.resources.gpu) == (1, 0.25)
    space.check()


def test_null_in_a_profile_removes_an_entry(tmp_path: Path) -> None:
    space = small(tmp_path, profile="plain")
    assert list(space.grid) == ["density"]
    assert (space.search, space.samples) == ({}, 1)


def test_removing_what_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"grid\.sed is null, which removes it, but it is not there"):
        small(tmp_path, overrides=["grid.sed=null"])


def test_null_outside_a_profile_removes_nothing(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"grid\.seed is None, but must be a list of values or the name of a ladder"):
        small(tmp_path, {"grid/seed": None})


def test_overrides_come_after_the_profile(tmp_path: Path) -> None:
    settings = ["trial.pretrain.lr=3e-1", "grid.density=[0.3]", "samples=7", "resources.gpu=2", "direction=minimize"]
    space = small(tmp_path, profile="demo", overrides=settings)
    assert space.trial["pretrain"] == {"epochs": 2, "lr": 0.3}
    assert space.grid["density"] == (0.3,)
    assert (space.samples, space.resources.gpu, space.direction) == (7, 2, "minimize")


def test_what_follows_grid_and_search_is_one_path(tmp_path: Path) -> None:
    settings = [
        "grid.pretrain.epochs=[1,2]",
        "grid.seed=null",
        "search.prune.lr={uniform: [0.1, 0.2]}",
        "search.mask_lr={choice: [0.1, 0.2]}",
    ]
    space = small(tmp_path, overrides=settings)
    assert space.grid == {"density": (0.5, 0.2), "pretrain.epochs": (1, 2)}
    assert {path: d.document() for path, d in space.search.items()} == {
        "mask_lr": {"choice": [0.1, 0.2]},
        "prune.lr": {"uniform": [0.1, 0.2]},
    }
    space.check()
    again = small(tmp_path, overrides=[*settings, "grid.pretrain.epochs=null", "search={}", "samples=1"])
    assert (list(again.grid), again.search) == (["density"], {})


def test_samples_and_concurrency_have_the_last_word(tmp_path: Path) -> None:
    space = small(tmp_path, overrides=["samples=7"], samples=9, max_concurrent=2)
    assert (space.samples, space.max_concurrent) == (9, 2)


@pytest.mark.parametrize(
    ("setting", "says"),
    [
        ("grid.density", "--set is 'grid.density', but must be a.b=c"),
        ("grid.=[1]", "--set is 'grid.=[1]', but must be a.b=c"),
        ("grid.density=[", "--set grid.density=[ is not YAML"),
        ("samples.x=1", "--set is 'samples.x=1', but samples is not a mapping"),
        ("sampels=1", "key is 'sampels', but must be one of: "),
        ("grid=3", "grid is 3, but must be a mapping of dotted paths to lists of values"),
        ("search=[1]", "search is [1], but must be a mapping of dotted paths to distributions"),
        ("name=x", "name is 'x', but a space is called as its file: remove it"),
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
    space.check()
    assert [space.config(cell).method for cell in space.cells()] == ["bip", "one_shot"]


# --- what is refused, and how


def refusal(action: Any) -> str:
    """The one line that a UserError says."""
    with pytest.raises(UserError) as caught:
        action()
    assert "\n" not in str(caught.value)
    return str(caught.value)


REFUSED: list[tuple[dict[str, Any], str]] = [
    # sections
    ({"trial": 3}, "trial is 3, but must be a mapping of keys to values"),
    ({"gird": {}}, "key is 'gird', but must be one of: "),
    ({"name": "x"}, "name is 'x', but a space is called as its file: remove it"),
    ({"about": yaml.safe_load("2024-01-01")}, "about is datetime.date(2024, 1, 1), but must be text, a number"),
    ({"samples": 2**63}, "samples is 9223372036854775808, but must fit in 64 bits"),
    ({"seed": float("nan")}, "seed is nan, but must be finite"),
    ({"grid": {3: [1]}}, "grid has the key 3, but keys must be text"),
    ({"grid": ["density"]}, "grid is ['density'], but must be a mapping of dotted paths to lists of values"),
    ({"search": "mask_lr"}, "search is 'mask_lr', but must be a mapping of dotted paths to distributions"),
    ({"profiles": [1]}, "profiles is [1], but must be a mapping"),
    # grid
    ({"grid/density": []}, "grid.density is [], but must have at least one value"),
    ({"grid/density": 0.5}, "grid.density is 0.5, but must be a list of values or the name of a ladder: linear, lth"),
    ({"grid/density": "lht"}, "grid.density is 'lht', but must be one of: linear, lth (did you mean 'lth'?)"),
    ({"grid/density": [0.5, 0.2, 0.5]}, "grid.density has 0.5 twice, but must have every value once"),
    ({"grid/seed": [1, 1.0]}, "grid.seed has 1.0 twice"),
    ({"grid/density": [[0.5]]}, "grid.density has [0.5], but its values must be text, numbers, true, false or null"),
    ({"grid/density": [float("inf")]}, "grid.density[0] is inf, but must be finite"),
    ({"grid/a..b": [1]}, "grid has the path 'a..b', but paths are names with dots between"),
    ({"grid/device": ["cpu", "cuda"]}, "grid has device, which does not change what a trial computes: set it in trial"),
    ({"grid/split_seed": list(range(2000))}, "grid has 12000 cells, but must have at most 10000"),
    # search
    (
        {"search/mask_lr": [0.1, 0.2]},
        "search.mask_lr is [0.1, 0.2], but must be a mapping such as {uniform: [0.1, 0.2]}",
    ),
    (
        {"search/mask_lr": {"normal": [0, 1]}},
        "search.mask_lr: distribution is 'normal', but must be one of: choice, int",
    ),
    ({"search/mask_lr": {"uniform": [1, 2], "int": [1, 2]}}, "search.mask_lr is both uniform and int, but must be one"),
    ({"search/mask_lr": {"uniform": [1, 2], "log": True}}, "search.mask_lr has the key 'log' beside its distribution"),
    ({"search/mask_lr": {"uniform": [1]}}, "search.mask_lr.uniform is [1], but must be [low, high]: two numbers"),
    ({"search/mask_lr": {"uniform": [0.1, "1"]}}, "search.mask_lr.uniform is [0.1, '1'], but must be [low, high]"),
    ({"search/mask_lr": {"uniform": [True, 2]}}, "search.mask_lr.uniform is [True, 2], but must be [low, high]"),
    (
        {"search/mask_lr": {"uniform": [0.3, 0.3]}},
        "search.mask_lr.uniform is [0.3, 0.3], but low must be less than high",
    ),
    ({"search/mask_lr": {"loguniform": [0, 1]}}, "search.mask_lr.loguniform is [0, 1], but low must be above 0"),
    (
        {"search/prune.epochs": {"int": [0, 2], "log": True}},
        "search.prune.epochs.int is [0, 2], but low must be above 0",
    ),
    ({"search/prune.epochs": {"int": [1, 2], "log": 1}}, "search.prune.epochs.log is 1, but must be true or false"),
    (
        {"search/prune.epochs": {"int": [1, 2.5]}},
        "search.prune.epochs.int is [1, 2.5], but its bounds must be integers",
    ),
    ({"search/mask_lr": {"choice": []}}, "search.mask_lr.choice is [], but must have at least one value"),
    ({"search/mask_lr": {"choice": [1, 1]}}, "search.mask_lr.choice has 1 twice"),
    ({"search/mask_lr": {"choice": "lth"}}, "search.mask_lr.choice is 'lth', but must be a list of values"),
    # between sections
    ({"search/density": {"uniform": [0.1, 1]}}, "density is both in grid and in search, but must be in one of them"),
    (
        {"grid/finetune": [None], "grid/finetune.lr": [0.1]},
        "finetune.lr lies inside finetune, but grid and search must",
    ),
    ({"search": {}}, "samples is 4, but must be 1 where search is empty"),
    # the rest
    ({"samples": 0}, "samples is 0, but must be greater than or equal to 1"),
    ({"samples": "4"}, "samples is '4', but must be a valid integer"),
    (
        {"sampler": "grdi"},
        "sampler is 'grdi', but must be one of: cmaes, gp, grid, nsga2, nsga3, qmc, random, tpe (did you",
    ),
    ({"direction": "up"}, "direction is 'up', but must be 'maximize' or 'minimize'"),
    ({"objective": "test_accuracy"}, "objective is 'test_accuracy', but selection must never see the test set"),
    ({"objective": "val_acc"}, "objective is 'val_acc', but must be one of: analytic_density, "),
    ({"resources": [1]}, "resources is [1], but must be a mapping of keys to values"),
    ({"resources/cpu": 0}, "resources.cpu is 0, but must be greater than 0"),
    ({"resources/gpu": -1}, "resources.gpu is -1, but must be greater than or equal to 0"),
    ({"resources/gpu": 1.5}, "resources.gpu is 1.5, but must be a whole number, or a fraction up to 1"),
    ({"resources/tpu": 1}, "resources: key is 'tpu', but must be one of: cpu, gpu"),
    ({"retries": -1}, "retries is -1, but must be greater than or equal to 0"),
    ({"max_concurrent": 0}, "max_concurrent is 0, but must be greater than or equal to 1"),
    # found by trying the cells
    (
        {"grid/density": [0.5, 1.5]},
        "density is 1.5, but must be less than or equal to 1 (the trial at density=1.5,seed=0",
    ),
    ({"grid/density": ["half"]}, "density is 'half', but must be a valid number (the trial at density=half,seed=0"),
    ({"grid/densty": [1]}, "key is 'densty', but must be one of: "),
    ({"grid/prune.epoch": [1]}, "prune: key is 'epoch', but must be one of: backward, batch_size, epochs"),
    ({"grid/density.x": [1], "grid/seed": [0]}, "density.x lies inside density"),
    ({"trial/pretrain": 3, "grid/pretrain.epochs": [1]}, "pretrain is 3, but must be a mapping: grid or search sets"),
    ({"trial/pretrain": {"epochs": -1}}, "pretrain.epochs is -1, but must be greater than or equal to 0"),
    ({"trial/method": "bop"}, f"method is 'bop', but must be one of: {METHOD_NAMES} (did you mean"),
    ({"trial/method": ["bip"]}, f"method is ['bip'], but must be one of: {METHOD_NAMES}"),
    ({"trial": {}}, f"method is missing: add method: one of {METHOD_NAMES}"),
    ({"trial/model": "resnet21s"}, "model is 'resnet21s', but must be one of: "),
    ({"trial/dataset": "cifar"}, "dataset is 'cifar', but must be one of: cifar10, cifar100, digits"),
    (
        {"search/mask_lr": {"uniform": [0, 1]}},
        "mask_lr is 0.0, but must be greater than 0 (the trial at density=0.5,seed=0, ",
    ),
    ({"search/mask_lr": {"choice": [0.1, 0.2, -1]}}, "mask_lr is -1, but must be greater than 0"),
    ({"search/prune.epochs": {"uniform": [1, 2]}}, "prune.epochs is 1.0, but must be a valid integer"),
]


@pytest.mark.parametrize(("changes", "says"), REFUSED, ids=[says[:60] for _, says in REFUSED])
def test_refused_in_one_line_with_value_and_rule(tmp_path: Path, changes: dict[str, Any], says: str) -> None:
    def load_and_check() -> None:
        small(tmp_path, changes).check()

    assert refusal(load_and_check).startswith(says)


def test_unknown_space_and_profile(tmp_path: Path) -> None:
    says = refusal(lambda: load_space("bip_unstructred"))
    assert says.startswith("space is 'bip_unstructred', but must be one of: adaptive_budget, ")
    assert "did you mean 'bip_unstructured'?" in says
    assert "or give a YAML file" in says
    assert refusal(lambda: small(tmp_path, profile="dmo")) == (
        "profile is 'dmo', but must be one of: demo, plain (did you mean 'demo'?)"
    )
    assert refusal(lambda: small(tmp_path, {"profiles": {}}, profile="demo")) == (
        "profile is 'demo', but small has no profiles: leave it out"
    )
    assert refusal(lambda: small(tmp_path, {"profiles/demo": 3}, profile="demo")).startswith(
        "profiles.demo is 3, but must be"
    )


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "is None, but must be a mapping"),
        ("[1, 2]", "is [1, 2], but must be a mapping"),
        ("a: [", "is not YAML"),
        ("trial: {}\ntrial: {}", "key 'trial' is there twice"),
        ("trial: &a [*a]", "levels deep, but a space has at most 16"),
        ("trial: &a {x: *a}\nprofiles: {demo: {trial: &b {x: *b}}}", "levels deep, but a space has at most 16"),
        ("a: &a [1,1,1,1,1,1,1,1,1]\n" + "\n".join(
            f"{chr(98 + i)}: &{chr(98 + i)} [{','.join([f'*{chr(97 + i)}'] * 9)}]" for i in range(7)
        ), "is too much: a space holds at most 100000 values"),
        (f"samples: {hex(10**5000)}", "samples is an integer of 16610 bits, but must fit in 64 bits"),
        ("about: !!python/object/apply:os.getcwd []", "is not YAML"),
    ],
)  # fmt: skip
def test_files_that_are_no_spaces(tmp_path: Path, text: str, says: str) -> None:
    assert says in refusal(lambda: load_space(written(tmp_path, text), profile="demo"))


def test_files_that_are_not_there_or_badly_called(tmp_path: Path) -> None:
    assert "cannot be read" in refusal(lambda: load_space(str(tmp_path / "none.yaml")))
    assert "cannot be read" in refusal(lambda: load_space(f"{tmp_path}/"))
    path = written(tmp_path, SMALL, "my space")
    assert refusal(lambda: load_space(path)).startswith(f"{path} is called 'my space', but must be called by letters")


# --- distributions


@pytest.mark.parametrize(
    ("content", "edges", "distribution"),
    [
        ({"uniform": [1, 2]}, (1.0, 2.0), optuna.distributions.FloatDistribution(1, 2)),
        ({"loguniform": [1e-6, 1]}, (1e-6, 1.0), optuna.distributions.FloatDistribution(1e-6, 1, log=True)),
        ({"int": [1, 9]}, (1, 9), optuna.distributions.IntDistribution(1, 9)),
        ({"int": [1, 9], "log": True}, (1, 9), optuna.distributions.IntDistribution(1, 9, log=True)),
        ({"choice": ["a", None, 3]}, ("a", None, 3), optuna.distributions.CategoricalDistribution(("a", None, 3))),
    ],
)
def test_distributions_are_optunas(content: dict[str, Any], edges: tuple[Any, ...], distribution: Any) -> None:
    mine = read_distribution(content, "search.x")
    assert mine.edges() == edges
    assert mine.optuna_distribution() == distribution
    assert read_distribution(mine.document(), "search.x") == mine
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    for _ in range(20):
        trial = study.ask()
        value = mine.suggest(trial, "x")
        assert trial.distributions == {"x": distribution}
        assert value in edges if "choice" in content else edges[0] <= value <= edges[1]
        assert isinstance(value, int) == ("int" in content) or "choice" in content


def test_corners_are_all_combinations_while_these_are_few() -> None:
    two = {path: read_distribution({"uniform": [0, 1]}, path) for path in ("a", "b")}
    assert corners(two) == [{"a": a, "b": b} for a in (0, 1) for b in (0, 1)]
    assert corners({}) == [{}]
    many = {f"x{i}": read_distribution({"uniform": [0, 1]}, "x") for i in range(30)}
    points = corners(many)
    assert len(points) == 60 <= MOST_CORNERS
    assert all({point[path] for point in points} == {0, 1} for path in many)


# --- the spaces that come with the project


def test_shipped_spaces_are_listed() -> None:
    listed = list_spaces()
    assert [name for name, _, _ in listed] == sorted(path.stem for path in SPACES.glob("*.yaml"))
    assert {name for name, _, _ in listed} >= set(SHIPPED)
    assert all("arxiv.org" in about and "\n" not in about and "demo" in profiles for _, about, profiles in listed)


@pytest.mark.parametrize(("name", "cells", "demo"), [(SHIPPED[0], 63, 6), (SHIPPED[1], 3, 2), (SHIPPED[2], 126, 12)])
def test_shipped_spaces_check_quickly(name: str, cells: int, demo: int) -> None:
    began = time.perf_counter()
    space = load_space(name)
    space.check()
    assert time.perf_counter() - began < 1
    assert len(space.cells()) == cells
    small_one = load_space(name, profile="demo")
    small_one.check()
    assert len(small_one.cells()) == demo
    for cell in small_one.cells():
        config = small_one.config(cell, corners(small_one.search)[0])
        assert (config.dataset, config.model) == ("digits", "tiny")
    assert len({space.config(cell, corners(space.search)[0]).id for cell in space.cells()}) == cells


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
