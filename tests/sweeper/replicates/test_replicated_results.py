"""Tables, report and pictures of a sweep whose points have replicates aggregate by point."""

from __future__ import annotations

import io
import statistics
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from rich.console import Console

from sweeper.results.comparison import points_of
from sweeper.results.report import show
from sweeper.space.space import Space
from sweeper.sweep import Sweep, load
from tests.sweeper.replicates.replicated_sweeps import noisy, replicated, space_with
from tests.sweeper.sweeps import begun, fail, finish, landscape, run_out
from trials.storage.trial_folder import TrialFolder

CELLS = ("density=0.5", "density=0.2")


def ran(space: Space, path: Path, value: Any = None) -> Sweep:
    folder_of(space, path)
    plan = begun(space, path)
    run_out(plan, value or noisy(0.05))
    return load(path)


def folder_of(space: Space, path: Path) -> None:
    from sweeper.folder.sweep_folder import SweepFolder

    SweepFolder(path).append({"space": space.document()})


def printed(path: Path) -> str:
    console = Console(file=io.StringIO(), width=400)
    show(path, console)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_a_row_per_point_with_the_value_that_the_search_was_told(tmp_path: Path) -> None:
    space = space_with(5, replicates={"judge": {"name": "lower_bound", "k": 0.5}})
    sweep = ran(space, tmp_path / "s")
    points, plan = sweep.points(), begun(space, tmp_path / "s")
    assert points["missed"].dtype == "float64"  # also without constraints
    assert points[["cell", "point"]].to_numpy().tolist() == [[cell, n] for cell in CELLS for n in range(5)]
    for row in points.to_dict("records"):
        outcome = replicated(plan, row["cell"]).outcomes[row["point"]]
        assert outcome.values == (row["val_accuracy"],)
        trials = sweep.trials.set_index("trial").loc[row["trials"]]
        assert sorted(trials["seed"]) == [0, 1, 2]
        assert row["val_accuracy_std"] == pytest.approx(statistics.stdev(trials["val_accuracy"]))
        assert (row["status"], row["replicates"], row["missed"]) == ("complete", 3, 0)
        assert set(trials["finetune.lr"]) == {row["finetune.lr"]}


def test_the_best_point_is_one_row_that_stands_for_its_replicates(tmp_path: Path) -> None:
    sweep = ran(space_with(5), tmp_path / "s")
    best, points = sweep.best(), sweep.points()
    assert best["cell"].tolist() == list(CELLS)
    for row in best.to_dict("records"):
        mine = points[points["cell"] == row["cell"]].sort_values("val_accuracy").iloc[-1]
        assert row["val_accuracy"] == mine["val_accuracy"]
        assert row["val_accuracy_std"] == mine["val_accuracy_std"]
        assert row["trial"] in mine["trials"]
        assert row["replicates"] == 3
        assert pd.isna(row["seed"])
        assert row["finetune.lr"] == mine["finetune.lr"]


def test_the_summary_is_over_the_replicates_of_the_best_point(tmp_path: Path) -> None:
    sweep = ran(space_with(5), tmp_path / "s")
    for row, best in zip(sweep.summary().to_dict("records"), sweep.best().to_dict("records"), strict=True):
        assert (row["n"], row["trials"], row["done"]) == (3, 15, 15)
        assert row["val_accuracy_mean"] == pytest.approx(best["val_accuracy"])
        assert row["val_accuracy_std"] == pytest.approx(best["val_accuracy_std"])
    text = printed(tmp_path / "s")
    assert "2 cells, 2 done; 30 trials, 30 done, 0 running, 0 failed, 0 left" in text


def test_a_point_without_all_its_replicates_is_never_best(tmp_path: Path) -> None:
    space = space_with(2)
    folder_of(space, tmp_path / "s")
    plan = begun(space, tmp_path / "s")
    ids = [a.trial_id for _ in range(12) if (a := plan.next()) is not None]
    for trial in ids[:2]:  # one replicate of each cell's first point
        finish(plan, trial, lambda _: 0.99)
        plan.ended(trial)
    sweep = load(tmp_path / "s")
    assert sweep.best().empty
    assert set(sweep.points()["status"]) == {"running", "scheduled"}
    assert not sweep.summary()["n"].any()
    with pytest.raises(Exception, match="complete trials"):
        points_of(sweep)


