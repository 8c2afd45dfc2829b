"""The study of a whole sweep in the copy for optuna-dashboard: every point, with true times, for Optuna's own plots."""

from __future__ import annotations

import math
import warnings
from datetime import datetime
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.study import StudyDirection

from sweeper.dashboard import write_copy
from sweeper.dashboard.parameters import common_distribution, shown_value
from sweeper.dashboard.summary import summary_name
from sweeper.folder.sweep_folder import SweepFolder
from sweeper.search.plan import Plan
from tests.sweeper.replicates.replicated_sweeps import noisy, space_with
from tests.sweeper.sweeps import begun, fail, finish, make_space, run_out, searching
from trials.storage import trial_folder


def storage_of(folder: SweepFolder) -> JournalStorage:
    return JournalStorage(JournalFileBackend(str(folder.tables / "optuna.journal")))


def study_of(folder: SweepFolder, name: str) -> optuna.Study:
    return optuna.load_study(study_name=name, storage=storage_of(folder))


def summary_of(folder: SweepFolder) -> optuna.Study:
    return study_of(folder, summary_name(folder))


def planned(space: Any, path: Path) -> Plan:
    plan = begun(space, path)
    plan.folder.append({"space": space.document()})
    return plan


def dense_is_better(one: dict[str, Any]) -> float:
    return float(one["density"] + one["finetune"]["momentum"] / 100)


def test_every_point_of_every_cell_is_a_trial_of_the_summary(tmp_path: Path) -> None:
    plan = planned(searching("random", 5), tmp_path / "small")
    run_out(plan, dense_is_better)
    write_copy(plan.folder)
    summaries = optuna.get_all_study_summaries(storage_of(plan.folder))
    newest_first = [one.study_name for one in sorted(summaries, key=lambda one: -one._study_id)]  # as it is listed
    assert newest_first == ["(all points of small)", "density=0.5", "density=0.2"]
    study = summary_of(plan.folder)
    samples = {record.id: record for record in plan.folder.records()}
    assert len(study.trials) == len(samples) == 10
    for trial in study.trials:
        record = samples[trial.user_attrs["trial"]]
        (sample,) = record.samples
        assert trial.params == {**sample.grid, **sample.params}
        assert trial.values == [dense_is_better(record.content)]
        assert (trial.user_attrs["cell"], trial.user_attrs["sample"]) == (sample.cell, sample.number)
        assert trial.user_attrs["val_accuracy"] == trial.value
    assert (study.direction, study.metric_names) == (StudyDirection.MAXIMIZE, ["val_accuracy"])
    fanova = optuna.importance.FanovaImportanceEvaluator(seed=0)
    for evaluator in (None, fanova):
        importances = optuna.importance.get_param_importances(study, evaluator=evaluator)
        assert set(importances) == {"density", "finetune.lr", "finetune.momentum"}
    assert max(importances, key=lambda name: importances[name]) == "density"
    assert study.trials[0].distributions["density"] == FloatDistribution(0.2, 0.5)


