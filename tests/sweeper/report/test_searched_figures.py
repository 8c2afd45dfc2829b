"""What a search has tried, as slices, parallel coordinates and importances of hyperparameters."""

from __future__ import annotations

import math
import random
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from sweeper.report.elements import importances
from sweeper.report.elements.importances import affordable, importances_in
from sweeper.report.elements.scales import axis_of, round_values
from sweeper.report.elements.searched import searched
from sweeper.report.figures import importance, parallel_coordinates, slices
from sweeper.report.gathered import Gathered
from sweeper.report.saved import picture
from sweeper.report.sections import state
from sweeper.space.grid.conditions import read_when
from sweeper.space.options.constraints import Constraint
from sweeper.space.options.objectives import Objective
from tests.sweeper.report.drawn import compiled, options_of, points_of_pdf, scene, texts_in
from tests.sweeper.report.made import ACCURACY, NASTY, made
from tests.sweeper.report.made_sweeps import made as made_sweep_of
from trials.errors import UserError

SEARCH: dict[str, Any] = {"lr": {"loguniform": [1e-4, 1.0]}, "momentum": {"uniform": [0.0, 0.9]},
                          "kind": {"choice": ["sgd", "adam"]}}  # fmt: skip


def point(density: float, number: int, accuracy: float | None, **params: Any) -> dict[str, Any]:
    given = {"lr": 0.1, "momentum": 0.5, "kind": "sgd", **params}
    return {"config.density": density, "val_accuracy": accuracy, "number": number, **given}


def many(cells: int, points: int, **more: Any) -> Gathered:
    """Points whose objective depends on ``lr`` alone."""
    draw = random.Random(0)
    trials = []
    for cell in range(cells):
        for number in range(points):
            lr = 10 ** draw.uniform(-4, 0)
            params = {"lr": lr, "momentum": draw.uniform(0, 0.9), "kind": draw.choice(["sgd", "adam"])}
            trials.append(point((cell + 1) / 100, number, 0.9 - 0.1 * abs(math.log10(lr / 0.01)), **params))
    return made(trials, search=SEARCH, **more)


def two_cells() -> Gathered:
    trials = [
        point(0.5, 0, 0.7, lr=0.001),
        point(0.5, 1, 0.9, lr=0.01, kind="adam"),
        {**point(0.5, 2, None, lr=0.5), "status": "pruned"},
        {**point(0.5, 3, None, lr=0.9), "status": "failed"},
        {**point(0.5, 4, None, lr=0.2), "status": "running"},
        point(0.1, 0, 0.4, lr=0.05),
    ]
    return made(trials, search=SEARCH)


