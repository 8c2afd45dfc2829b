"""Accuracy over cost, and objectives against each other: which points are on the front, and which axes there are."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from sweeper.report.figures import draw_figure, objective_fronts, pareto_front
from sweeper.report.gathered import Gathered
from sweeper.space.options.objectives import Objective
from tests.sweeper.report.drawn import compiled, marks, points_in_scene, scene, texts_in
from tests.sweeper.report.made_sweeps import made
from trials.errors import UserError


def single(folder: Path, **columns: Any) -> Gathered:
    """Four cells of one trial: imp and bip, each at density 0.5 and 0.1; ``columns`` of their trials."""
    gathered = made(folder, seeds=1, samples=1)
    return replace(gathered, sweep=replace(gathered.sweep, trials=gathered.sweep.trials.assign(**columns)))


def test_the_front_is_of_the_points_that_nothing_beats(tmp_path: Path) -> None:
    gathered = single(tmp_path / "s", test_accuracy=[0.9, 0.8, 0.85, 0.8], flops=[100, 20, 100, 10])
    rows = pareto_front.draw(gathered).rows.set_index(["series", "asked"])
    assert rows["front_flops"].to_dict() == {
        ("imp", "density=0.5"): True,
        ("imp", "density=0.1"): False,
        ("bip", "density=0.5"): False,
        ("bip", "density=0.1"): True,
    }
    assert rows["accuracy_percent"].tolist() == pytest.approx([85, 80, 90, 80])


def test_data_sets_have_fronts_of_their_own(tmp_path: Path) -> None:
    grid = {"method": ["imp", "bip"], "dataset": ["digits", "cifar10"], "density": [0.5, 0.1], "seed": [0]}
    gathered = made(tmp_path / "s", seeds=1, samples=1, grid=grid)
    trials = gathered.sweep.trials.assign(
        dataset=["digits", "digits", "cifar10", "cifar10"], test_accuracy=[0.9, 0.8, 0.7, 0.6], flops=[9, 1, 90, 10]
    )
    rows = pareto_front.draw(replace(gathered, sweep=replace(gathered.sweep, trials=trials))).rows
    assert rows["front_flops"].tolist() == [True] * 4


def test_the_front_is_that_of_the_axis_and_holds_until_the_next_cost(tmp_path: Path) -> None:
    gathered = single(
        tmp_path / "s", test_accuracy=[0.9, 0.8, 0.85, 0.7], flops=[100, 20, 100, 10], parameters=[1, 2, 3, 4]
    )
    for x, on_front in (("flops", 3), ("parameters", 1)):
        drawn = scene(pareto_front.draw(gathered, x=x))
        assert [item["size"] for item in points_in_scene(drawn)].count(90) == on_front
        assert {item["interpolate"] for item in marks(drawn, "line") if "interpolate" in item} == {"step-after"}


def test_axes_are_those_that_trials_have(tmp_path: Path) -> None:
    gathered = single(tmp_path / "s")
    assert [name for name in pareto_front.draw(gathered).rows if name.startswith("front_")] == [
        "front_flops", "front_parameters",
    ]  # fmt: skip
    with pytest.raises(
        UserError, match=r"no best trial of s has latency_ms_1: set trial\.measure_latency to true; known"
    ):
        pareto_front.draw(gathered, x="latency_ms_1")
    with pytest.raises(UserError, match="x is 'latency', but must be one of"):
        pareto_front.draw(gathered, x="latency")
    latency = [1.0, 2.0, None, 4.0]
    figure = pareto_front.draw(single(tmp_path / "l", latency_ms_1=latency), x="latency_ms_1")
    assert any("1 of 4 points have no latency of 1 image" in note for note in figure.notes)
    compiled(figure)
    drawn = scene(figure)
    assert "latency of 1 image [ms], measured" in texts_in(drawn)
    assert len(points_in_scene(drawn)) == 3
    choice = next(param for param in figure.spec["params"] if param["name"] == "x_axis")
    assert choice["bind"]["options"] == ["flops", "parameters", "latency_ms_1"]


def test_a_mean_over_seeds_needs_every_seed(tmp_path: Path) -> None:
    gathered = made(tmp_path / "s", methods=["imp"], densities=[0.5], samples=1)
    trials = gathered.sweep.trials.assign(latency_ms_1=[1.0, None], latency_ms_128=[1.0, 3.0])
    rows = pareto_front.draw(replace(gathered, sweep=replace(gathered.sweep, trials=trials))).rows
    assert "latency_ms_1" not in rows
    assert rows["latency_ms_128"].tolist() == [2.0]


def test_points_without_an_accuracy_are_said_to_be_missing(tmp_path: Path) -> None:
    """The first two of six trials have no test accuracy: n counts the others."""
    gathered = made(tmp_path / "s", methods=["imp"], densities=[0.5, 0.2, 0.1], samples=1)
    known = gathered.sweep.trials["test_accuracy"].where(gathered.sweep.trials.index > 2)
    gathered = replace(
        gathered, sweep=replace(gathered.sweep, trials=gathered.sweep.trials.assign(test_accuracy=known))
    )
    for name, said in (
        ("accuracy_density", "not drawn, since they have no accuracy: all trials method=imp, density=0.5"),
        ("pareto_front", "not drawn: 1 of 3 points have no accuracy"),
    ):
        figure = draw_figure(name, gathered)
        assert figure.rows["n"].dropna().tolist() == [0, 1, 2]
        assert said in figure.notes
        assert "nan" not in figure.text


def test_latencies_of_several_machines_are_said_to_be_incomparable(tmp_path: Path) -> None:
    one = single(tmp_path / "s", latency_ms_1=1.0)
    assert not any("not comparable" in note for note in pareto_front.draw(one).notes)
    two = single(tmp_path / "t", latency_ms_1=1.0, host=["a", "a", "a", "b"])
    assert any("latencies are not comparable: they come from 2 machines" in n for n in pareto_front.draw(two).notes)


@pytest.mark.parametrize(("flops", "kind"), [([100, 100, 90, 99], "linear"), ([1000, 10, 1000, 10], "log")])
def test_the_axis_is_logarithmic_where_costs_spread(tmp_path: Path, flops: list[int], kind: str) -> None:
    scales = compiled(pareto_front.draw(single(tmp_path / "s", flops=flops, parameters=5)))["scales"]
    assert next(scale["type"] for scale in scales if scale["name"] == "x") == kind


@pytest.mark.parametrize("draw", [pareto_front.draw, objective_fronts.draw])
def test_a_sweep_without_a_complete_trial_has_no_front(tmp_path: Path, draw: Any) -> None:
    with pytest.raises(UserError):
        draw(made(tmp_path / "s", status=lambda _: "failed"))


def test_every_level_is_a_point_with_the_costs_of_its_network(tmp_path: Path) -> None:
    """A level has no latency of its own: that of the last network is not its."""
    gathered = made(tmp_path / "s", methods=["imp"], densities=[0.1], seeds=1, samples=1)
    sweep = replace(gathered.sweep, trials=gathered.sweep.trials.assign(flops=10, latency_ms_1=3.0))
    own = sweep.epochs["stage"] != "pretrain"
    last = sweep.epochs[own].assign(test_accuracy=0.5)
    levels = [last.assign(level=n, flops=100 / n, test_accuracy=accuracy) for n, accuracy in ((1, 0.6), (2, 0.7))]
    epochs = pd.concat([sweep.epochs[~own], *levels, last.assign(level=3)])
    changed = replace(gathered, sweep=replace(sweep, epochs=epochs))
    rows = pareto_front.draw(changed).rows.sort_values("flops")
    assert rows["flops"].tolist() == [10, 50, 100]
    assert rows["level"].fillna(0).tolist() == [0, 2, 1]
    assert rows["accuracy_percent"].tolist()[1:] == pytest.approx([70, 60])
    assert rows["latency_ms_1"].fillna(-1).tolist() == [3.0, -1, -1]
    assert not rows["front_flops"].tolist()[2], "level 1 costs more than level 2 and is no better"


# --- several objectives


def with_two_objectives(folder: Path) -> Gathered:
    gathered = made(folder, methods=["imp"], densities=[0.5, 0.1], seeds=1, samples=3)
    trials = gathered.sweep.trials.assign(
        val_accuracy=[0.9, 0.8, 0.7, 0.9, 0.9, 0.5], flops=[30, 20, 25, 10, 5, 5], density=0.5
    )
    objectives = (*gathered.space.objectives, Objective(column="flops", direction="minimize"))
    space = replace(gathered.space, objectives=objectives)
    return replace(gathered, sweep=replace(gathered.sweep, trials=trials), space=space)


def test_each_cell_has_a_front_of_its_own(tmp_path: Path) -> None:
    gathered = with_two_objectives(tmp_path / "s")
    figure = objective_fronts.draw(gathered)
    compiled(figure)
    assert figure.rows["front"].tolist() == [True, True, False, False, True, False]
    assert figure.rows["val accuracy [%]"].tolist() == pytest.approx([90, 80, 70, 90, 90, 50])
    places = {(round(one["x"]), round(one["y"])) for one in points_in_scene(scene(figure))}
    assert len(places) == 6, "every point has a place of its own on both axes"
    cell = figure.rows["cell"].iloc[0]
    assert set(draw_figure("objective_fronts", gathered, {"cell": [cell]}).rows["cell"]) == {cell}
    with pytest.raises(UserError, match="cell is 'x'"):
        objective_fronts.draw(gathered, cell="x")


def test_a_confirmation_is_no_point_of_its_cell(tmp_path: Path) -> None:
    gathered = with_two_objectives(tmp_path / "s")
    trials = gathered.sweep.trials
    trials = trials.assign(confirms=[None, None, trials["trial"][0], None, None, None])
    rows = objective_fronts.draw(replace(gathered, sweep=replace(gathered.sweep, trials=trials))).rows
    assert rows["trial"].tolist() == trials["trial"].drop(2).tolist()


def test_one_objective_makes_no_front(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"s has one objective \(val_accuracy\)"):
        objective_fronts.draw(made(tmp_path / "s"))
