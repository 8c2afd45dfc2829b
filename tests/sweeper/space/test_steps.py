"""Ranges in steps: the values are those that a person would write, in every place that walks over a range."""

from __future__ import annotations

import random
from fractions import Fraction
from pathlib import Path
from typing import Any

import optuna
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sweeper.dashboard import write_copy
from sweeper.search.cells.perturbation import draw_value, perturb_value
from sweeper.search.cells.study import CellStudy
from sweeper.search.warm_start import warm_start
from sweeper.space.compatibility import contradictions
from sweeper.space.distributions import Int, Uniform, read_distribution
from sweeper.space.load import from_document
from sweeper.space.options.samplers import SAMPLERS
from sweeper.space.ranges import StepGrid
from sweeper.space.space import Space
from tests.sweeper.populations import population
from tests.sweeper.sweeps import asked, begun, make_space, run_out, run_space, trials_of
from tests.sweeper.test_dashboard import studies_of
from trials.errors import UserError

TENTHS = [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9]
STEPS: dict[str, Any] = {
    "finetune.momentum": {"uniform": [0.1, 0.9], "step": 0.1},
    "finetune.epochs": {"int": [10, 100], "step": 10},
}
VALUES = {"finetune.momentum": TENTHS, "finetune.epochs": list(range(10, 101, 10))}
OPTIONS: dict[str, dict[str, Any]] = {
    "cmaes": {"popsize": 4},
    "gp": {"n_startup_trials": 6},
    "grid": {"points": 9},
    "nsga2": {"population_size": 4},
    "nsga3": {"population_size": 4},
}


def stepped(sampler: str = "random", samples: int = 12, **fields: Any) -> Space:
    options = {"name": sampler, **OPTIONS.get(sampler, {})}
    return make_space(**{"search": STEPS, "sampler": options, "samples": samples, "grid": {"density": [0.5]}, **fields})


def value_of(config: dict[str, Any]) -> float:
    return float(-abs(config["finetune"]["momentum"] - 0.6) - config["finetune"]["epochs"] / 1000)


@pytest.mark.parametrize("sampler", sorted(SAMPLERS))
def test_every_sampler_suggests_the_values_of_the_steps_and_resumes_with_them(sampler: str, tmp_path: Path) -> None:
    space = stepped(sampler)
    (lived,) = (plan := begun(space, tmp_path))._searches.values()
    run_out(plan, value_of)
    (replayed,) = begun(space, tmp_path)._searches.values()
    assert isinstance(lived, CellStudy)
    assert isinstance(replayed, CellStudy)
    assert trials_of(lived) == trials_of(replayed)
    points = asked(plan.folder).values()
    for path, values in VALUES.items():
        taken = [point[path] for point in points]
        assert set(map(repr, taken)) <= set(map(repr, values))  # 30 and not 30.0, 0.3 and not 0.30000000000000004
        assert len(set(taken)) > 2
    (cell,) = space.cells()
    by_hand = {
        space.config(cell, {"finetune.momentum": m, "finetune.epochs": e}).id
        for m in TENTHS
        for e in VALUES["finetune.epochs"]
    }
    assert {record.id for record in plan.folder.records()} <= by_hand


