"""Conditions other than equality: where they hold, what is checked of them, and that every branch gets a corner."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sweeper.folder.sweep_folder import SweepFolder
from sweeper.results.stored_space import stored_space
from sweeper.search.cells.study import CellStudy
from sweeper.space.checks import check_space
from sweeper.space.compatibility import contradictions
from sweeper.space.distributions import MOST_CORNERS
from sweeper.space.grid.conditions import active, document, holds, read_when
from sweeper.space.load import from_document
from sweeper.space.space import Space
from sweeper.sweep import Sweep, load
from tests.sweeper.sweeps import ONE_SHOT, begun, make_space, run_out
from trials.errors import UserError

RATE: dict[str, Any] = {"uniform": [0.1, 0.9]}
EPOCHS: dict[str, Any] = {"int": [1, 9]}


def searched(when: Any, **fields: Any) -> Space:
    search = {"finetune.epochs": EPOCHS, "score": {"choice": ["magnitude", "random"]}, **fields.pop("search", {})}
    grid = {"density": [0.5, 0.2, 0.05]}
    return make_space(search={**search, "finetune.lr": {**RATE, "when": when}}, grid=grid, samples=6, **fields)


@pytest.mark.parametrize(
    ("condition", "meeting"),
    [
        ({"at_least": 2}, [2, 2.5, 3]),
        ({"above": 2}, [2.5, 3]),
        ({"at_most": 2}, [1, 2]),
        ({"below": 2}, [1]),
        ({"between": [1, 2.5]}, [1, 2, 2.5]),
        ({"above": 1, "at_most": 3}, [2, 2.5, 3]),
        ({"at_least": 1, "not": [2, 3]}, [1, 2.5]),
        ({"not": 2}, [1, 2.5, 3, "a", None, True]),
        ({"not": ["a", None]}, [1, 2, 2.5, 3, True]),
        (2, [2]),
        ([2, "a"], [2, "a"]),
    ],
    ids=str,
)
def test_where_a_condition_holds(condition: Any, meeting: list[Any]) -> None:
    when = read_when({"x": condition}, "when")
    values = [1, 2, 2.5, 3, "a", None, True]
    found = [value for value in values if holds(when, {"x": value})]
    assert list(map(repr, found)) == list(map(repr, meeting))  # as text, since 1 and True are equal
    assert not holds(when, {})  # the path is missing, so it has no value
    assert read_when(document(when), "when") == when
    assert document(when) == {"x": condition}


@pytest.mark.parametrize(
    ("when", "says"),
    [
        ({"finetune.epochs": {}}, "but must be a value, a list, or a mapping"),
        ({"finetune.epochs": {"atleast": 5}}, "did you mean 'at_least'"),
        ({"finetune.epochs": {"at_least": "5"}}, "at_least is '5', but must be a number"),
        ({"finetune.epochs": {"at_least": True}}, "at_least is True, but must be a number"),
        ({"finetune.epochs": {"at_least": 2, "above": 3}}, "at_least and above, but must have one of them"),
        ({"finetune.epochs": {"between": [2, 3], "below": 3}}, "has between and below"),
        ({"finetune.epochs": {"between": [3, 2]}}, "low must be less than high"),
        ({"finetune.epochs": {"between": 3}}, r"must be \[low, high\]"),
        ({"finetune.epochs": {"at_least": 5, "below": 5}}, "at_least must be less than below"),
        ({"finetune.epochs": {"not": []}}, "must have at least one value"),
        ({"finetune.epochs": {"not": [2, 20]}}, "is 20, but finetune.epochs never has that value"),
        ({"finetune.epochs": {"at_least": 10}}, "but no value of finetune.epochs is"),
        ({"finetune.epochs": {"above": 9}}, "but no value of finetune.epochs is"),
        ({"finetune.epochs": {"below": 10}}, "but every value of finetune.epochs is"),
        ({"finetune.epochs": {"between": [0.5, 9.5]}}, "but every value of finetune.epochs is"),
        ({"finetune.epochs": {"between": [1.2, 1.8]}}, "but no value of finetune.epochs is"),
        ({"density": {"below": 0.05}}, r"but no value of density is \(0.5, 0.2, 0.05\)"),
        ({"density": {"at_most": 0.5}}, "but every value of density is"),
        ({"density": {"not": 0.3}}, "is 0.3, but density never has that value"),
        ({"density": {"not": [0.5, 0.2, 0.05]}}, "but no value of density is"),
        ({"score": {"at_least": 1}}, "score has the value 'magnitude', which is no number"),
        ({"score": {"not": ["random", "magnitude"]}}, "but no value of score is"),
        ({"nothing": {"below": 1}}, "is neither searched nor in the grid"),
    ],
    ids=str,
)
def test_a_condition_without_sense_is_refused_in_one_line(when: Any, says: str) -> None:
    with pytest.raises(UserError, match=says) as refused:
        searched(when)
    assert "\n" not in str(refused.value)
    assert "search.finetune.lr.when" in str(refused.value)


def test_conditions_that_exclude_each_other_are_refused() -> None:
    chain = {"finetune.momentum": {**RATE, "when": {"finetune.epochs": {"at_most": 4}}}}
    with pytest.raises(UserError, match=r"search.finetune.lr.when never holds in any cell"):
        searched({"finetune.epochs": {"at_least": 6}, "finetune.momentum": {"below": 0.5}}, search=chain)
    with pytest.raises(UserError, match=r"cases.a.when never holds in the cells of the grid"):
        make_space(
            grid={"density": [0.5, 0.05], "seed": {"values": [0, 1], "when": {"density": {"below": 0.1}}}},
            cases={"a": {"when": {"density": {"above": 0.1}, "seed": 1}, "trial": {"finetune": {"epochs": 3}}}},
        )
    with pytest.raises(UserError, match=r"grid.seed.when.density is above 0.01, but every value of density is"):
        make_space(grid={"density": [0.5], "seed": {"values": [0], "when": {"density": {"above": 0.01}}}})


def test_grid_cases_and_alternatives() -> None:
    space = make_space(
        grid={"density": [0.5, 0.2, 0.05], "seed": {"values": [0, 1], "when": {"density": {"at_most": 0.2}}}},
        cases={"sparse": {"when": {"density": {"below": 0.1}}, "trial": {"finetune": {"epochs": 7}}}},
        search={
            "finetune.lr": [
                {"uniform": [0.1, 0.2], "when": {"density": {"above": 0.1}}},
                {"uniform": [0.3, 0.4], "when": {"density": {"below": 0.1}}},
            ]
        },
        samples=2,
    )
    cells = space.cells()
    assert [cell.key for cell in cells] == [
        "density=0.5", "density=0.2,seed=0", "density=0.2,seed=1", "density=0.05,seed=0", "density=0.05,seed=1",
    ]  # fmt: skip
    configs: list[Any] = [next(space.corner_configs(cell)) for cell in cells]
    assert [config.finetune.epochs for config in configs] == [1, 1, 1, 7, 7]
    assert [config.finetune.lr for config in configs] == [0.1, 0.1, 0.1, 0.3, 0.3]
    assert from_document(json.loads(json.dumps(space.document()))) == space
    more = from_document({**space.document(), "grid": {**space.document()["grid"], "density": [0.5, 0.2, 0.05, 0.02]}})
    assert contradictions(space, more) == []
    assert {cell.key for cell in cells} < {cell.key for cell in more.cells()}


def test_methods_that_a_smaller_grid_lacks_may_stand_in_a_condition() -> None:
    fields: dict[str, Any] = {
        "trial": {key: value for key, value in ONE_SHOT.items() if key != "method"},
        "search": {"finetune.lr": {**RATE, "when": {"method": {"not": "hydra"}}}},
        "samples": 2,
    }
    two = make_space(grid={"method": ["one_shot", "hydra"], "density": [0.5]}, **fields)
    assert [len(two.corners(cell)) for cell in two.cells()] == [2, 1]
    one = make_space(grid={"method": ["one_shot"], "density": [0.5]}, **fields)
    assert [len(one.corners(cell)) for cell in one.cells()] == [2]


def test_a_study_searches_where_the_condition_holds(tmp_path: Path) -> None:
    search: dict[str, Any] = {
        "finetune.epochs": EPOCHS,
        "finetune.lr": {**RATE, "when": {"finetune.epochs": {"at_least": 5}}},
        "finetune.momentum": {**RATE, "when": {"density": {"below": 0.3}, "finetune.lr": {"below": 0.8}}},
    }
    space = make_space(search=search, samples=12)
    plan = begun(space, tmp_path)
    plan.folder.append({"space": space.document()})
    run_out(plan, lambda config: config["finetune"]["epochs"])
    seen = set()
    for record in plan.folder.records():
        (sample,) = record.samples
        params = sample.params
        assert ("finetune.lr" in params) == (params["finetune.epochs"] >= 5)
        wanted = sample.grid["density"] == 0.2 and params.get("finetune.lr", 1.0) < 0.8  # type: ignore[operator]
        assert ("finetune.momentum" in params) == wanted
        seen.add(frozenset(params))
    assert len(seen) == 3
    (study, _) = begun(space, tmp_path)._searches.values()
    assert isinstance(study, CellStudy)
    assert study._sampler(0)._group  # type: ignore[attr-defined]  # as with conditions on values


def test_a_report_lists_what_may_be_searched_in_a_cell(tmp_path: Path) -> None:
    space = make_space(
        grid={
            "density": [0.5, 0.05],
            "rounding": {"values": ["nearest", "released"], "when": {"density": {"below": 0.1}}},
        },
        search={
            "finetune.lr": {**RATE, "when": {"density": {"below": 0.1}}},
            "finetune.momentum": {**RATE, "when": {"rounding": {"not": "nearest"}}},
            "finetune.weight_decay": {**RATE, "when": {"finetune.lr": {"at_least": 0.5}}},
        },
        samples=2,
    )  # fmt: skip
    SweepFolder(tmp_path).append({"space": space.document()})
    stored = stored_space(Sweep.begun(tmp_path))
    assert stored is not None
    for missing in (None, float("nan")):
        assert stored.searched_in({"density": 0.5, "rounding": missing}) == ["finetune.weight_decay"]
    assert stored.searched_in({"density": 0.05, "rounding": "nearest"}) == ["finetune.lr", "finetune.weight_decay"]
    assert len(stored.searched_in({"density": 0.05, "rounding": "released"})) == 3


def test_points_to_try_first_keep_to_conditions() -> None:
    when = {"finetune.epochs": {"at_least": 5}}
    assert searched(when, enqueue=[{"finetune.epochs": 5, "finetune.lr": 0.3}]).enqueue
    with pytest.raises(UserError, match="its condition does not hold there"):
        searched(when, enqueue=[{"finetune.epochs": 4, "finetune.lr": 0.3}])


@pytest.mark.parametrize("many", [0, 6])
def test_every_branch_has_a_corner(many: int) -> None:
    """Also one in the middle of a range, and where there are too many corners for all combinations."""
    beside: dict[str, Any] = {f"pretrain.{name}": RATE for name in ("lr", "momentum", "weight_decay")}
    beside |= {f"finetune.{name}": RATE for name in ("weight_decay", "momentum", "warmup_lr")}
    search = {
        "finetune.epochs": EPOCHS,
        "finetune.lr": {**RATE, "when": {"finetune.epochs": {"between": [4, 6], "not": 5}}},
        "finetune.batch_size": {"int": [8, 64], "when": {"finetune.lr": {"above": 0.2, "below": 0.3}}},
        "pretrain.batch_size": {"int": [8, 64], "step": 8, "when": {"finetune.batch_size": 20, "score": "random"}},
        "score": {"choice": ["magnitude", "random"]},
        **dict(list(beside.items())[:many]),
    }
    space = from_document({"name": "x", "trial": ONE_SHOT, "search": search, "samples": 9})
    (cell,) = space.cells()
    corners = space.corners(cell)
    branches = {frozenset(set(point) - beside.keys()) for point in corners}
    always = {"finetune.epochs", "score"}
    chain = ["finetune.lr", "finetune.batch_size", "pretrain.batch_size"]
    assert branches == {frozenset({*always, *chain[:length]}) for length in range(4)}
    assert len(corners) <= 3 * MOST_CORNERS
    for point in corners:
        assert all(space.search[path].contains(value) for path, value in point.items())
        assert active(space.search, point, {}) == point


PATHS = ("finetune.epochs", "finetune.lr", "finetune.momentum", "finetune.batch_size", "pretrain.lr")
RANGES = st.sampled_from(
    [
        {"uniform": [0.1, 0.9]},
        {"uniform": [0.1, 0.9], "step": 0.1},
        {"loguniform": [0.001, 0.9]},
        {"uniform": [0.05, 0.35], "step": 0.15},
        {"choice": [0.1, 0.25, 0.5]},
    ]
)
WHOLE = st.sampled_from(
    [{"int": [2, 9]}, {"int": [10, 50], "step": 10}, {"int": [2, 64], "log": True}, {"choice": [2, 20]}]
)
FRACTIONS, WHOLES = st.sampled_from([0.1, 0.2, 0.25, 0.3, 0.5, 0.8]), st.sampled_from([2, 3, 5, 9, 10, 20, 30])


def conditions_on(numbers: st.SearchStrategy[float]) -> st.SearchStrategy[Any]:
    """Mostly conditions that hold for some values and not for others, with values of the path's kind."""
    bounds = [numbers.map(lambda number, key=key: {key: number}) for key in ("at_least", "above", "at_most", "below")]  # type: ignore[misc]
    pairs = st.tuples(numbers, numbers).map(lambda pair: {"between": sorted(pair)})
    both = st.tuples(numbers, numbers, numbers).map(lambda n: {"above": min(n), "at_most": max(n), "not": n[0]})
    return st.one_of(*bounds, pairs, both, numbers, numbers.map(lambda number: {"not": number}))


