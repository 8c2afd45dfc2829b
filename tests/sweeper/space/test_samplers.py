"""Samplers by name: their options and limits, conditions, and points to try first."""

from __future__ import annotations

import json
from typing import Any

import pytest
from optuna.trial import TrialState

from sweeper.search.cells.study import CellStudy
from sweeper.search.outcomes import FAILED, Outcome
from sweeper.space.distributions import corners, read_distribution
from sweeper.space.grid.conditions import in_order
from sweeper.space.load import from_document
from sweeper.space.options.samplers import SAMPLERS, read_sampler
from tests.sweeper.sweeps import ONE_SHOT, make_space
from trials.errors import UserError

LR = {"finetune.lr": {"loguniform": [1e-3, 1.0]}}
SEARCH: dict[str, Any] = {**LR, "finetune.momentum": {"uniform": [0.0, 0.95]}}
CONDITIONAL: dict[str, Any] = {
    "score": {"choice": ["magnitude", "random"]},
    "finetune.schedule": {"choice": ["cosine", "constant"], "when": {"score": "magnitude"}},
    "finetune.lr": {"loguniform": [1e-3, 1.0], "when": {"finetune.schedule": ["constant"]}},
    "finetune.momentum": {"uniform": [0.0, 0.95], "when": {"density": 0.5}},
}


def refusal(**fields: Any) -> str:
    with pytest.raises(UserError) as caught:
        make_space(**{"search": SEARCH, "samples": 20, **fields})
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("name", SAMPLERS)
def test_a_name_is_the_sampler_with_its_defaults(name: str) -> None:
    assert read_sampler(name) == read_sampler({"name": name}) == SAMPLERS[name]()
    assert read_sampler(name).document() == name


def test_options_survive_the_document() -> None:
    space = make_space(search=SEARCH, samples=20, sampler={"name": "nsga2", "population_size": 6, "mutation_prob": 0.2})
    document = json.loads(json.dumps(space.document()))
    assert document["sampler"] == {"name": "nsga2", "population_size": 6, "mutation_prob": 0.2}
    assert from_document(document) == space


@pytest.mark.parametrize(
    ("sampler", "says"),
    [
        (3, "sampler is 3, but must be a name or {name: NAME, ...}: cmaes, gp, "),
        ({"multivariate": True}, "sampler is {'multivariate': True}, but must be a name or {name: NAME, ...}"),
        ("tpee", "sampler is 'tpee', but must be one of: cmaes, gp, grid, nsga2, nsga3, qmc, random, tpe (did you mea"),
        ({"name": "tpe", "multivarate": True}, "sampler: key is 'multivarate', but must be one of: constant_liar, "),
        ({"name": "tpe", "n_ei_candidates": 0}, "sampler.n_ei_candidates is 0, but must be greater than or equal to 1"),
        ({"name": "tpe", "group": True, "multivariate": False}, "sampler.group is true, but needs "),
        ({"name": "random", "seed": 3}, "sampler: key is 'seed', but must be one of: name"),
        ({"name": "qmc", "qmc_type": "sobel"}, "sampler.qmc_type is 'sobel', but must be 'sobol' or 'halton'"),
        ("nsga2", "sampler.population_size is 50, but must be less than samples, which is 20"),
        ({"name": "cmaes", "popsize": 19}, "sampler.popsize is 19, but with n_startup_trials must be less than sample"),
        ({"name": "grid", "points": 2}, "samples is 20, but the grid of the search has 4 points: set samples to at mo"),
        ({"name": "grid", "points": 1000}, "sampler is 'grid', but the search has 1000000 combinations, more than"),
    ],
)  # fmt: skip
def test_options_are_checked(sampler: Any, says: str) -> None:
    assert refusal(sampler=sampler).startswith(says)


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        (
            {"objectives": [{"column": c, "direction": "maximize"} for c in ("val_accuracy", "sparsity")]},
            "sampler is 'cmaes', but there are 2 objectives",
        ),
        ({"constraints": [{"column": "flops", "at_most": 1e6}]}, "sampler is 'cmaes', but it does not support"),
        (
            {"search": {**LR, "score": {"choice": ["magnitude", "random"]}}},
            "sampler is 'cmaes', but search.score is a choice",
        ),
        (
            {"search": {"finetune.lr": {**LR["finetune.lr"], "when": {"density": 0.5}}}},
            "sampler is 'cmaes', but search.finetune.lr is conditional",
        ),
    ],
)
def test_what_cmaes_cannot_do(fields: dict[str, Any], says: str) -> None:
    assert refusal(sampler="cmaes", **fields).startswith(says)


