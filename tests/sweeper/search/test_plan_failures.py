"""When a trial that fails, dies or is damaged is tried again, and when it is given up."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from sweeper.folder.sweep_folder import SweepFolder
from sweeper.search.failures import DEATHS
from sweeper.search.plan import Plan
from sweeper.space.space import Space
from tests.sweeper.sweeps import (
    asked,
    begun,
    fail,
    finish,
    finished,
    make_space,
    run_out,
    searching,
)
from trials.storage.trial_folder import TrialFolder


@pytest.mark.parametrize("retries", [0, 2])
def test_a_failed_trial_is_tried_again_and_then_counts_as_failed(tmp_path: Path, retries: int) -> None:
    space = searching("tpe", samples=2, grid={"density": [0.5]}, retries=retries)
    plan = begun(space, tmp_path)
    bad = plan.next()
    assert bad is not None
    for turn in range(retries + 1):
        fail(plan, bad.trial_id)
        (ending,) = plan.ended(bad.trial_id)
        assert (ending.status, ending.again) == ("failed", turn < retries)
        assert ending.error == "NonFiniteLoss: the loss is nan"
        again = plan.next()
        assert again is not None
        assert (again.trial_id == bad.trial_id) == ending.again
    (study,) = plan._searches.values()
    assert [trial.state.name for trial in study.study.trials] == ["FAIL", "RUNNING"]
    finish(plan, again.trial_id)
    plan.ended(again.trial_id)
    assert plan.complete
    assert (finished(plan), plan.failed) == (1, 1)


def test_a_new_driver_counts_the_failures_of_the_old_one(tmp_path: Path) -> None:
    def space(retries: int) -> Space:
        return make_space(grid={"density": [0.5]}, retries=retries)

    trial = begun(space(1), tmp_path).next()
    assert trial is not None
    for _ in range(2):
        plan = begun(space(1), tmp_path)
        assert plan.next() == trial
        fail(plan, trial.trial_id)
    plan = begun(space(1), tmp_path)
    assert plan.complete
    assert (finished(plan), plan.failed) == (0, 1)
    assert [(ending.status, ending.value) for ending in plan.before()] == [("failed", None)]
    assert begun(space(2), tmp_path).next() == trial  # with more retries it is tried again


def test_a_result_without_the_objective_is_a_failure_of_the_search(tmp_path: Path) -> None:
    plan = begun(searching("tpe", samples=1, grid={"density": [0.5]}), tmp_path)
    run_out(plan, lambda config: None)
    for one in (plan, begun(plan.space, tmp_path)):
        (study,) = one._searches.values()
        assert [trial.state.name for trial in study.study.trials] == ["FAIL"]
        assert (finished(one), one.failed) == (1, 0)


def begin_and_die(plan: Plan, trial_id: str, *, commit: bool = False) -> None:
    attempt, _ = TrialFolder(plan.folder.trial_folder(trial_id)).begin()
    if commit:
        attempt.commit(checkpoint={}, rows={}, progress={}, seconds=1.0)


def deaths_until_given_up(plan: Plan, die: Any, most: int = 10) -> int:
    for count in range(1, most + 1):
        assignment = plan.next()
        assert assignment is not None
        die(plan, assignment.trial_id)
        (ending,) = plan.ended(assignment.trial_id)
        if not ending.again:
            assert (ending.status, plan.failed) == ("failed", 1)
            assert ending.error is not None
            assert ending.error.startswith("ProcessDied")
            return count
        assert ending.status == "died"
    return most + 1


def test_a_process_that_keeps_dying_is_given_up(tmp_path: Path) -> None:
    space = make_space(grid={"density": [0.5]}, retries=5)
    assert deaths_until_given_up(begun(space, tmp_path), begin_and_die) == DEATHS
    assert begun(space, tmp_path).complete


def test_a_process_that_dies_before_it_begins_is_given_up(tmp_path: Path) -> None:
    plan = begun(make_space(grid={"density": [0.5]}), tmp_path)
    assert deaths_until_given_up(plan, lambda plan, trial_id: None) == DEATHS


def test_a_process_that_dies_after_a_commit_is_not_given_up(tmp_path: Path) -> None:
    plan = begun(make_space(grid={"density": [0.5]}), tmp_path)

    def die(plan: Plan, trial_id: str) -> None:
        begin_and_die(plan, trial_id, commit=True)

    assert deaths_until_given_up(plan, die) == 11


def test_a_trial_is_not_to_blame_for_the_death_of_its_drivers(tmp_path: Path) -> None:
    space = make_space(grid={"density": [0.5]})
    for _ in range(10):
        plan = begun(space, tmp_path)
        assignment = plan.next()
        assert assignment is not None
        begin_and_die(plan, assignment.trial_id)
    assert deaths_until_given_up(begun(space, tmp_path), begin_and_die) == DEATHS


def test_a_preempted_trial_is_handed_out_again_without_a_retry(tmp_path: Path) -> None:
    plan = begun(make_space(grid={"density": [0.5]}, retries=0), tmp_path)
    for _ in range(2 * DEATHS):
        assignment = plan.next()
        assert assignment is not None
        attempt, _ = TrialFolder(plan.folder.trial_folder(assignment.trial_id)).begin()
        attempt.end("preempted")
        (ending,) = plan.ended(assignment.trial_id)
        assert (ending.status, ending.again) == ("preempted", True)
    assert begun(plan.space, tmp_path).next() == assignment


def test_an_unreadable_state_does_not_end_the_driver(tmp_path: Path) -> None:
    plan = begun(make_space(grid={"density": [0.5]}), tmp_path)
    assignment = plan.next()
    assert assignment is not None
    (plan.folder.trial_folder(assignment.trial_id) / "state.json").write_text('{"schema": 1')
    (ending,) = plan.ended(assignment.trial_id)
    assert (ending.status, ending.again) == ("died", True)
    assert plan.next() == assignment
    finish(plan, assignment.trial_id, lambda config: 0.5)
    assert [ending.value for ending in plan.ended(assignment.trial_id)] == [0.5]


def test_a_sample_whose_record_was_lost_is_asked_again(tmp_path: Path) -> None:
    space = searching("random", samples=3)
    run_out(begun(space, tmp_path))
    folder = SweepFolder(tmp_path)
    expected, lost = asked(folder), folder.records()[2]
    (folder.trial_folder(lost.id) / "config.json").write_text("{")
    (line,) = folder.repair()
    assert "config.json.damaged" in line
    plan = begun(space, tmp_path)
    assert run_out(plan) == [lost.id]
    assert asked(folder) == expected
    assert (tmp_path / "trials" / lost.id / "config.json.damaged").read_text() == "{"


@pytest.mark.parametrize("text", ["[]", "{}", "null", '{"id": 1, "config": [], "samples": 3}', "\udcff"])
def test_a_damaged_record_is_set_aside(tmp_path: Path, text: str) -> None:
    space = make_space()
    first, *_ = run_out(begun(space, tmp_path), lambda config: 0.5)
    folder = SweepFolder(tmp_path)
    (folder.trial_folder(first) / "config.json").write_bytes(text.encode("utf-8", "surrogateescape"))
    assert len(folder.records()) == 1
    assert "config.json.damaged" in " ".join(folder.repair())
    plan = begun(space, tmp_path)
    assignment = plan.next()  # scheduled again; its worker finds it complete
    assert assignment is not None
    assert assignment.trial_id == first
    assert [ending.value for ending in plan.ended(first)] == [0.5]
    assert plan.complete
