"""A sweep's cells as Optuna studies: what Optuna's own functions see is what is committed."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest
from optuna.trial import TrialState

import sweeper
from sweeper.folder.sweep_folder import SweepFolder
from sweeper.search.plan import Plan
from sweeper.space.space import Space
from tests.sweeper.confirm.confirmed_sweeps import accuracy, space_with
from tests.sweeper.populations import population
from tests.sweeper.pruned import KINDS, Drivers, space_of
from tests.sweeper.sweeps import ONE_SHOT, begun, fail, finish, landscape, make_space, run_out, searching
from trials.errors import UserError


def started(space: Space, path: Path) -> Plan:
    plan = begun(space, path)
    plan.folder.append({"space": space.document()})
    return plan


def loaded(plan: Plan) -> sweeper.Sweep:
    return sweeper.Sweep.begun(plan.folder.path)


def test_importances_are_those_of_the_committed_trials(tmp_path: Path) -> None:
    plan = started(searching("random", 24), tmp_path)
    run_out(plan, lambda config: -abs(config["finetune"]["momentum"] - 0.5))
    study = loaded(plan).study("density=0.2")
    importances = optuna.importance.get_param_importances(study)
    assert max(importances, key=lambda path: importances[path]) == "finetune.momentum"
    records = {record.id: record for record in plan.folder.records()}
    assert study.study_name == "density=0.2"
    assert study.metric_names == ["val_accuracy"]
    assert [trial.user_attrs["sample"] for trial in study.trials] == list(range(24))
    for trial in study.trials:
        record = records[trial.user_attrs["trial"]]
        (sample,) = record.samples
        assert trial.params == sample.params
        assert trial.value == record.state.result["val_accuracy"]  # type: ignore[union-attr]
        assert trial.user_attrs["density"] == 0.2
        assert trial.user_attrs["val_accuracy"] == trial.value
    assert study.best_trial.value == max(trial.value for trial in study.trials)
    assert set(study.best_trial.distributions) == {"finetune.lr", "finetune.momentum"}
    assert study.trials[0].distributions["finetune.momentum"] == optuna.distributions.FloatDistribution(0.0, 0.95)


def test_states_times_and_constraints(tmp_path: Path) -> None:
    bounds = [{"column": "flops", "at_most": 1}]
    plan = started(searching("random", 5, grid={"density": [0.5]}, retries=0, constraints=bounds), tmp_path)
    first, second, third = (assignment.trial_id for assignment in (plan.next() for _ in range(3)) if assignment)
    fail(plan, first)
    attempt, _ = plan._records[second].folder.begin()
    attempt.end("complete", result={"val_accuracy": 0.5, "flops": 3})
    plan._records[third].folder.begin()
    plan.next()
    study = loaded(plan).study()
    assert [trial.state.name for trial in study.trials] == ["FAIL", "COMPLETE", "RUNNING", "WAITING"]
    assert study.trials[1].constraints == {"flops<=": 2.0}
    assert [trial.user_attrs["trial"] for trial in study.trials[:3]] == [first, second, third]
    state = next(record.state for record in plan.folder.records() if record.id == second)
    assert state is not None
    done = study.trials[1].datetime_complete
    assert done is not None
    assert done.astimezone(UTC) == datetime.fromisoformat(state.ended)


def test_curves_and_stopped_trials_are_those_that_the_pruner_saw(tmp_path: Path) -> None:
    drivers = Drivers(space_of(KINDS["halving"]), tmp_path).go()
    drivers.plan.folder.append({"space": drivers.space.document()})
    states = set()
    for cell, search in drivers.plan._searches.items():
        study = loaded(drivers.plan).study(cell)
        for mine, copied in zip(search.study.trials, study.trials, strict=True):
            assert (copied.state, copied.params, copied.values) == (mine.state, mine.params, mine.values)
            assert copied.intermediate_values == mine.intermediate_values
        states |= {trial.state for trial in study.trials}
    assert states == {TrialState.COMPLETE, TrialState.PRUNED}


def test_a_sweep_without_a_pruner_has_curves_too(tmp_path: Path) -> None:
    plan = started(searching("random", 1, grid={"density": [0.5]}), tmp_path)
    assignment = plan.next()
    assert assignment is not None
    attempt, _ = plan._records[assignment.trial_id].folder.begin()
    rows = [
        {"stage": stage, "level": 0, "epoch": epoch, "stage_id": None, "val_accuracy": value}
        for stage, epoch, value in (("prune", 0, 0.1), ("finetune", 0, 0.2), ("finetune", 1, 0.4), ("finetune", 2, 0.3))
    ]
    attempt.commit(checkpoint={}, rows={"epochs": rows}, progress={}, seconds=0.0)
    attempt.end("complete", result={"val_accuracy": 0.3})
    (trial,) = loaded(plan).study().trials
    assert trial.intermediate_values == {1: 0.4, 2: 0.3}


def test_several_objectives_have_a_front(tmp_path: Path) -> None:
    objectives = [{"column": "val_accuracy", "direction": "maximize"}, {"column": "flops", "direction": "minimize"}]
    plan = started(searching("random", 2, grid={"density": [0.5]}, objectives=objectives), tmp_path)
    for result in ({"val_accuracy": 0.5, "flops": 3}, {"val_accuracy": 0.4, "flops": 2}):
        assignment = plan.next()
        assert assignment is not None
        plan._records[assignment.trial_id].folder.begin()[0].end("complete", result=result)
    study = loaded(plan).study()
    assert study.metric_names == ["val_accuracy", "flops"]
    assert [trial.values for trial in study.best_trials] == [[0.5, 3.0], [0.4, 2.0]]


def test_confirmations_are_no_points_and_segments_are(tmp_path: Path) -> None:
    confirmed = started(space_with(samples=3), tmp_path / "confirmed")
    run_out(confirmed, accuracy)
    cells = confirmed.space.cells()
    assert [len(loaded(confirmed).study(cell.key).trials) for cell in cells] == [3] * len(cells)
    segments = started(population(), tmp_path / "population")
    run_out(segments, landscape)
    assert len(loaded(segments).study("density=0.5").trials) == segments.space.samples


def test_a_cell_is_named_by_its_key_or_its_values(tmp_path: Path) -> None:
    plan = started(make_space(grid={"density": [0.5, 0.2], "seed": [0, 1]}), tmp_path / "several")
    run_out(plan, lambda config: config["density"] + config["seed"])
    found = loaded(plan)
    keys: list[Any] = [
        "density=0.2,seed=1",
        {"seed": 1, "density": 0.2},
        {"density": np.float64(0.2), "seed": np.int64(1)},
    ]
    for key in keys:
        (trial,) = found.study(key).trials
        assert (trial.value, trial.params) == (1.2, {})
    all_keys = "'density=0.5,seed=0', 'density=0.5,seed=1', 'density=0.2,seed=0', 'density=0.2,seed=1'"
    wrong: list[tuple[Any, str]] = [
        ("density=0.3", f"cell is 'density=0.3', but must be one of: {all_keys}"),
        ({"density": 0.2}, f"cell is {{'density': 0.2}}, but must be one of: {all_keys}, or a mapping of all"),
        ({"densty": 0.2, "seed": 0}, f"must be one of: {all_keys}"),
        (None, f"cell is missing, but the sweep has 4 cells: give one of {all_keys}"),
        (3, "cell is 3, but must be a mapping"),
    ]
    for given, says in wrong:
        with pytest.raises(UserError) as refused:
            found.study(given)
        assert says in str(refused.value)
        assert "\n" not in str(refused.value)
    single = started(make_space(grid={}, trial={**ONE_SHOT, "density": 0.5}), tmp_path / "single")
    run_out(single, lambda config: 0.5)
    assert loaded(single).study().study_name == "single"
    assert len(loaded(single).study("").trials) == 1
    SweepFolder(tmp_path / "none")
    with pytest.raises(UserError, match=r"has no sweep.yaml"):
        sweeper.Sweep.begun(tmp_path / "none").study()


def test_a_copy_is_of_its_time_and_changes_nothing(tmp_path: Path) -> None:
    plan = started(searching("tpe", 4, grid={"density": [0.5]}), tmp_path)
    found = loaded(plan)
    assert found.study().trials == []
    assignment = plan.next()
    assert assignment is not None
    finish(plan, assignment.trial_id)
    before = sorted(path for path in tmp_path.rglob("*") if path.is_file())
    study = found.study()
    assert len(study.trials) == 1
    study.optimize(lambda trial: trial.suggest_float("finetune.lr", 1e-3, 1.0, log=True), n_trials=2)
    assert sorted(path for path in tmp_path.rglob("*") if path.is_file()) == before
    assert len(found.study().trials) == 1


def test_code_that_is_not_imported_is_needed_for_its_columns_only(tmp_path: Path) -> None:
    plan = started(searching("random", 2, grid={"density": [0.5]}), tmp_path)
    run_out(plan)
    document = {**plan.space.document(), "plugins": ["nowhere.at_all"], "callbacks": ["nowhere.at_all:Follows"]}
    plan.folder.append({"space": {**document, "sampler": {"name": "nowhere.at_all:Sampler"}}})
    assert len(loaded(plan).study().trials) == 2
    plan.folder.append({"space": {**document, "objective": "sharpness"}})
    with pytest.raises(UserError, match=r"objective is 'sharpness'.*give plugins=\['nowhere.at_all'\]") as refused:
        loaded(plan).study()
    assert "\n" not in str(refused.value)
    with pytest.raises(UserError, match="nowhere"):
        loaded(plan).study(plugins=["nowhere.at_all"])


def test_optunas_plots_draw_it(tmp_path: Path) -> None:
    pytest.importorskip("plotly")
    plan = started(searching("random", 8, grid={"density": [0.5]}), tmp_path)
    run_out(plan)
    study, draw = loaded(plan).study(), optuna.visualization
    for figure in (
        draw.plot_optimization_history(study),
        draw.plot_param_importances(study),
        draw.plot_parallel_coordinate(study),
        draw.plot_slice(study),
        draw.plot_contour(study, params=["finetune.lr", "finetune.momentum"]),
        draw.plot_timeline(study),
    ):
        assert figure.data