def test_the_name_of_a_trial_in_steps_is_that_of_the_value_written_by_hand() -> None:
    space = stepped(search={"finetune.momentum": STEPS["finetune.momentum"]})
    (cell,) = space.cells()
    third = read_distribution(STEPS["finetune.momentum"], "x").points(9)[2]
    written = from_document({**space.document(), "search": {}, "sampler": "tpe", "samples": 1, "trial": {
        **space.trial, "finetune": {"epochs": 1, "momentum": 0.3}
    }})  # fmt: skip
    assert space.config(cell, {"finetune.momentum": third}).id == written.config(cell).id


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ({"uniform": [0.1, 0.95], "step": 0.1}, r"steps of 0.1 from 0.1 do not reach 0.95: set high to 0.9 or 1.0"),
        ({"uniform": [0.0, 1.0], "step": 0.3}, r"set high to 0.9 or 1.2"),
        ({"uniform": [0, 1], "step": 3}, r"do not reach 1.0: set high to 3.0"),
        ({"int": [10, 95], "step": 10}, r"steps of 10 from 10 do not reach 95: set high to 90 or 100"),
        ({"int": [-5, 6], "step": 10}, r"set high to 5 or 15"),
        ({"int": [10, 90], "step": 0}, r"step is 0, but must be a whole number of at least 1"),
        ({"int": [10, 90], "step": 10.0}, r"step is 10.0, but must be a whole number"),
        ({"int": [10, 90], "step": True}, r"step is True, but must be a whole number"),
        ({"int": [10, 90], "step": 10, "log": True}, r"log: true and step: 10"),
        ({"uniform": [0.1, 0.9], "step": -0.1}, r"step is -0.1, but must be a number above 0"),
        ({"uniform": [0.1, 0.9], "step": "a"}, r"step is 'a', but must be a number above 0"),
        ({"uniform": [0.1, 0.9], "step": None}, r"step is None, but must be a number above 0"),
        ({"uniform": [1e9, 1e9 + 1], "step": 0.1}, r"step is 0.1, but must be at least 100"),
        ({"loguniform": [0.1, 0.9], "step": 0.1}, r"has a step, but a loguniform has none"),
        ({"choice": [1, 2], "step": 1}, r"has the key 'step' beside its distribution"),
    ],
    ids=str,
)
def test_steps_that_have_no_meaning_are_refused_in_one_line(content: dict[str, Any], says: str) -> None:
    with pytest.raises(UserError, match=says) as refused:
        read_distribution(content, "search.x")
    assert "\n" not in str(refused.value)


def test_documents_descriptions_and_differences() -> None:
    space = stepped()
    assert from_document(space.document()) == space
    assert str(space.search["finetune.epochs"]) == "uniform integers from 10 to 100 in steps of 10"
    assert space.search["finetune.momentum"].document() == {"uniform": [0.1, 0.9], "step": 0.1}
    changed = stepped(search={**STEPS, "finetune.momentum": {"uniform": [0.1, 0.9], "step": 0.2}})
    assert contradictions(space, changed) == [
        "search.finetune.momentum is uniform from 0.1 to 0.9 in steps of 0.2, but the sweep was begun with uniform "
        "from 0.1 to 0.9 in steps of 0.1"
    ]
    whole = read_distribution({"int": [1, 9], "step": 1}, "x")
    assert whole == read_distribution({"int": [1, 9]}, "x")
    assert whole.document() == {"int": [1, 9]}  # as spaces were written before there were steps


def test_the_grid_sampler_takes_whole_steps() -> None:
    momentum, epochs = (read_distribution(content, path) for path, content in STEPS.items())
    assert momentum.points(5) == (0.1, 0.3, 0.5, 0.7, 0.9)
    assert momentum.points(20) == tuple(TENTHS)
    assert epochs.points(4) == (10, 40, 70, 100)
    assert read_distribution({"int": [0, 70], "step": 10}, "x").points(5) == (0, 20, 40, 50, 70)
    grid = {"name": "grid", "points": 3}
    space = make_space(search=STEPS, sampler=grid, grid={"density": [0.5]})
    study = CellStudy(space, space.cells()[0])
    points = [study.ask().params for _ in range(space.samples)]
    assert sorted((p["finetune.momentum"], p["finetune.epochs"]) for p in points) == [
        (m, e) for m in (0.1, 0.5, 0.9) for e in (10, 50, 100)
    ]


def test_points_to_try_first_lie_on_the_steps() -> None:
    first = CellStudy(space := stepped(enqueue=[{"finetune.momentum": 0.3}]), space.cells()[0]).ask()
    assert first.params["finetune.momentum"] == 0.3
    for value in (0.35, 0.1 + 0.2, True):
        with pytest.raises(UserError, match=r"enqueue\[0\].finetune.momentum is .*in steps of 0.1"):
            stepped(enqueue=[{"finetune.momentum": value}])
    with pytest.raises(UserError, match=r"enqueue\[0\].finetune.epochs is 15"):
        stepped(enqueue=[{"finetune.epochs": 15}])


