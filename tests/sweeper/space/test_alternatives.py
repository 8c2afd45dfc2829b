"""A hyperparameter whose range differs by cell: one of several distributions, chosen by conditions on the grid."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from optuna.distributions import FloatDistribution

from sweeper.dashboard import write_copy
from sweeper.folder.sweep_folder import SweepFolder
from sweeper.search.cells.study import CellStudy
from sweeper.search.warm_start import warm_start
from sweeper.space.compatibility import contradictions
from sweeper.space.load import from_document
from sweeper.space.options.samplers import SAMPLERS
from sweeper.space.space import Space
from tests.sweeper.sweeps import ONE_SHOT, make_space, run_space
from tests.sweeper.test_dashboard import studies_of
from trials.errors import UserError

BY_DENSITY: list[dict[str, Any]] = [
    {"loguniform": [0.1, 1.0], "when": {"density": 0.5}},
    {"loguniform": [1e-3, 1e-2], "when": {"density": 0.2}},
]
BOUNDS = {0.5: (0.1, 1.0), 0.2: (1e-3, 1e-2), 0.1: None}


def three_cells(**fields: Any) -> Space:
    content = {"grid": {"density": [0.5, 0.2, 0.1]}, "search": {"finetune.lr": BY_DENSITY}, "samples": 4, **fields}
    return make_space(**content)


def assert_in_range(params: dict[str, Any], density: float) -> None:
    bounds = BOUNDS[density]
    assert ("finetune.lr" in params) == (bounds is not None)
    assert bounds is None or bounds[0] <= params["finetune.lr"] <= bounds[1]


@pytest.mark.parametrize("sampler", sorted(set(SAMPLERS) - {"cmaes"}))
def test_each_cell_searches_its_own_range(sampler: str) -> None:
    options = {"nsga2": {"population_size": 2}, "nsga3": {"population_size": 2}, "grid": {"points": 4}}
    search = {"finetune.lr": BY_DENSITY, "finetune.momentum": {"uniform": [0.1, 0.9]}}
    space = three_cells(search=search, sampler={"name": sampler, **options.get(sampler, {})})
    for cell in space.cells():
        study = CellStudy(space, cell)
        for _ in range(space.samples):
            sample = study.ask()
            assert_in_range(sample.params, cell.values["density"])  # type: ignore[index]  # a number
            assert space.config(cell, sample.params).density == cell.values["density"]


def test_cells_are_checked_at_the_bounds_of_their_own_range() -> None:
    corners = [three_cells().corners(cell) for cell in three_cells().cells()]
    assert corners == [
        [{"finetune.lr": 0.1}, {"finetune.lr": 1.0}],
        [{"finetune.lr": 1e-3}, {"finetune.lr": 1e-2}],
        [{}],
    ]


def test_points_to_try_first_are_tried_in_the_cells_whose_range_holds_them() -> None:
    space = three_cells(enqueue=[{"finetune.lr": 0.3}], grid={"density": [0.5, 0.2]})
    wide, narrow = (CellStudy(space, cell).ask().params for cell in space.cells())
    assert wide == {"finetune.lr": 0.3}
    assert_in_range(narrow, 0.2)
    with pytest.raises(UserError, match=r"enqueue\[0\].finetune.lr is 0.05, but is searched as loguniform from 0.1"):
        three_cells(enqueue=[{"finetune.lr": 0.05}])


def test_documents_descriptions_and_differences() -> None:
    space = three_cells()
    assert from_document(json.loads(json.dumps(space.document()))) == space
    said = str(space.search["finetune.lr"])
    assert said == "loguniform from 0.1 to 1.0, when density is 0.5; loguniform from 0.001 to 0.01, when density is 0.2"
    assert contradictions(space, three_cells()) == []
    changed = three_cells(search={"finetune.lr": [BY_DENSITY[0], {**BY_DENSITY[1], "loguniform": [1e-3, 2e-2]}]})
    (line,) = contradictions(space, changed)
    assert line.startswith("search.finetune.lr is loguniform from 0.1")
    assert line.endswith(f"but the sweep was begun with {said}")


def test_a_sweep_runs_warms_another_and_is_shown(tmp_path: Path) -> None:
    folder = run_space(three_cells(sampler="random"), tmp_path / "earlier")
    for record in folder.records():
        for sample in record.samples:
            assert_in_range(sample.params, sample.grid["density"])
    space = three_cells(from_sweep="earlier", seed=1)
    warm = warm_start(space, SweepFolder(tmp_path / "later"))
    assert {key: len(cell.observations) for key, cell in warm.items()} == {
        "density=0.5": 4,
        "density=0.2": 4,
        "density=0.1": 1,
    }
    write_copy(folder)
    ranges = {
        trial.distributions["finetune.lr"]
        for study in studies_of(folder).values()
        for trial in study.trials
        if trial.distributions
    }
    assert ranges == {FloatDistribution(*bounds, log=True) for bounds in BOUNDS.values() if bounds}


@pytest.mark.parametrize(
    ("entry", "says"),
    [
        (BY_DENSITY[:1], "but a list must have two or more distributions with a when"),
        ([], "but a list must have two or more distributions"),
        ([0.1, 0.2], "but must be a mapping such as"),
        ([BY_DENSITY[0], {"uniform": [0, 1]}], r"search.finetune.lr\[1\] has no condition"),
        ([BY_DENSITY[0], {"uniform": [0, 1], "when": {"density": [0.5, 0.2]}}], r"lr\[0\] and .*lr\[1\] both apply to"),
        ([BY_DENSITY[0], {"uniform": [0, 1], "when": {"density": 0.3}}], "density never has that value"),
        ([BY_DENSITY[0], {"uniform": [0, 1], "when": {"score": "lamp"}}], "score is not in the grid"),
        ([BY_DENSITY[0], {"uniform": [0], "when": {"density": 0.2}}], r"search.finetune.lr\[1\].uniform is \[0\]"),
    ],
)
def test_refused(entry: object, says: str) -> None:
    with pytest.raises(UserError, match=says):
        three_cells(search={"finetune.lr": entry})


def test_refused_where_every_cell_must_have_every_number() -> None:
    with pytest.raises(UserError, match=r"search\.finetune\.lr is conditional"):
        three_cells(sampler="cmaes", samples=30)
    with pytest.raises(UserError, match=r"search\.finetune\.lr has a condition, but pbt"):
        make_space(
            trial={**ONE_SHOT}, grid={"density": [0.5, 0.2]}, search={"finetune.lr": BY_DENSITY}, samples=None,
            pbt={"population": 2, "interval": 1, "generations": 2},
        )  # fmt: skip