def test_a_grid_has_every_combination_once() -> None:
    search = {
        "finetune.batch_size": {"int": [3, 5]},
        "finetune.lr": {"loguniform": [1e-4, 1.0]},
        "score": {"choice": ["magnitude", "random"]},
    }
    space = make_space(search=search, sampler={"name": "grid", "points": 3})
    assert space.samples == 3 * 3 * 2
    study = CellStudy(space, space.cells()[0])
    points = []
    for _ in range(space.samples):
        sample = study.ask()
        study.tell(sample, FAILED)
        points.append(tuple(sample.params.values()))
    assert set(points) == {(b, lr, s) for b in (3, 4, 5) for lr in (1e-4, 1e-2, 1.0) for s in ("magnitude", "random")}
    first = [tuple(CellStudy(space, cell).ask().params.values()) for cell in space.cells()]
    assert first[0] == points[0]
    assert first[0] != first[1]  # the order differs between cells


def test_integers_are_taken_all_or_evenly() -> None:
    assert read_distribution({"int": [2, 5]}, "x").points(4) == (2, 3, 4, 5)
    assert read_distribution({"int": [0, 100]}, "x").points(3) == (0, 50, 100)
    assert read_distribution({"int": [1, 100], "log": True}, "x").points(3) == (1, 10, 100)


# --- conditions


def test_conditional_parameters_come_after_what_they_depend_on() -> None:
    space = make_space(search=CONDITIONAL, samples=20)
    assert list(space.search) == ["finetune.momentum", "score", "finetune.schedule", "finetune.lr"]
    assert in_order(space.search, "search") == list(space.search)
    assert from_document(json.loads(json.dumps(space.document()))) == space
    assert "when score is magnitude" in str(space.search["finetune.schedule"])


@pytest.mark.parametrize("sampler", sorted(set(SAMPLERS) - {"cmaes", "gp"}))
def test_conditions_hold_in_every_sample(sampler: str) -> None:
    options = {"nsga2": {"population_size": 4}, "nsga3": {"population_size": 4}, "grid": {"points": 3}}
    space = make_space(search=CONDITIONAL, samples=20, sampler={"name": sampler, **options.get(sampler, {})})
    for cell in space.cells():
        study = CellStudy(space, cell)
        seen = set()
        for n in range(20):
            sample = study.ask()
            params = sample.params
            assert ("finetune.momentum" in params) == (cell.values["density"] == 0.5)
            assert ("finetune.schedule" in params) == (params["score"] == "magnitude")
            assert ("finetune.lr" in params) == (params.get("finetune.schedule") == "constant")
            seen.add(len(params))
            space.config(cell, params)
            study.tell(sample, FAILED if n == 4 else Outcome(TrialState.COMPLETE, (float(n),)))
        assert len(seen) == 3


def test_corners_of_conditional_parameters() -> None:
    space = make_space(search=CONDITIONAL, samples=20)
    dense, sparse = (space.corners(cell) for cell in space.cells())
    assert (len(dense), len(sparse)) == (2 * (1 + 1 + 2), 1 + 1 + 2)
    many = {f"finetune.x{i}": {"uniform": [0, 1], "when": {"score": "random"}} for i in range(10)}
    search = {"score": read_distribution(CONDITIONAL["score"], "score")}
    search |= {path: read_distribution(content, path) for path, content in many.items()}
    points = corners(search)
    assert all({point.get(path) for point in points} == {0, 1, None} for path in many)