def test_cells_may_have_other_steps_and_earlier_sweeps_are_taken_over(tmp_path: Path) -> None:
    search = {
        "finetune.momentum": [
            {"uniform": [0.1, 0.9], "step": 0.1, "when": {"density": 0.5}},
            {"uniform": [0.05, 0.35], "step": 0.15, "when": {"density": 0.2}},
        ]
    }
    fields: dict[str, Any] = {"search": search, "grid": {"density": [0.5, 0.2]}, "sampler": "tpe", "samples": 4}
    folder = run_space(make_space(**fields), tmp_path / "first", value=lambda config: config["finetune"]["momentum"])
    values = {"density=0.5": TENTHS, "density=0.2": [0.05, 0.2, 0.35]}
    points = asked(folder)
    assert all(params["finetune.momentum"] in values[cell] for (cell, _), params in points.items())
    later = make_space(**fields, from_sweep=str(folder.path))
    warm = warm_start(later, type(folder)(tmp_path / "later"))
    assert {cell: len(found.observations) for cell, found in warm.items()} == {
        cell: len({params["finetune.momentum"] for (other, _), params in points.items() if other == cell})
        for cell in values
    }
    write_copy(folder)
    shown = studies_of(folder)["density=0.2"].trials[0].distributions
    assert shown == {"finetune.momentum": optuna.distributions.FloatDistribution(0.05, 0.35, step=0.15)}


def test_populations_stay_on_the_steps(tmp_path: Path) -> None:
    space = population(search={"finetune.momentum": {"uniform": [0.1, 0.9], "step": 0.1}, "finetune.batch_size": {
        "int": [8, 64], "step": 8
    }})  # fmt: skip
    plan = begun(space, tmp_path)
    run_out(plan, lambda config: config["finetune"]["momentum"])
    samples = [sample for record in plan.folder.records() for sample in record.samples]
    assert {change for sample in samples for change in sample.attrs["pbt"]["changes"].values()} >= {"perturbed"}
    assert {repr(sample.params["finetune.momentum"]) for sample in samples} <= set(map(repr, TENTHS))
    assert {sample.params["finetune.batch_size"] for sample in samples} <= set(range(8, 65, 8))


def test_perturbing_moves_at_least_one_step() -> None:
    draw = random.Random(1)
    fine, coarse = Uniform(0.1, 0.9, step=0.1), Int(10, 100, step=10)
    assert {perturb_value(fine, 0.5, (0.8, 1.2), draw) for _ in range(50)} == {0.4, 0.6}
    assert {perturb_value(fine, 0.2, (0.9, 1.1), draw) for _ in range(50)} == {0.1, 0.3}
    assert {perturb_value(coarse, 30, (0.9, 1.1), draw) for _ in range(50)} == {20, 40}
    assert {perturb_value(coarse, 100, (0.5, 2.0), draw) for _ in range(50)} == {50, 100}
    assert {draw_value(fine, draw) for _ in range(300)} == set(TENTHS)
    assert {draw_value(coarse, draw) for _ in range(300)} == set(range(10, 101, 10))


@settings(max_examples=100, deadline=None)
@given(st.integers(-2000, 2000), st.integers(1, 500), st.integers(1, 60), st.integers(0, 6), st.data())
def test_any_range_in_steps_has_the_decimals_that_it_was_written_with(
    low: int, step: int, steps: int, digits: int, data: st.DataObject
) -> None:
    scale = 10**digits
    written = [float(Fraction(low + i * step, scale)) for i in range(steps + 1)]
    found = read_distribution({"uniform": [written[0], written[-1]], "step": step / scale}, "x")
    assert isinstance(found, Uniform)
    assert isinstance(found.grid, StepGrid)
    assert list(found.points(steps + 1)) == written
    assert read_distribution(found.document(), "x") == found
    value = data.draw(st.sampled_from(written))
    assert found.contains(value)
    distribution = found.optuna_distribution()
    assert distribution._contains(value)  # or Optuna would refuse the committed trial
    assert distribution.high == written[-1]
    inexact = low / scale + written.index(value) * (step / scale)  # as Optuna computes it
    assert found.grid.nearest(inexact) == value
    if step > 1:
        between = float(Fraction(2 * (low + written.index(value) * step) + 1, 2 * scale))
        assert not found.contains(between)
