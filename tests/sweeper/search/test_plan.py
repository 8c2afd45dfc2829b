"""What a plan hands out next: the order of cells and samples, and samples whose config is known already."""

from __future__ import annotations

from pathlib import Path

import pytest

from sweeper.folder.sweep_folder import SweepFolder
from sweeper.search.plan import Ending
from tests.sweeper.sweeps import (
    SAMPLERS,
    asked,
    begun,
    finish,
    finished,
    landscape,
    make_space,
    record_of,
    run_out,
    searching,
)


def test_cells_take_turns(tmp_path: Path) -> None:
    plan = begun(searching("random", samples=3, grid={"density": [0.5, 0.2], "seed": [0, 1]}), tmp_path)
    cells = [assignment.cell for assignment in iter(plan.next, None)]
    assert cells == 3 * ["density=0.5,seed=0", "density=0.5,seed=1", "density=0.2,seed=0", "density=0.2,seed=1"]


def test_a_space_without_search_has_one_trial_per_cell(tmp_path: Path) -> None:
    plan = begun(make_space(), tmp_path)
    assert sum(plan.totals.values()) == 2
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
    assert (config.id, config.model_dump(mode="json")) == (assignment.trial_id, record.content)
    assert record.config == assignment.config


CHOICE = {"finetune.momentum": {"choice": [0.0, 0.9]}}


def test_the_result_of_a_config_that_has_run_counts_as_a_sample_at_once(tmp_path: Path) -> None:
    space = make_space(search=CHOICE, samples=5, ask_again=0, sampler="random", grid={"density": [0.5]})
    plan = begun(space, tmp_path)
    assert len(run_out(plan, lambda config: config["finetune"]["momentum"])) == 2
    assert sum(plan.totals.values()) == 5
    assert {number for _, number in asked(plan.folder)} == set(range(5))
    (study,) = plan._searches.values()
    values = [(trial.params["finetune.momentum"], trial.value) for trial in study.study.trials]
    assert [momentum for momentum, _ in values] == [value for _, value in values]
    assert len(plan.already_done) == 3
    assert {ending.status for ending in plan.already_done} == {"complete"}
    assert begun(space, tmp_path).complete


def test_a_running_config_is_not_handed_out_twice_and_ends_all_its_samples(tmp_path: Path) -> None:
    space = make_space(search=CHOICE, samples=6, ask_again=0, sampler="random", grid={"density": [0.5]})
    plan = begun(space, tmp_path)
    running = [assignment.trial_id for assignment in iter(plan.next, None)]
    assert len(running) == len(set(running)) == 2
    assert not plan.already_done
    endings: list[Ending] = []
    for trial_id in running:
        finish(plan, trial_id, lambda config: config["finetune"]["momentum"])
        endings += plan.ended(trial_id)
    assert len(endings) == 6
    assert not any(ending.again for ending in endings)
    (study,) = plan._searches.values()
    assert all(trial.value == trial.params["finetune.momentum"] for trial in study.study.trials)
    assert plan.complete
    assert finished(plan) == 2


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
    assert {record.content["density"] for record in new.folder.records()} == {0.5, 0.35, 0.2}
    whole = begun(longer, tmp_path / "whole")
    run_out(whole)
    assert asked(new.folder) == asked(whole.folder)  # one trial at a time: equal outcomes per cell


def test_trials_of_other_cells_do_not_count(tmp_path: Path) -> None:
    run_out(begun(searching("random", samples=2, grid={"density": [0.9]}), tmp_path))
    unfinished = begun(searching("random", samples=3, grid={"density": [0.9]}), tmp_path).next()
    assert unfinished is not None
    plan = begun(searching("random", samples=2, grid={"density": [0.5]}), tmp_path)
    assert sum(plan.totals.values()) == 2
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
    plan.folder.schedule(record.id, record.content, (foreign, *record.samples))
    again = begun(space, tmp_path).next()
    assert again is not None
    assert again.cell == "density=0.5"


def test_the_best_is_searched(tmp_path: Path) -> None:
    plan = begun(searching("tpe", samples=40, grid={"density": [0.5]}), tmp_path)
    run_out(plan)
    values = [landscape(record.content) for record in sorted(plan.folder.records(), key=lambda r: r.samples[0].number)]
    assert sum(values[20:]) > sum(values[:20])