def test_a_grid_over_methods_searches_what_each_has() -> None:
    trial = {key: value for key, value in ONE_SHOT.items() if key != "method"}
    search = {**LR, "mask_lr": {"uniform": [0.01, 0.1], "when": {"method": "bip"}}}
    space = make_space(trial={**trial, "density": 0.5}, grid={"method": ["bip", "one_shot"]}, search=search, samples=3)
    for cell in space.cells():
        params = CellStudy(space, cell).ask().params
        assert ("mask_lr" in params) == (cell.values["method"] == "bip")


@pytest.mark.parametrize(
    ("when", "says"),
    [
        (3, "search.finetune.lr.when is 3, but must be a mapping of paths to values"),
        ({}, "search.finetune.lr.when is {}, but must be a mapping of paths to values"),
        ({"score": []}, "search.finetune.lr.when.score is [], but must have at least one value"),
        ({"scor": "magnitude"}, "search.finetune.lr.when.scor is neither searched nor in the grid"),
        ({"score": "magnitud"}, "search.finetune.lr.when.score is 'magnitud', but score never has that value"),
        ({"density": 0.3}, "search.finetune.lr.when.density is 0.3, but density never has that value"),
        ({"finetune.momentum": 0.5}, "search.finetune.lr.when is circular: finetune.lr, finetune.momentum depend"),
        ({"finetune.lr": 0.5}, "search.finetune.lr.when is circular: finetune.lr depend"),
    ],
)
def test_conditions_are_checked(when: Any, says: str) -> None:
    search: dict[str, Any] = {
        "finetune.lr": {"loguniform": [1e-3, 1.0], "when": when},
        "score": {"choice": ["magnitude", "random"]},
    }
    if isinstance(when, dict) and "finetune.momentum" in when:
        search["finetune.momentum"] = {"uniform": [0.0, 0.9], "when": {"finetune.lr": 0.5}}
    assert refusal(search=search).startswith(says)


# --- points to try first


@pytest.mark.parametrize("sampler", ["random", "tpe", {"name": "nsga2", "population_size": 4}, "gp", "qmc"])
def test_given_points_come_first_in_every_cell(sampler: Any) -> None:
    points = [{"finetune.lr": 0.1, "finetune.momentum": 0.9}, {"finetune.lr": 0.5}]
    space = make_space(search=SEARCH, samples=20, enqueue=points, sampler=sampler)
    for cell in space.cells():
        study = CellStudy(space, cell)
        first, second, third = (study.ask().params for _ in range(3))
        assert first == points[0]
        assert second["finetune.lr"] == 0.5
        assert 0 <= second["finetune.momentum"] <= 0.95
        assert third["finetune.lr"] not in (0.1, 0.5)


@pytest.mark.parametrize(
    ("points", "says"),
    [
        ({"finetune.lr": 0.1}, "enqueue is {'finetune.lr': 0.1}, but must be a list of points"),
        ([3], "enqueue[0] is 3, but must be a mapping"),
        ([{}], "enqueue[0] is {}, but must set a path"),
        (
            [{"finetune.lr": 0.1}, {"lr": 0.1}],
            "enqueue[1]: path is 'lr', but must be one of: finetune.lr, finetune.mom",
        ),
        ([{"finetune.lr": 2}], "enqueue[0].finetune.lr is 2, but is searched as loguniform from 0.001 to 1.0"),
        ([{"finetune.lr": True}], "enqueue[0].finetune.lr is True, but is searched as loguniform"),
        ([{"finetune.lr": 0.1}] * 21, "enqueue has 21 points, but samples is 20: set it to more"),
    ],
)
def test_given_points_are_checked(points: Any, says: str) -> None:
    assert refusal(enqueue=points).startswith(says)


def test_a_given_point_keeps_conditions_and_is_complete_for_a_grid() -> None:
    point = {"score": "random", "finetune.schedule": "cosine"}
    says = refusal(search=CONDITIONAL, enqueue=[point])
    assert says.startswith("enqueue[0] has finetune.schedule, but its condition does not hold there (one of cosine, ")
    says = refusal(sampler="grid", enqueue=[{"finetune.lr": 0.1}])
    assert says.startswith("enqueue[0] lacks finetune.momentum, but with sampler grid a point must set every path")