def test_slices_of_very_many_points_say_how_many_are_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    every = slices.draw(two_cells())
    monkeypatch.setattr(slices, "MOST_ROWS", len(every.rows) // 2)
    figure = slices.draw(two_cells())
    points = [len(rows.drop_duplicates(["cell", "point"])) for rows in (figure.rows, every.rows)]
    assert 0 < points[0] < points[1]
    said = f"{points[0]} of {points[1]} points are shown, the best one and evenly chosen others of each cell"
    assert figure.notes[-1] == f"{said}; the table trials has all"
    best = [rows[rows["best"]].reset_index(drop=True) for rows in (figure.rows, every.rows)]
    pd.testing.assert_frame_equal(*best)


def test_slices_hold_every_point_that_is_over() -> None:
    figure = slices.draw(two_cells())
    rows = figure.rows[(figure.rows["hyperparameter"] == "lr") & (figure.rows["cell"] == "density=0.5")]
    assert rows["number"].tolist() == [0.001, 0.01, 0.5, 0.9]
    assert rows["value"].tolist()[:2] == [70.0, 90.0]
    assert rows["value"].isna().tolist() == [False, False, True, True]
    assert rows["kind"].tolist() == ["complete", "complete", "pruned", "failed"]
    assert rows["best"].tolist() == [False, True, False, False]
    assert figure.notes == ("1 points are not over and not shown",)
    assert "Best of density=0.5: 90 at lr=0.01, momentum=0.5, kind=adam" in figure.text
    panels = {view["encoding"]["x"]["title"]: view["encoding"]["x"] for view in figure.spec["vconcat"]}
    assert panels["lr"]["scale"]["type"] == "log"
    assert panels["momentum"]["scale"].get("type", "linear") == "linear"
    assert panels["kind"]["type"] == "nominal"
    assert options_of(figure, "cell_shown") == ["density=0.5", "density=0.1"]
    compiled(figure)
    with pytest.raises(UserError, match=r"cell is 'density=0\.3'"):
        slices.draw(two_cells(), "density=0.3")


def test_points_outside_their_bounds_are_hollow_and_never_the_best() -> None:
    trials = [{**point(0.5, 0, 0.9), "flops": 10}, {**point(0.5, 1, 0.5), "flops": 1}]
    bounded = made(trials, search=SEARCH, constraints=[Constraint(column="flops", at_most=5)])
    rows = slices.draw(bounded).rows
    rows = rows[rows["hyperparameter"] == "lr"]
    assert rows["feasible"].tolist() == [False, True]
    assert rows["best"].tolist() == [False, True]
    assert "Best val accuracy [%]: 50 in density=0.5" in parallel_coordinates.draw(bounded).text
    outside = made(trials, search=SEARCH, constraints=[Constraint(column="flops", at_most=0)])
    assert "None of them keeps its bounds" in parallel_coordinates.draw(outside).text


def test_the_best_of_a_population_is_of_its_last_generation() -> None:
    """A member of an earlier generation went on to something worse, and is not what the cell came to."""
    ends = [(2, 0.9), (2, 0.6), (4, 0.8), (4, 0.7)]
    trials = [{**point(0.5, number, value), "until_epoch": end} for number, (end, value) in enumerate(ends)]
    trials.append({**point(0.5, 4, None), "until_epoch": 6, "status": "running"})
    sweep = made(trials, search=SEARCH)
    rows = slices.draw(sweep).rows.query("hyperparameter == 'lr'")
    assert rows["best"].tolist() == [False, False, True, False]
    assert "Best val accuracy [%]: 80 in" in parallel_coordinates.draw(sweep).text
    assert [cell.best.first["number"] for cell in sweep.cells if cell.best] == [2]


def test_a_condition_that_does_not_hold_leaves_a_gap() -> None:
    trials = [
        point(0.5, 0, 0.7, kind="adam", momentum=0.9),  # 0.9 is the default that its config has
        point(0.5, 1, 0.9, kind="sgd", momentum=0.3),
    ]
    only_sgd = {"momentum": (read_when({"kind": "sgd"}, "when"),)}
    sweep = made(trials, search=SEARCH, conditions=only_sgd)
    assert [point.params.get("momentum") for point in searched(sweep).points] == [None, 0.3]
    rows = parallel_coordinates.draw(sweep).rows
    gap = rows[(rows["kind"] == "line") & (rows["axis"] == "momentum")]
    assert sorted(gap["place"].isna().tolist()) == [False, True]
    assert slices.draw(sweep).rows.query("hyperparameter == 'momentum'")["number"].tolist() == [0.3]


def test_parallel_coordinates_place_values_on_axes_in_true_units() -> None:
    figure = parallel_coordinates.draw(two_cells())
    lines = figure.rows[~figure.rows["kind"].str.startswith("tick")]
    axes = lines[lines["kind"] == "axis"]["axis"].tolist()
    assert axes == ["density", "lr", "momentum", "kind", "val accuracy [%]"]
    lr = lines[(lines["axis"] == "lr") & (lines["kind"] != "axis")].set_index("value")["place"]
    low, high = math.log(0.001), math.log(0.9)
    assert lr["0.01"] == pytest.approx((math.log(0.01) - low) / (high - low), abs=1e-4)
    assert (lr["0.001"], lr["0.9"]) == (0, 1)
    assert set(lines["kind"]) == {"axis", "line", "pruned", "failed"}
    accuracy = lines[(lines["axis"] == axes[-1]) & (lines["kind"] == "line")].set_index("value")["place"]
    assert accuracy.to_dict() == {"70": 0.6, "90": 1.0, "40": 0.0}
    assert lines[lines["kind"] == "line"]["line"].iloc[-1] == lines["line"].max()  # the best is drawn last
    assert options_of(figure, "cell_shown") == ["all cells", "density=0.5", "density=0.1"]
    compiled(figure)


def test_a_thousand_points_are_drawn_and_more_are_thinned_aloud() -> None:
    start = time.monotonic()
    figure = parallel_coordinates.draw(many(13, 100))
    assert time.monotonic() - start < 5
    assert figure.rows["line"].nunique() == 1000
    assert figure.notes == ("1000 of 1300 points are drawn, evenly chosen by val_accuracy",)
    assert figure.canvas
    lines = figure.rows[figure.rows["kind"] == "line"]
    accuracies = lines.loc[lines["axis"] == "val accuracy [%]", "place"]
    assert (accuracies.min(), accuracies.max()) == (0, 1)  # worst and best included


def test_a_minimised_objective_has_the_importances_of_its_negative() -> None:
    up = many(1, 40)
    down = replace(
        up,
        sweep=replace(up.sweep, trials=up.sweep.trials.assign(val_accuracy=-up.sweep.trials["val_accuracy"])),
        space=replace(up.space, objectives=(Objective(column="val_accuracy", direction="minimize"),)),
    )
    shares = [importances_in(searched(one), "density=0.01", "val_accuracy", "ped_anova").shares for one in (up, down)]
    assert shares[0] == pytest.approx(shares[1])
    assert len(set(shares[0].values())) > 1


def test_several_objectives_are_chosen() -> None:
    objectives = [ACCURACY, Objective(column="flops", direction="minimize")]
    trials = [{**point(0.5, n, 0.5 + n / 100, lr=10.0 ** -(n % 4 + 1)), "flops": n % 4} for n in range(12)]
    sweep = made(trials, search=SEARCH, objectives=objectives)
    for draw, parameter, names in (
        (slices.draw, "objective_shown", ["val accuracy [%]", "flops"]),
        (parallel_coordinates.draw, "colour_by", ["val accuracy [%]", "flops"]),
        (importance.draw, "objective_shown", ["val_accuracy", "flops"]),
    ):
        figure = draw(sweep)
        assert options_of(figure, parameter) == names
        compiled(figure)
    best = slices.draw(sweep).rows.query("hyperparameter == 'lr' and best").set_index("objective")["point"]
    assert best["val accuracy [%]"] == 11
    assert best["flops"] == 0
    coloured = parallel_coordinates.draw(sweep, objective="flops")
    assert next(p for p in coloured.spec["params"] if p["name"] == "colour_by")["value"] == "flops"
    with pytest.raises(UserError, match="objective is 'loss'"):
        parallel_coordinates.draw(sweep, objective="loss")


def test_importance_names_what_the_objective_depends_on() -> None:
    sweep = many(2, 24)
    figure = importance.draw(sweep)
    table = figure.rows.pivot(index="cell", columns="hyperparameter", values="importance_percent")
    assert (table["lr"] > 70).all()
    assert table.sum(axis=1).tolist() == pytest.approx([100, 100])
    assert figure.notes == ("Optuna's fANOVA (64 trees, seed 0) on 24 complete points per cell",)
    compiled(figure)
    other = importance.draw(sweep, "ped_anova")
    assert (other.rows.query("hyperparameter == 'lr'")["importance_percent"] > 50).all()
    assert "PED-ANOVA" in other.notes[0]
    with pytest.raises(UserError, match="evaluator is 'forest'"):
        importance.draw(sweep, "forest")


@pytest.mark.parametrize("evaluator", ["fanova", "ped_anova"])
def test_importances_are_those_of_a_study_with_the_ranges_of_the_space(evaluator: str) -> None:
    """Failed and pruned points do not count; points that the space does not hold any more span a range of their own."""
    optuna = pytest.importorskip("optuna")
    search = {"lr": {"loguniform": [1e-6, 1.0]}, "depth": {"choice": [16, 32, 64]}, "kind": {"choice": ["sgd", "adam"]}}
    draw = random.Random(1)
    trials, study = [], optuna.create_study(direction="minimize")
    ranges = {
        "lr": optuna.distributions.FloatDistribution(1e-6, 1.0, log=True),
        "depth": optuna.distributions.CategoricalDistribution([16, 32, 64]),
        "kind": optuna.distributions.CategoricalDistribution(["sgd", "adam"]),
    }
    for number in range(20):
        params = {
            "lr": 10 ** draw.uniform(-3, -1),
            "depth": draw.choice([16, 32, 64]),
            "kind": draw.choice(["sgd", "adam"]),
        }
        loss = abs(math.log10(params["lr"]) + 2) + params["depth"] / 100 + draw.random() / 10
        trials.append({"config.density": 0.5, "number": number, "val_loss": loss, **params})
        study.add_trial(optuna.create_trial(params=params, distributions=ranges, value=loss))
    over = [{**trials[0], "number": 20 + n, "val_loss": None, "status": s} for n, s in enumerate(["failed", "pruned"])]
    least = Objective(column="val_loss", direction="minimize")
    shares = importance.draw(made([*trials, *over], search=search, objectives=[least]), evaluator).rows
    judge = optuna.importance.FanovaImportanceEvaluator(seed=0)
    judge = judge if evaluator == "fanova" else optuna.importance.PedAnovaImportanceEvaluator()
    expected = optuna.importance.get_param_importances(study, evaluator=judge)
    found = dict(zip(shares["hyperparameter"], shares["importance_percent"] / 100, strict=True))
    assert found == pytest.approx(expected)
    narrower = {**search, "lr": {"loguniform": [0.01, 1.0]}, "kind": {"choice": ["sgd"]}}
    assert len(importance.draw(made(trials, search=narrower, objectives=[least]), evaluator).rows) == 3


def test_cells_without_enough_points_are_left_out_with_their_reason() -> None:
    sweep = many(1, 12)
    few = [point(0.9, number, 0.5 + number / 100, lr=0.1 * number + 0.1) for number in range(3)]
    same = [point(0.8, number, 0.5, lr=0.1 * number + 0.1) for number in range(8)]
    fixed = [point(0.7, number, number / 10) for number in range(8)]
    rows = [*sweep.sweep.trials.to_dict("records"), *few, *same, *fixed]
    trials = [{k: v for k, v in row.items() if k not in ("trial", "cell")} for row in rows]
    figure = importance.draw(made(trials, search=SEARCH))
    assert set(figure.rows["cell"]) == {"density=0.01"}
    (said,) = (note for note in figure.notes if note.startswith("cells left out"))
    assert "density=0.9 (3 complete points, 8 needed)" in said
    assert "density=0.8 (val_accuracy is the same in all points)" in said
    assert "density=0.7 (no hyperparameter has two values in all points)" in said
    with pytest.raises(UserError, match=r"could be compared: density=0\.9 "):
        importance.draw(made(few, search=SEARCH))


def test_importances_of_equal_points_are_computed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    importances._importances.cache_clear()
    sweep = many(1, 10)
    first = importance.draw(sweep).rows["importance_percent"].tolist()
    monkeypatch.setattr(importances, "_study", lambda *_: pytest.fail("computed again"))
    assert importance.draw(many(1, 10)).rows["importance_percent"].tolist() == first
    with pytest.raises(pytest.fail.Exception):
        importance.draw(many(1, 11))


def test_the_evaluator_is_one_that_is_affordable() -> None:
    assert affordable([16] * 60, 6) == "fanova"
    assert affordable([16] * 60, 12) == "ped_anova"
    assert affordable([101], 1) == "ped_anova"
    found = searched(many(1, 40))
    shares = importances_in(found, "density=0.01", "val_accuracy", "ped_anova").shares
    assert max(shares, key=lambda path: shares[path]) == "lr"


def test_names_that_need_escaping_are_drawn() -> None:
    trials = [
        {"config.density": 0.5, "val_accuracy": n / 10, "number": n, "cell": f"cell {NASTY} {n % 2}",
         f"pruner.{NASTY}": 0.1 * n}
        for n in range(8)
    ]  # fmt: skip
    sweep = made(trials, search={f"pruner.{NASTY}": {"uniform": [0, 1]}})
    for draw in (slices.draw, parallel_coordinates.draw):
        figure = draw(sweep)
        assert any(NASTY in str(value) for value in figure.rows.to_numpy().ravel())
        compiled(figure)


@pytest.mark.parametrize("draw", [slices.draw, parallel_coordinates.draw, importance.draw])
def test_nothing_to_show_is_said(draw: Any) -> None:
    running = [{**point(0.5, 0, None), "status": "running"}]
    failed = [{**point(0.5, n, None), "status": "failed"} for n in range(9)]
    for sweep in (made([point(0.5, 0, 0.5)]), made([], search=SEARCH), made(running, search=SEARCH)):
        with pytest.raises(UserError, match="made ") as refused:
            draw(sweep)
        assert "\n" not in str(refused.value)
    if draw is not importance.draw:
        figure = draw(made(failed, search=SEARCH))  # points that failed have their values
        assert (figure.rows["kind"].isin(["failed", "axis", "tick0"])).all()
        compiled(figure)


def test_axes_have_round_ticks() -> None:
    assert round_values(0.0, 1.0, log=False) == pytest.approx([0, 0.2, 0.4, 0.6, 0.8, 1.0])
    assert round_values(1e-5, 1e-1, log=True) == pytest.approx([1e-5, 1e-4, 1e-3, 1e-2, 1e-1])
    assert round_values(0.011, 0.013, log=True) == [0.011, 0.013]
    assert round_values(3.0, 3.0, log=False) == [3.0]
    assert axis_of("x", [3, 3], log=True).place(3) == 0.5
    assert axis_of("x", [True, "auto", False], log=False).ticks() == [(0, "False"), (0.5, "True"), (1, "auto")]


REPLICATES = {"values": {"seed": [0, 1]}, "judge": "mean"}
GRID = {"method": ["imp"], "density": [0.1]}


@pytest.mark.parametrize(
    ("fields", "numbers", "confirms", "best"),
    [
        ({"grid": {**GRID, "seed": [0, 1]}}, [0, 0], [None, None], "90.00 %"),  # each seed is a cell
        ({"grid": GRID, "replicates": REPLICATES}, [0, 0], [None, None], "80.00 %"),
        ({"grid": GRID, "confirm": {"seed": [1]}}, [0, 0], [None, "imp-000000000000"], "90.00 %"),
        ({"grid": GRID}, [0, 1], [None, None], "90.00 %"),
    ],
)
def test_the_best_of_any_cell_is_the_value_of_a_cell_and_not_of_one_of_its_seeds(
    tmp_path: Path, fields: dict[str, Any], numbers: list[int], confirms: list[str | None], best: str
) -> None:
    gathered = made_sweep_of(tmp_path / "made", methods=["imp"], densities=[0.1], samples=1, **fields)
    trials = gathered.sweep.trials.assign(val_accuracy=[0.7, 0.9], number=numbers, confirms=confirms)
    changed = replace(gathered, sweep=replace(gathered.sweep, trials=trials))
    assert dict(state(changed)["cards"])["best val accuracy of any cell"] == best


def test_a_picture_names_the_cell_that_it_shows_and_keeps_its_width() -> None:
    found = many(2, 3)
    assert "density=0.02" in texts_in(scene(slices.draw(found, cell="density=0.02")))
    assert "density=0.02" in texts_in(scene(parallel_coordinates.draw(found, cell="density=0.02")))
    figure = slices.draw(found)
    params = [{**one, "value": 60 * "long"} if one["name"] == "cell_shown" else one for one in figure.spec["params"]]
    named = replace(figure, spec={**figure.spec, "params": params})
    assert points_of_pdf(picture(named, ".pdf", width_pt=234))[0] == pytest.approx(234, abs=0.6)


def test_all_categories_of_an_axis_are_named_and_long_names_take_turns() -> None:
    names = [f"a_rather_long_method_{n}" for n in range(12)]
    axis = axis_of("method", names, log=False)
    assert len(axis.ticks()) == 12
    kinds = [{**point(0.5, n, 0.5, kind=name)} for n, name in enumerate(names)]
    rows = parallel_coordinates.draw(made(kinds, search={**SEARCH, "kind": {"choice": names}})).rows
    assert {"tick0", "tick1", "tick2"} == set(rows["kind"][rows["value"].isin(names) & (rows["kind"] != "line")])