@st.composite
def spaces(draw: st.DrawFn) -> dict[str, Any]:
    search: dict[str, Any] = {}
    for path in PATHS:
        entry = dict(draw(WHOLE if path.endswith(("epochs", "size")) else RANGES))
        others = [*search, "density"]
        if draw(st.integers(0, 2)) == 0:
            names = draw(st.lists(st.sampled_from(others), min_size=1, max_size=2, unique=True))
            kinds = {name: WHOLES if name.endswith(("epochs", "size")) else FRACTIONS for name in names}
            entry["when"] = {name: draw(conditions_on(numbers)) for name, numbers in kinds.items()}
        search[path] = entry
    sampler = draw(st.sampled_from(["tpe", "random", "qmc", {"name": "tpe", "n_startup_trials": 1}]))
    grid = {"density": [0.5, 0.2, 0.05]}
    return {"name": "fuzz", "trial": ONE_SHOT, "grid": grid, "search": search, "sampler": sampler, "samples": 4}


@settings(max_examples=120, deadline=None, suppress_health_check=list(HealthCheck))
@given(content=spaces())
def test_any_space_with_steps_and_conditions_is_refused_or_holds_what_it_suggests(content: dict[str, Any]) -> None:
    said, space = "", None
    try:
        space = from_document(content)
    except UserError as error:
        said = str(error)
    assert "\n" not in said
    if space is None:
        return
    check_space(space)
    assert from_document(json.loads(json.dumps(space.document()))) == space
    for cell in space.cells():
        built = {frozenset(point) for point in space.corners(cell)}
        study = CellStudy(space, cell)
        for _ in range(space.samples):
            params = study.ask().params
            assert active(space.search, params, cell.values) == params
            assert frozenset(params) in built or len(built) > MOST_CORNERS or _few_corners(space, cell.values)
            assert all(space.search[path].contains(value) for path, value in params.items())
            space.config(cell, params)


