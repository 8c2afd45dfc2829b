"""Objectives are reported columns, never of the test set; constraints; the Pareto front."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from optuna.trial import TrialState

from sweeper.results.bounds import feasible
from sweeper.results.frames import SweepTables
from sweeper.results.pareto import pareto_front
from sweeper.results.tables import load
from sweeper.search.outcomes import FAILED, outcome_of
from sweeper.space.load import from_document
from sweeper.space.values import finite_number
from tests.sweeper.sweeps import ONE_SHOT, begun, make_space, searching
from trials.errors import UserError
from trials.methods.registry import METHODS
from trials.storage.trial_folder import State, TrialFolder

TWO = [{"column": "val_accuracy", "direction": "maximize"}, {"column": "flops", "direction": "minimize"}]
ON_TARGET = {"column": "density", "target": {"field": "density"}, "tolerance": 0.005}
CHEAP = {"column": "flops", "at_most": 1e6}
CONFIG = {"method": "one_shot", "density": 0.5, "score": "magnitude", "finetune": {"epochs": 1}}


def finished(status: str = "complete", **result: Any) -> State:
    return State(status=status, result=result, seconds=3.0)


@pytest.mark.parametrize("value", [None, True, "text", math.nan, -math.inf, 10**400, [1], {"a": 1}], ids=repr)
def test_a_figure_that_is_no_finite_number_is_no_value(value: Any) -> None:
    assert finite_number(value) is None
    assert (finite_number(2**64 + 1), finite_number(0.5)) == (2.0**64, 0.5)


@pytest.mark.parametrize(
    ("constraint", "column", "value", "violation"),
    [
        (ON_TARGET, "density", 0.5, -1.0),
        (ON_TARGET, "density", 0.505, 0.0),
        (ON_TARGET, "density", 0.49, 1.0),
        (CHEAP, "flops", 1_000_000, 0.0),
        (CHEAP, "flops", 1_500_000, 0.5),
        ({"column": "val_accuracy", "at_least": 0.8}, "val_accuracy", 0.6, 0.25),
        ({"column": "kept", "at_most": 0}, "kept", 3, 3.0),
        ({"column": "seconds", "at_most": {"field": "finetune.epochs"}}, "seconds", 3.0, 2.0),
        ({"column": "density", "target": 0.0, "tolerance": 0}, "density", 0.25, 0.25),
    ],
)
def test_a_violation_is_the_share_by_which_a_bound_is_missed(
    constraint: dict[str, Any], column: str, value: float, violation: float
) -> None:
    space = make_space(constraints=[constraint])
    state = finished(**{"val_accuracy": 0.5, column: value})
    outcome = outcome_of(space.objectives, space.constraints, CONFIG, state)
    assert list(outcome.violations.values()) == pytest.approx([violation])
    assert (outcome.state, outcome.values) == (TrialState.COMPLETE, (state.result["val_accuracy"],))
    assert outcome.shown == (state.result["val_accuracy"] if violation <= 0 else None)
    row = {"method": "one_shot", "config.density": 0.5, "finetune.epochs": 1, "seconds": 3.0, column: value}
    assert feasible(row, space.constraints) == (violation <= 0)


def test_a_result_that_lacks_a_figure_is_a_failure() -> None:
    space = make_space(constraints=[CHEAP])
    assert outcome_of(space.objectives, space.constraints, CONFIG, finished(val_accuracy=0.5)) == FAILED
    assert outcome_of(space.objectives, space.constraints, CONFIG, finished(flops=5)) == FAILED
    assert not feasible({"flops": None}, space.constraints)
    assert not feasible({}, space.constraints)


def test_several_objectives_in_their_order_seconds_among_them() -> None:
    space = make_space(objectives=[*TWO, {"column": "seconds", "direction": "minimize"}])
    outcome = outcome_of(space.objectives, (), CONFIG, finished(val_accuracy=0.5, flops=7))
    assert outcome.values == (0.5, 7.0, 3.0)
    assert (space.objective, space.direction) == ("val_accuracy", "maximize")


def test_times_its_sign_more_is_better() -> None:
    accuracy, flops = make_space(objectives=TWO).objectives
    assert max(0.5, 0.9, key=lambda value: accuracy.sign * value) == 0.9
    assert max(10, 20, key=lambda value: flops.sign * value) == 10


def test_a_pruned_trial_has_no_value() -> None:
    space = make_space(constraints=[CHEAP])
    state = finished("pruned", val_accuracy=0.5, flops=2e6)
    outcome = outcome_of(space.objectives, space.constraints, CONFIG, state, {1: 0.4, 2: 0.5})
    assert (outcome.state, outcome.values, outcome.curve) == (TrialState.PRUNED, None, {1: 0.4, 2: 0.5})
    assert outcome.violations == {"flops<=": 1.0}


def test_documents_come_back_and_one_objective_stays_short() -> None:
    several = make_space(objectives=TWO, constraints=[ON_TARGET, CHEAP])
    assert from_document(json.loads(json.dumps(several.document()))) == several
    assert several.document()["constraints"] == [ON_TARGET, CHEAP]
    assert several.document()["objectives"] == TWO
    single = make_space(objective="flops", direction="minimize")
    assert single == make_space(objectives=[TWO[1]])
    assert {"objective": "flops", "direction": "minimize"}.items() <= single.document().items()


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"objectives": 3}, "objectives is 3, but must be a list of {column, direction}"),
        ({"objectives": []}, "objectives is [], but must be a list of {column, direction}"),
        ({"objectives": ["flops"]}, "objectives[0] is 'flops', but must be a mapping such as {column: flops, "),
        ({"objectives": [{"column": "flops"}]}, "objectives[0].direction is missing: add it"),
        ({"objectives": [*TWO, TWO[0]]}, "objectives has val_accuracy twice"),
        ({"objectives": TWO, "objective": "flops"}, "objective is 'flops' beside objectives, but give only one"),
        (
            {"objectives": [{"column": "test_loss", "direction": "minimize"}]},
            "objectives[0].column is 'test_loss', but selection must never see the test set",
        ),
        ({"objective": "host"}, "objective is 'host', but that column holds text: name one that holds numbers"),
        ({"direction": "up"}, "direction is 'up', but must be 'maximize' or 'minimize'"),
        ({"objective": 3}, "objective is 3, but must be the name of a column"),
        ({"constraints": ON_TARGET}, "constraints is {'column': 'density', "),
        ({"constraints": [{"column": "flops"}]}, "constraints[0] has no bound, but must have one of target"),
        ({"constraints": [{**CHEAP, "at_least": 3}]}, "constraints[0] has at_most and at_least, but must have one of"),
        ({"constraints": [{"column": "density", "target": 0.1}]}, "constraints[0] has one of target and tolerance"),
        ({"constraints": [{**CHEAP, "tolerance": 0.1}]}, "constraints[0] has one of target and tolerance"),
        ({"constraints": [{**ON_TARGET, "tolerance": -1}]}, "constraints[0].tolerance is -1, but must be greater than"),
        ({"constraints": [CHEAP, CHEAP]}, "constraints has flops<= twice"),
        ({"constraints": [{"column": "device", "at_most": 3}]}, "constraints[0].column is 'device', but that column h"),
        ({"constraints": [{"column": "flop", "at_most": 3}]}, "constraints[0].column is 'flop', but must be one of: "),
        (
            {"constraints": [{"column": "test_accuracy", "at_least": 0.5}]},
            "constraints[0].column is 'test_accuracy', but selection must never see the test set",
        ),
        ({"constraints": [{"column": "flops", "at_most": "small"}]}, "constraints[0].at_most is 'small', but must be"),
        ({"constraints": [{"column": "flops", "at_most": {"path": "x"}}]}, "constraints[0].at_most is {'path': 'x'},"),
        (
            {"constraints": [{"column": "density", "at_most": {"field": "score"}}]},
            "constraints[0].at_most.field is 'score', but its value is 'magnitude': name a numeric field",
        ),
        (
            {"constraints": [{"column": "density", "at_most": {"field": "finetune.epoch"}}]},
            "constraints[0].at_most.field is 'finetune.epoch', but one_shot has no such field",
        ),
    ],
)  # fmt: skip
def test_objectives_that_cannot_be_measured_are_refused(fields: dict[str, Any], says: str) -> None:
    with pytest.raises(UserError) as caught:
        make_space(**fields)
    assert str(caught.value).startswith(says)
    assert "\n" not in str(caught.value)


def test_a_column_that_this_method_does_not_report(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match=r"objective is 'latency_ms', but must be one of"):
        make_space(objective="latency_ms")
    monkeypatch.setattr(METHODS["bip"], "reports", ("latency_ms",))
    with pytest.raises(UserError, match=r"objective is 'latency_ms', but one_shot does not report it: .*dense_flops, "):
        make_space(objective="latency_ms")
    with pytest.raises(UserError, match=r"constraints\[0\].column is 'latency_ms', but one_shot does not report it"):
        make_space(constraints=[{"column": "latency_ms", "at_most": 3}])
    trial = {"method": "bip", "dataset": "digits", "model": "tiny"}
    assert make_space(trial=trial, objective="latency_ms").objective == "latency_ms"


LATENCY = {"column": "latency_ms_128", "at_most": 2.0}


@pytest.mark.parametrize(
    ("fields", "where"),
    [
        ({"objective": "latency_ms_1", "direction": "minimize"}, "objective is 'latency_ms_1'"),
        ({"objectives": [*TWO, {"column": "latency_ms_128", "direction": "minimize"}]}, "objectives[2].column is 'lat"),
        ({"constraints": [CHEAP, LATENCY]}, "constraints[1].column is 'latency_ms_128'"),
    ],
)
def test_latency_may_be_asked_for_where_it_is_measured(fields: dict[str, Any], where: str) -> None:
    with pytest.raises(UserError) as caught:
        make_space(**fields)
    assert str(caught.value).startswith(where)
    assert "but the trial measures no latency: set measure_latency: true in trial (the trial at " in str(caught.value)
    space = make_space(trial={**ONE_SHOT, "measure_latency": True}, **fields)
    assert from_document(json.loads(json.dumps(space.document()))) == space


def test_latency_judges_and_bounds() -> None:
    objectives = [TWO[0], {"column": "latency_ms_1", "direction": "minimize"}]
    trial = {**ONE_SHOT, "measure_latency": True}
    space = make_space(trial=trial, objectives=objectives, constraints=[LATENCY])
    state = finished(val_accuracy=0.5, latency_ms_1=0.2, latency_ms_128=3.0)
    outcome = outcome_of(space.objectives, space.constraints, CONFIG, state)
    assert (outcome.values, outcome.violations) == ((0.5, 0.2), {"latency_ms_128<=": 0.5})
    assert outcome_of(space.objectives, space.constraints, CONFIG, finished(val_accuracy=0.5)) == FAILED


def test_only_the_sizes_that_are_measured_and_no_pruner() -> None:
    trial = {**ONE_SHOT, "measure_latency": True}
    with pytest.raises(UserError, match=r"objective is 'latency_ms_64', but must be one of: .*latency_ms_1, latency"):
        make_space(trial=trial, objective="latency_ms_64")
    with pytest.raises(UserError, match="pruner is 'median', but latency_ms_1 is not known after every epoch"):
        searching("tpe", 4, trial=trial, objective="latency_ms_1", pruner="median")


def test_the_pareto_front_is_per_cell_and_of_trials_within_bounds() -> None:
    rows = [
        ("a", "a1", 0.9, 10, 0.5),
        ("a", "a2", 0.8, 5, 0.5),
        ("a", "a3", 0.8, 6, 0.5),  # dominated by a2
        ("a", "a4", 0.99, 1, 0.6),  # dominates all, off target
        ("b", "b1", 0.1, 100, 0.5),  # worse than everything in a
        ("b", "b2", 0.1, 100, 0.5),  # equal to b1
    ]
    trials = pd.DataFrame(rows, columns=["cell", "trial", "val_accuracy", "flops", "density"])
    trials = trials.assign(status="complete", method="one_shot", **{"config.density": 0.5, "finetune.lr": 0.1})
    trials.loc[len(trials)] = {**trials.iloc[0], "trial": "a5", "val_accuracy": 1.0, "status": "pruned"}
    sweep = SweepTables(Path(), trials, pd.DataFrame(), pd.DataFrame(), pd.DataFrame())
    space = make_space(objectives=TWO, constraints=[ON_TARGET])
    front = pareto_front(sweep, space.objectives, space.constraints, ["finetune.lr"])
    assert front["trial"].tolist() == ["a1", "a2", "b1", "b2"]
    assert list(front.columns) == ["cell", "trial", "val_accuracy", "flops", "finetune.lr"]
    assert pareto_front(sweep, space.objectives)["trial"].tolist() == ["a4", "b1", "b2"]


def test_bounds_and_several_objectives_reach_the_study_and_the_tables(tmp_path: Path) -> None:
    space = searching("tpe", 6, objectives=TWO, constraints=[ON_TARGET])
    plan = begun(space, tmp_path)
    shown = []
    for n, assignment in enumerate(iter(plan.next, None)):
        attempt, _ = TrialFolder(plan.folder.trial_folder(assignment.trial_id)).begin()
        density = assignment.config.density + (0.1 if n % 3 == 0 else 0)
        attempt.end("complete", result={"val_accuracy": 0.1 * n, "flops": n, "density": density})
        shown += [ending.value for ending in plan.ended(assignment.trial_id)]
    assert plan.complete
    assert [value is None for value in shown] == [n % 3 == 0 for n in range(12)]
    for again in (plan, begun(space, tmp_path)):
        for study in again._searches.values():
            trials = study.study.trials
            assert [len(trial.values) for trial in trials] == 6 * [2]
            assert sum(trial.constraints["density"] > 0 for trial in trials) == 2
    front = pareto_front(load(tmp_path), space.objectives, space.constraints)
    assert len(front) == 8  # maximising the cost puts every trial within its bound on the front
