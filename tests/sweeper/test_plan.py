"""What runs next follows from what is committed, whichever driver asks, however many died before it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sweeper.ledger import SweepFolder
from sweeper.plan import DEATHS, Ending, Plan
from sweeper.space import Space
from tests.sweeper.sweeps import (
    asked,
    begun,
    fail,
    finish,
    landscape,
    make_space,
    record_of,
    run_out,
    searching,
)
from tests.trials.killing import PLACES, Killed, killed_at_write
from trials.ledger import TrialFolder

SAMPLERS = ("random", "tpe")
AT_ONCE = 2


class Drivers:
    """Drives a space to its end, two trials at once, the oldest ending first; a new driver after the steps given."""

    def __init__(self, space: Space, path: Path) -> None:
        self.space, self.path = space, path
        self.plan = begun(space, path)
        self.running: list[str] = []
        self.steps = 0

    def go(self, killed_after: range) -> Drivers:
        for step in self._steps():
            if step in killed_after:
                self._succeed()
        assert self.plan.complete
        assert self.plan.finished == len(self.plan.folder.records())
        assert self.plan.failed == 0
        return self

    def _steps(self) -> Iterator[int]:
        while True:
            while len(self.running) < AT_ONCE and (assignment := self.plan.next()) is not None:
                assert assignment.trial_id not in self.running
                self.running.append(assignment.trial_id)
                yield self._count()
            if not self.running:
                return
            trial_id = self.running.pop(0)
            finish(self.plan, trial_id)
            before = self.plan
            yield self._count()
            if self.plan is before:  # a driver that died is told by the folder
                self.plan.ended(trial_id)
                yield self._count()

    def _count(self) -> int:
        self.steps += 1
        return self.steps

    def _succeed(self) -> None:
        """The driver dies, another takes over: what had not ended is handed out before anything new."""
        known = asked(SweepFolder(self.path))
        self.plan = begun(self.space, self.path)
        again = [self.plan.next() for _ in self.running]
        assert sorted(a.trial_id for a in again if a is not None) == sorted(self.running)
        assert asked(SweepFolder(self.path)) == known


@pytest.fixture(scope="module", params=SAMPLERS)
def undisturbed(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Drivers:
    path = tmp_path_factory.mktemp("undisturbed") / "sweep"
    return Drivers(searching(request.param, samples=4), path).go(killed_after=range(0))


def test_the_search_is_a_search(undisturbed: Drivers) -> None:
    samples = asked(undisturbed.plan.folder)
    assert set(samples) == {(f"density={d}", n) for d in (0.5, 0.2) for n in range(4)}
    points = {tuple(params.values()) for params in samples.values()}
    assert len(points) == len(samples)


def test_a_driver_killed_at_any_step_is_succeeded_by_one_that_asks_the_same(
    tmp_path: Path, undisturbed: Drivers
) -> None:
    expected = asked(undisturbed.plan.folder)
    for step in range(1, undisturbed.steps + 1):
        drivers = Drivers(undisturbed.space, tmp_path / str(step)).go(killed_after=range(step, step + 1))
        assert asked(drivers.plan.folder) == expected, step


def test_a_driver_killed_after_every_step_is_succeeded_by_one_that_asks_the_same(
    tmp_path: Path, undisturbed: Drivers
) -> None:
    drivers = Drivers(undisturbed.space, tmp_path / "sweep").go(killed_after=range(1, 10_000))
    assert asked(drivers.plan.folder) == asked(undisturbed.plan.folder)


@pytest.mark.parametrize("place", PLACES)
def test_a_driver_killed_while_it_schedules(tmp_path: Path, undisturbed: Drivers, place: str) -> None:
    path = tmp_path / "sweep"
    for number in (1, 4, 7, 10):  # a trial takes three writes: scheduled, begun, ended
        with killed_at_write(number, place), pytest.raises(Killed):
            run_out(begun(undisturbed.space, path))
    run_out(begun(undisturbed.space, path))
    if undisturbed.space.sampler.name == "random":  # TPE depends on the order in which trials end
        assert asked(SweepFolder(path)) == asked(undisturbed.plan.folder)
    assert len(SweepFolder(path).records()) == 8


def test_cells_take_turns(tmp_path: Path) -> None:
    plan = begun(searching("random", samples=3, grid={"density": [0.5, 0.2], "seed": [0, 1]}), tmp_path)
    cells = [assignment.cell for assignment in iter(plan.next, None)]
    assert cells == 3 * ["density=0.5,seed=0", "density=0.5,seed=1", "density=0.2,seed=0", "density=0.2,seed=1"]


def test_a_space_without_search_has_one_trial_per_cell(tmp_path: Path) -> None:
    plan = begun(make_space(), tmp_path)
    assert plan.total == 2
    assert len(run_out(plan)) == 2
    assert run_out(begun(make_space(), tmp_path)) == []


def test_a_cell_with_fewer_samples_catches_up_first(tmp_path: Path) -> None:
    run_out(begun(searching("random", samples=2, grid={"density": [0.5]}), tmp_path))
    plan = begun(searching("random", samples=3), tmp_path)
    cells = [assignment.cell for assignment in iter(plan.next, None)]
    assert cells == ["density=0.2", "density=0.2", "density=0.5", "density=0.2"]


def test_names_are_those_of_the_configs(tmp_path: Path) -> None:
    space = searching("random", samples=1)
    plan = begun(space, tmp_path)
    assignment = plan.next()
    assert assignment is not None
    record = record_of(plan.folder, assignment.trial_id)
    (sample,) = record.samples
    config = space.config(space.cells()[0], sample.params)
    assert (config.id, config.model_dump(mode="json")) == (assignment.trial_id, assignment.config)
    assert record.config == assignment.config


CHOICE = {"finetune.momentum": {"choice": [0.0, 0.9]}}


def test_a_config_that_has_run_is_told_at_once_and_counts_as_a_sample(tmp_path: Path) -> None:
    space = make_space(search=CHOICE, samples=5, sampler="random", grid={"density": [0.5]})
    plan = begun(space, tmp_path)
    assert len(run_out(plan, lambda config: config["finetune"]["momentum"])) == 2
    assert plan.total == 5
    assert {number for _, number in asked(plan.folder)} == set(range(5))
    (study,) = plan._studies.values()
    values = [(trial.params["finetune.momentum"], trial.value) for trial in study.study.trials]
    assert [momentum for momentum, _ in values] == [value for _, value in values]
    assert len(plan.told) == 3
    assert {ending.status for ending in plan.told} == {"complete"}
    assert begun(space, tmp_path).complete


def test_a_config_that_runs_is_not_handed_out_twice_and_tells_all_its_samples(tmp_path: Path) -> None:
    space = make_space(search=CHOICE, samples=6, sampler="random", grid={"density": [0.5]})
    plan = begun(space, tmp_path)
    running = [assignment.trial_id for assignment in iter(plan.next, None)]
    assert len(running) == len(set(running)) == 2
    assert not plan.told
    endings: list[Ending] = []
    for trial_id in running:
        finish(plan, trial_id, lambda config: config["finetune"]["momentum"])
        endings += plan.ended(trial_id)
    assert len(endings) == 6
    assert not any(ending.again for ending in endings)
    (study,) = plan._studies.values()
    assert all(trial.value == trial.params["finetune.momentum"] for trial in study.study.trials)
    assert plan.complete
    assert plan.finished == 2


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_more_samples_run_only_what_is_new(tmp_path: Path, sampler: str) -> None:
    first = run_out(begun(searching(sampler, samples=3), tmp_path))
    before = asked(SweepFolder(tmp_path))
    second = run_out(begun(searching(sampler, samples=5), tmp_path))
    after = asked(SweepFolder(tmp_path))
    assert (len(first), len(second)) == (6, 4)
    assert not set(first) & set(second)
    assert {key: after[key] for key in before} == before
    assert set(after) == {(f"density={d}", n) for d in (0.5, 0.2) for n in range(5)}
    assert len({tuple(params.values()) for params in after.values()}) == 10


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_more_grid_values_run_only_what_is_new(tmp_path: Path, sampler: str) -> None:
    run_out(begun(searching(sampler, samples=3), tmp_path / "extended"))
    longer = searching(sampler, samples=3, grid={"density": [0.5, 0.35, 0.2]})
    new = begun(longer, tmp_path / "extended")
    assert len(run_out(new)) == 3
    assert {record.config["density"] for record in new.folder.records()} == {0.5, 0.35, 0.2}
    whole = begun(longer, tmp_path / "whole")
    run_out(whole)
    assert asked(new.folder) == asked(whole.folder)  # one trial at a time: every cell sees the same


@pytest.mark.parametrize("retries", [0, 2])
def test_a_failed_trial_is_tried_again_and_then_told_as_failed(tmp_path: Path, retries: int) -> None:
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
    (study,) = plan._studies.values()
    assert [trial.state.name for trial in study.study.trials] == ["FAIL", "RUNNING"]
    finish(plan, again.trial_id)
    plan.ended(again.trial_id)
    assert plan.complete
    assert (plan.finished, plan.failed) == (1, 1)


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
    assert (plan.finished, plan.failed) == (0, 1)
    assert [(ending.status, ending.value) for ending in plan.before()] == [("failed", None)]
    assert begun(space(2), tmp_path).next() == trial  # more retries: it is tried again


def test_a_result_without_the_objective_is_a_failure_of_the_search(tmp_path: Path) -> None:
    plan = begun(searching("tpe", samples=1, grid={"density": [0.5]}), tmp_path)
    run_out(plan, lambda config: None)
    for one in (plan, begun(plan.space, tmp_path)):
        (study,) = one._studies.values()
        assert [trial.state.name for trial in study.study.trials] == ["FAIL"]
        assert (one.finished, one.failed) == (1, 0)


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


def test_a_process_that_dies_after_a_commit_is_not(tmp_path: Path) -> None:
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


def test_what_was_preempted_is_handed_out_again_at_no_cost(tmp_path: Path) -> None:
    plan = begun(make_space(grid={"density": [0.5]}, retries=0), tmp_path)
    for _ in range(2 * DEATHS):
        assignment = plan.next()
        assert assignment is not None
        attempt, _ = TrialFolder(plan.folder.trial_folder(assignment.trial_id)).begin()
        attempt.end("preempted")
        (ending,) = plan.ended(assignment.trial_id)
        assert (ending.status, ending.again) == ("preempted", True)
    assert begun(plan.space, tmp_path).next() == assignment


def test_a_state_that_cannot_be_read_is_not_the_end_of_the_driver(tmp_path: Path) -> None:
    plan = begun(make_space(grid={"density": [0.5]}), tmp_path)
    assignment = plan.next()
    assert assignment is not None
    (plan.folder.trial_folder(assignment.trial_id) / "state.json").write_text('{"schema": 1')
    (ending,) = plan.ended(assignment.trial_id)
    assert (ending.status, ending.again) == ("died", True)
    assert plan.next() == assignment
    finish(plan, assignment.trial_id, lambda config: 0.5)
    assert [ending.value for ending in plan.ended(assignment.trial_id)] == [0.5]


def test_trials_of_other_cells_do_not_count(tmp_path: Path) -> None:
    run_out(begun(searching("random", samples=2, grid={"density": [0.9]}), tmp_path))
    unfinished = begun(searching("random", samples=3, grid={"density": [0.9]}), tmp_path).next()
    assert unfinished is not None
    plan = begun(searching("random", samples=2, grid={"density": [0.5]}), tmp_path)
    assert (plan.total, plan.finished) == (2, 0)
    assert list(plan.before()) == []
    ran = run_out(plan)
    assert len(ran) == 2
    assert unfinished.trial_id not in ran


def test_a_trial_that_serves_a_foreign_cell_too_is_shown_in_its_own(tmp_path: Path) -> None:
    space = make_space(grid={"density": [0.5]})
    plan = begun(space, tmp_path)
    assignment = plan.next()
    assert assignment is not None
    record = record_of(plan.folder, assignment.trial_id)
    foreign = type(record.samples[0])("elsewhere", 0, {}, {}, {})
    plan.folder.schedule(record.id, record.config, (foreign, *record.samples))
    again = begun(space, tmp_path).next()
    assert again is not None
    assert again.cell == "density=0.5"


def test_nothing_is_handed_out_after_stop(tmp_path: Path) -> None:
    space = searching("random", samples=3)
    plan = begun(space, tmp_path)
    running = [plan.next(), plan.next()]
    known = asked(plan.folder)
    plan.stop()
    assert plan.next() is None
    assert not plan.complete
    for assignment in running:
        assert assignment is not None
        attempt, _ = TrialFolder(plan.folder.trial_folder(assignment.trial_id)).begin()
        attempt.end("preempted")
        plan.ended(assignment.trial_id)
    assert plan.next() is None
    assert not plan.complete
    assert asked(plan.folder) == known
    run_out(begun(space, tmp_path))
    assert len(asked(plan.folder)) == 6


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
def test_a_record_that_is_no_record_is_set_aside(tmp_path: Path, text: str) -> None:
    space = make_space()
    first, *_ = run_out(begun(space, tmp_path), lambda config: 0.5)
    folder = SweepFolder(tmp_path)
    (folder.trial_folder(first) / "config.json").write_bytes(text.encode("utf-8", "surrogateescape"))
    assert len(folder.records()) == 1
    assert "config.json.damaged" in " ".join(folder.repair())
    plan = begun(space, tmp_path)
    assignment = plan.next()  # it is scheduled again; whoever runs it finds it complete
    assert assignment is not None
    assert assignment.trial_id == first
    assert [ending.value for ending in plan.ended(first)] == [0.5]
    assert plan.complete


def test_many_samples_are_replayed_in_their_order(tmp_path: Path) -> None:
    """TPE weighs old samples less, beyond 25."""
    plan = begun(searching("tpe", samples=45, grid={"density": [0.5]}), tmp_path)
    for turn in range(44):
        if turn >= 40:
            expected = begun(plan.space, tmp_path)._studies["density=0.5"].ask()
        assignment = plan.next()
        assert assignment is not None
        if turn >= 40:
            assert record_of(plan.folder, assignment.trial_id).samples == (expected,)
        finish(plan, assignment.trial_id)
        plan.ended(assignment.trial_id)


def test_the_best_is_searched(tmp_path: Path) -> None:
    plan = begun(searching("tpe", samples=40, grid={"density": [0.5]}), tmp_path)
    run_out(plan)
    values = [landscape(record.config) for record in sorted(plan.folder.records(), key=lambda r: r.samples[0].number)]
    assert sum(values[20:]) > sum(values[:20])