def _few_corners(space: Space, values: dict[str, Any]) -> bool:
    """Whether a cell has too many corners for all combinations, so that one hyperparameter varies at a time."""
    count = 1
    for path, distribution in space.search.items():
        asked = [one for entry in space.search.values() for other, one in entry.when if other == path]
        count *= len(distribution.branches(asked))
    return count > MOST_CORNERS


def test_branches_of_a_range_meet_whatever_conditions_some_value_meets() -> None:
    conditions = [read_when({"x": one}, "w")[0][1] for one in ({"above": 3}, {"not": [4, 5]}, {"between": [2, 7]}, 6)]
    distribution = from_document(
        {"name": "x", "trial": ONE_SHOT, "search": {"finetune.epochs": EPOCHS}, "samples": 2}
    ).search["finetune.epochs"]
    outcomes = lambda values: {tuple(one.holds(value) for one in conditions) for value in values}  # noqa: E731
    assert outcomes(distribution.branches(conditions)) == outcomes(range(1, 10))
    for size in range(3):
        for some in itertools.combinations(conditions, size):
            assert set(distribution.branches(some)) <= set(range(1, 10))


@pytest.mark.parametrize("sampler", ["random", "tpe"])
@pytest.mark.parametrize("replicates", [None, {"values": {"seed": [0, 1]}}])
def test_a_cell_in_which_nothing_is_searched_has_one_point(tmp_path: Path, sampler: str, replicates: Any) -> None:
    search = {"finetune.lr": {**RATE, "when": {"density": {"below": 0.5}}}}
    space = make_space(search=search, samples=3, sampler=sampler, replicates=replicates)
    SweepFolder(tmp_path / "s").append({"space": space.document()})
    plan = begun(space, tmp_path / "s")
    each = 2 if replicates else 1
    assert len(run_out(plan)) == 4 * each
    assert plan.totals == {"density=0.5": each, "density=0.2": 3 * each}
    assert plan.complete
    standing = load(tmp_path / "s").standing()
    assert (standing.total, standing.left) == (4 * each, 0)