def test_optunas_parallel_coordinates_have_grid_values_too(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib").use("agg")
    plan = planned(searching("random", 2), tmp_path)
    run_out(plan, dense_is_better)
    write_copy(plan.folder)
    study = summary_of(plan.folder)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        axes = optuna.visualization.matplotlib.plot_parallel_coordinate(study)
    labels = [label.get_text() for label in axes.get_xticklabels()]
    assert labels == ["Objective Value", "density", "finetune.lr", "finetune.momentum"]


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The time that trials note of themselves: the last one of a list."""
    times = ["2026-01-02T03:04:05Z"]
    monkeypatch.setattr(trial_folder, "_now", lambda: times[-1])
    return times


def local(utc: str) -> datetime:
    return datetime.fromisoformat(utc.replace("Z", "+00:00")).astimezone().replace(tzinfo=None)


def test_times_are_those_of_the_trials_also_of_those_that_go_on_while_it_is_shown(
    tmp_path: Path, clock: list[str]
) -> None:
    plan = planned(searching("random", 4, grid={"density": [0.5]}), tmp_path)
    over, *ids, last = [assignment.trial_id for assignment in iter(plan.next, None)]
    finish(plan, over, dense_is_better)
    copy = write_copy(plan.folder)
    attempts = []
    for trial_id in ids:
        clock.append("2026-01-02T04:00:00Z")
        attempt, _ = plan._records[trial_id].folder.begin()
        row = {"stage": "finetune", "level": 0, "epoch": 1, "stage_id": None, "val_accuracy": 0.25}
        attempt.commit(checkpoint={}, rows={"epochs": [row]}, progress={}, seconds=0.0)
        attempts.append(attempt)
    copy.refresh()
    clock.append("2026-01-02T05:00:00Z")
    attempts[0].end("complete", result={"val_accuracy": 0.5})
    finish(plan, last, dense_is_better)  # it begins and ends between two looks
    copy.refresh()
    begun_at, went_on, now = map(local, ("2026-01-02T03:04:05Z", "2026-01-02T04:00:00Z", "2026-01-02T05:00:00Z"))
    for study in (summary_of(plan.folder), study_of(plan.folder, "density=0.5")):
        found = {trial.user_attrs["trial"]: trial for trial in study.trials}
        times = {name: (one.state.name, one.datetime_start, one.datetime_complete) for name, one in found.items()}
        assert times == {
            over: ("COMPLETE", begun_at, begun_at),
            ids[0]: ("COMPLETE", went_on, now),
            ids[1]: ("RUNNING", went_on, None),
            last: ("COMPLETE", now, now),
        }
        assert [found[trial_id].intermediate_values for trial_id in ids] == [{1: 0.25}] * 2


def test_states_are_those_of_the_trials(tmp_path: Path) -> None:
    plan = planned(searching("random", 2, grid={"density": [0.5]}, retries=0), tmp_path)
    first, second = (assignment.trial_id for assignment in iter(plan.next, None))
    copy = write_copy(plan.folder)
    assert [trial.state.name for trial in summary_of(plan.folder).trials] == ["WAITING", "WAITING"]
    fail(plan, first)
    finish(plan, second)
    copy.refresh()
    trials = {trial.user_attrs["trial"]: trial for trial in summary_of(plan.folder).trials}
    assert {name: trial.state.name for name, trial in trials.items()} == {first: "FAIL", second: "COMPLETE"}
    assert trials[first].user_attrs["error"] == "NonFiniteLoss: the loss is nan"
    plan.folder.forgive()
    copy.refresh()
    trials = {trial.user_attrs["trial"]: trial for trial in summary_of(plan.folder).trials}
    assert trials[first].state.name == "RUNNING", "Optuna changes no trial that has ended: the study is written anew"
    finish(plan, first)
    copy.refresh()
    assert {trial.state.name for trial in summary_of(plan.folder).trials} == {"COMPLETE"}


def test_a_point_with_replicates_is_one_trial(tmp_path: Path) -> None:
    plan = planned(space_with(3, "random"), tmp_path)
    run_out(plan, noisy())
    write_copy(plan.folder)
    study = summary_of(plan.folder)
    assert len(study.trials) == 6
    results = {record.id: record.state.result for record in plan.folder.records() if record.state is not None}
    for trial in study.trials:
        values = [results[name]["val_accuracy"] for name in trial.user_attrs["trials"]]
        assert trial.user_attrs["replicates"] == 3
        assert trial.user_attrs["val_accuracy of replicates"] == values
        assert trial.user_attrs["val_accuracy"] == trial.value == pytest.approx(sum(values) / 3)


def test_confirmations_are_no_points_but_named(tmp_path: Path) -> None:
    plan = planned(searching("random", 2, grid={"density": [0.5]}, confirm={"seed": [7]}), tmp_path)
    run_out(plan)
    write_copy(plan.folder)
    study = summary_of(plan.folder)
    (line,) = study.user_attrs["confirmations of density=0.5"]
    assert len(study.trials) == 2
    assert f"confirms {study.best_trial.user_attrs['trial']}: val_accuracy {study.best_value:.4f}" in line


def test_cells_may_differ_in_what_they_fix_and_draw(tmp_path: Path) -> None:
    """Every trial has its own cell's parameters, each with one distribution in the whole study."""
    space = make_space(
        grid={"density": [0.5, 0.05, 0.01]},
        search={
            "finetune.lr": [
                {"loguniform": [1e-3, 0.1], "when": {"density": [0.5, 0.05]}},
                {"loguniform": [1e-2, 1.0], "when": {"density": 0.01}},
            ],
            "finetune.batch_size": {"choice": [32, 64]},
            "finetune.momentum": {"uniform": [0.0, 0.9], "when": {"finetune.batch_size": 32}},
        },
        sampler="random",
        samples=4,
    )
    plan = planned(space, tmp_path)
    run_out(plan, lambda config: float(config["density"]))
    write_copy(plan.folder)
    study = summary_of(plan.folder)
    assert len(study.trials) == 12
    of: dict[str, set[Any]] = {}
    for trial in study.trials:
        assert ("finetune.momentum" in trial.params) == (trial.params["finetune.batch_size"] == 32)
        for name, distribution in trial.distributions.items():
            of.setdefault(name, set()).add(distribution)
    assert of["density"] == {FloatDistribution(0.01, 0.5, log=True)}
    assert of["finetune.lr"] == {FloatDistribution(1e-3, 1.0, log=True)}
    assert all(len(found) == 1 for found in of.values())
    assert set(optuna.importance.get_param_importances(study)) >= {"density", "finetune.lr", "finetune.batch_size"}


def test_an_extended_sweep_is_followed(tmp_path: Path) -> None:
    plan = planned(searching("random", 1, grid={"density": [0.5]}), tmp_path)
    run_out(plan)
    copy = write_copy(plan.folder)
    plan = planned(searching("random", 1, grid={"density": [0.5, 0.25], "model": ["tiny", "resnet20"]}), tmp_path)
    while plan.next() is not None:
        pass
    copy.refresh()
    study = summary_of(plan.folder)
    assert {trial.distributions["density"] for trial in study.trials} == {FloatDistribution(0.25, 0.5)}
    assert sorted(trial.state.name for trial in study.trials)[0] == "COMPLETE"


CATEGORIES = CategoricalDistribution
COMMON: dict[str, tuple[Any, Any, Any, Any]] = {
    "names": (["bip", "greg"], [], [], CATEGORIES(["bip", "greg"])),
    "one name": (["bip"], [], [], CATEGORIES(["bip"])),
    "integers": ([1, 2, 3], [], [], IntDistribution(1, 3)),
    "a wide range": ([0.01, 1], [], [], FloatDistribution(0.01, 1.0, log=True)),
    "with zero": ([0, 0.5], [], [], FloatDistribution(0.0, 0.5)),
    "switches": ([True, False], [], [], CATEGORIES([True, False])),
    "nothing, or a number": ([None, 0.5], [], [], CATEGORIES([None, 0.5])),
    "true and one": ([True, 1], [], [], CATEGORIES(["true", "1"])),
    "lists": ([[1, 2], [3]], [], [], CATEGORIES(["[1, 2]", "[3]"])),
    "infinite": ([math.inf, 0.5], [], [], CATEGORIES([math.inf, 0.5])),
    "as it is drawn": ([], [IntDistribution(2, 8, step=2)], [4], IntDistribution(2, 8, step=2)),
    "two ranges": ([], [FloatDistribution(0.1, 0.2), FloatDistribution(0.5, 0.9)], [], FloatDistribution(0.1, 0.9)),
    "fixed or drawn": ([0.95], [FloatDistribution(0.1, 0.2, log=True)], [0.1], FloatDistribution(0.1, 0.95, log=True)),
    "integers of steps": ([], [IntDistribution(2, 8, step=2), IntDistribution(3, 9)], [], IntDistribution(2, 9)),
    "integers and numbers": ([], [IntDistribution(2, 8), FloatDistribution(0.5, 3)], [], FloatDistribution(0.5, 8.0)),
    "choices": ([], [CATEGORIES(["a", "b"]), CATEGORIES(["b", "c"])], ["a"], CATEGORIES(["a", "b", "c"])),
    "a name or a range": (["auto"], [FloatDistribution(0, 1)], [0.5, 0.25], CATEGORIES(["auto", 0.25, 0.5])),
}


@pytest.mark.parametrize("kind", COMMON)
def test_one_distribution_holds_every_value(kind: str) -> None:
    fixed, drawn, seen, expected = COMMON[kind]
    found = common_distribution(fixed, drawn, seen)
    assert found == expected
    for value in (*fixed, *seen):
        assert found._contains(found.to_internal_repr(shown_value(value, found)))