def test_a_race_is_counted_as_it_runs(tmp_path: Path) -> None:
    space = space_with(10, "random", replicates={"race": True})
    sweep = ran(space, tmp_path / "s", noisy(0.002))
    plan = begun(space, tmp_path / "s")
    total = sum(plan.totals.values())
    assert total < 60
    standing = sweep.standing()
    assert (standing.total, standing.done, standing.left, standing.cells_done) == (total, total, 0, 2)
    points = sweep.points()
    assert set(points["status"]) == {"complete", "pruned"}
    assert (points[points["status"] == "pruned"]["replicates"] < 3).all()
    assert (points[points["status"] == "complete"]["replicates"] == 3).all()
    dropped = sweep.trials[sweep.trials["dropped"].notna()]
    assert len(dropped) == (points["status"] == "pruned").sum()
    assert set(dropped["dropped"]) == {"race"}
    for cell in CELLS:
        states = [point.outcome.state.name for point in replicated(plan, cell).points.values() if point.outcome]
        mine = points[points["cell"] == cell]["status"].str.upper().tolist()
        assert mine == states


def test_a_failed_replicate_leaves_the_others_out_of_the_count(tmp_path: Path) -> None:
    space = space_with(2, retries=0)
    folder_of(space, tmp_path / "s")
    plan = begun(space, tmp_path / "s")
    first = plan.next()
    assert first is not None
    fail(plan, first.trial_id)
    plan.ended(first.trial_id)
    run_out(plan)
    standing = load(tmp_path / "s").standing()
    assert (standing.total, standing.done, standing.failed, standing.left, standing.cells_done) == (10, 9, 1, 0, 2)
    assert set(load(tmp_path / "s").points()["status"]) == {"failed", "complete"}


def test_confirmations_are_those_of_the_best_point(tmp_path: Path) -> None:
    space = space_with(4, confirm={"seed": [7, 8]})
    sweep = ran(space, tmp_path / "s", lambda config: noisy(0.1)(config) - (config["seed"] > 6))
    for row in sweep.summary().to_dict("records"):
        assert row["n"] == 2
        assert row["confirmed"] == "2/2"
        assert row["val_accuracy_mean"] < row["searched"] - 0.5
    points = sweep.points()
    for row in sweep.best().to_dict("records"):
        assert row["val_accuracy"] == points[points["cell"] == row["cell"]]["val_accuracy"].max()
    assert sweep.standing().complete


def test_a_front_is_of_points(tmp_path: Path) -> None:
    from sweeper.results.pareto import pareto_front
    from sweeper.results.stored_space import stored_space

    objectives = [
        {"column": "val_accuracy", "direction": "maximize"},
        {"column": "seconds", "direction": "minimize"},
    ]
    space = space_with(4, objectives=objectives)
    folder_of(space, tmp_path / "s")
    plan = begun(space, tmp_path / "s")
    while (assignment := plan.next()) is not None:
        config = next(r.content for r in plan.folder.records() if r.id == assignment.trial_id)
        attempt, _ = TrialFolder(plan.folder.trial_folder(assignment.trial_id)).begin()
        attempt.end("complete", result={"val_accuracy": noisy(0.1)(config)})
        plan.ended(assignment.trial_id)
    sweep = load(tmp_path / "s")
    stored = stored_space(sweep)
    assert stored is not None
    front = pareto_front(sweep, stored.objectives, stored.constraints, stored.search, stored.replicates)
    points = sweep.points()
    for row in front.to_dict("records"):
        (mine,) = [p for p in points.to_dict("records") if row["trial"] in p["trials"]]
        assert (mine["val_accuracy"], mine["seconds"]) == (row["val_accuracy"], row["seconds"])
    assert "Pareto front" in printed(tmp_path / "s")


def test_without_replicates_a_point_is_a_trial(tmp_path: Path) -> None:
    from tests.sweeper.sweeps import searching

    sweep = ran(searching("random", 3), tmp_path / "s", landscape)
    points = sweep.points()
    assert len(points) == len(sweep.trials) == 6
    assert [len(trials) for trials in points["trials"]] == [1] * 6
    by_trial = sweep.trials.set_index("trial")["val_accuracy"]
    assert all(row["val_accuracy"] == by_trial[row["trials"][0]] for row in points.to_dict("records"))
