"""The best sample of a cell is confirmed after its search has ended, whatever happens on the way."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from sweeper.folder.confirmations import confirmation_of
from sweeper.folder.sweep_folder import SweepFolder
from sweeper.search.derived_configs import compare_committed
from sweeper.search.plan import Plan
from sweeper.search.warm_start import commit_warm_start, warm_start
from tests.sweeper.confirm.confirmed_sweeps import (
    Storm,
    accuracy,
    best_of,
    break_down,
    cell_of,
    confirming,
    figures,
    searched,
    space_with,
    study_of,
    written,
)
from tests.sweeper.pruned import SEARCH, TRIAL
from tests.sweeper.sweeps import begun, fail, finish, make_space, run_out, searching, trials_of
from trials.errors import UserError

CELLS = ("density=0.5", "density=0.2")


def values(folder: SweepFolder, cell: str, trial: str) -> list[int]:
    """The seeds of the confirmations of a cell's trial."""
    found = [confirmation_of(r.samples[0]) for r in confirming(folder) if cell_of(r) == cell]
    return sorted(c.values["seed"] for c in found if c is not None and c.trial == trial)


def test_the_best_sample_of_each_cell_runs_again_with_every_seed(tmp_path: Path) -> None:
    plan = begun(space_with(), tmp_path)
    assert plan.totals == dict.fromkeys(CELLS, 4 + 3)
    assert len(run_out(plan, accuracy)) == 2 * (4 + 3)
    for cell in CELLS:
        best = best_of(plan.folder, cell)
        assert values(plan.folder, cell, best.id) == [1, 2, 3]
        for record in (r for r in confirming(plan.folder) if cell_of(r) == cell):
            (sample,) = record.samples
            assert (sample.params, sample.number) == (best.samples[0].params, best.samples[0].number)
            other = {**record.content, "seed": 0}
            assert other == best.content
    assert {record.content["seed"] for record in searched(plan.folder)} == {0}
    assert begun(space_with(), tmp_path).complete


@pytest.mark.parametrize("sampler", ["tpe", "random"])
def test_the_study_is_that_of_a_sweep_without_confirmations(tmp_path: Path, sampler: str) -> None:
    confirmed, plain = begun(space_with(6, sampler), tmp_path / "a"), begun(searching(sampler, 6), tmp_path / "b")
    run_out(confirmed, accuracy)
    run_out(plain, accuracy)
    again = begun(space_with(6, sampler), tmp_path / "a")
    for cell in CELLS:
        expected = trials_of(plain._searches[cell])  # type: ignore[arg-type]
        assert len(expected) == 6
        assert trials_of(study_of(confirmed, cell).searched) == expected
        assert trials_of(study_of(again, cell).searched) == expected


def test_no_confirmation_before_every_sample_of_the_cell_has_ended(tmp_path: Path) -> None:
    plan = begun(space_with(3, grid={"density": [0.5]}), tmp_path)
    running = [a.trial_id for a in iter(plan.next, None)]
    assert len(running) == 3
    for trial_id in running:
        assert not confirming(plan.folder)
        assert plan.next() is None
        assert not plan.over
        finish(plan, trial_id, accuracy)
        plan.ended(trial_id)
    assert len(list(iter(plan.next, None))) == 3
    assert len(confirming(plan.folder)) == 3


def test_a_cell_goes_on_to_confirm_while_another_still_searches(tmp_path: Path) -> None:
    plan = begun(space_with(2), tmp_path)
    assignments = list(iter(plan.next, None))
    for a in assignments:
        if a.cell == CELLS[0]:
            finish(plan, a.trial_id, accuracy)
            plan.ended(a.trial_id)
    assert [a.cell for a in iter(plan.next, None)] == [CELLS[0]] * 3


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("fails", [0.0, 0.3])
def test_drivers_that_die_at_any_moment_come_to_the_same(tmp_path: Path, seed: int, fails: float) -> None:
    """One trial at a time, as with --serial: the same trials, samples and figures as of an undisturbed sweep."""
    space = space_with(retries=1)
    for name, dies in (("calm", 0.0), ("storm", 0.3)):
        written(space, tmp_path / name)
        plan = Storm(space, tmp_path / name, seed, fails, dies, most=1).run()
        assert begun(space, tmp_path / name).complete
        assert compare_committed(space, plan.folder.records()).difference is None
    outcomes = [
        {r.id: (r.samples, r.state and (r.state.status, r.state.result)) for r in SweepFolder(tmp_path / n).records()}
        for n in ("calm", "storm")
    ]
    assert outcomes[0] == outcomes[1]
    assert repr(figures(tmp_path / "calm")) == repr(figures(tmp_path / "storm"))


@pytest.mark.parametrize("seed", range(4))
def test_in_any_order_with_failures_deaths_and_extensions(tmp_path: Path, seed: int) -> None:
    """What holds of every sweep that has ended: the best sample has its confirmations, and only they are the figure."""
    seeds: list[int] = []
    for samples, seeds in ((2, [1]), (4, [1]), (4, [1, 2, 3]), (7, [1, 2, 3])):
        space = space_with(samples, confirm={"seed": seeds}, retries=0)
        written(space, tmp_path)
        plan = Storm(space, tmp_path, 10 * seed + samples, fails=0.3, dies=0.2).run()
        shown = figures(tmp_path)
        for cell in CELLS:
            own = [r for r in searched(plan.folder) if cell_of(r) == cell]
            assert sum(len(r.samples) for r in own) == samples
            complete = [r for r in own if r.state and r.state.status == "complete"]
            row = shown[cell]
            if not complete:
                assert row["n"] == 0
                continue
            best = best_of(plan.folder, cell)
            assert values(plan.folder, cell, best.id) == seeds
            counting = [
                r.state.result["val_accuracy"]
                for r in confirming(plan.folder)
                if r.samples[0].attrs["confirm"]["trial"] == best.id and r.state and r.state.status == "complete"
            ]
            failed = len(seeds) - len(counting)
            assert row["n"] == len(counting)
            assert row["confirmed"] == f"{len(counting)}/{len(seeds)}" + f", {failed} failed" * bool(failed)
            if counting:
                assert row["val_accuracy_mean"] == pytest.approx(sum(counting) / len(counting))
                assert row["val_accuracy_mean"] < accuracy(best.content) - 0.005  # the searched seed never enters
            assert row["searched"] == pytest.approx(accuracy(best.content))
    assert seeds == [1, 2, 3]


def test_more_samples_that_find_no_better_one_confirm_nothing_anew(tmp_path: Path) -> None:
    run_out(begun(space_with(3, "random"), tmp_path), accuracy)
    before = {record.id for record in confirming(SweepFolder(tmp_path))}
    ran = run_out(begun(space_with(5, "random"), tmp_path), lambda config: 0.0)
    assert len(ran) == 4
    assert {record.id for record in confirming(SweepFolder(tmp_path))} == before


def test_more_samples_that_find_a_better_one_confirm_that(tmp_path: Path) -> None:
    first = run_out(begun(space_with(3, "random"), tmp_path), accuracy)
    plan = begun(space_with(4, "random"), tmp_path)
    ran = run_out(plan, lambda config: 1.0)
    assert len(ran) == 2 * (1 + 3)
    assert not set(first) & set(ran)
    assert plan.totals == dict.fromkeys(CELLS, 4 + 3 + 3)  # with those that no longer count
    for cell in CELLS:
        assert values(plan.folder, cell, best_of(plan.folder, cell).id) == [1, 2, 3]


def test_a_confirmation_that_was_interrupted_goes_on_only_if_its_sample_is_still_the_best(tmp_path: Path) -> None:
    grid = {"density": [0.5]}
    for name, later, others in (("worse", 0.0, 0), ("better", 1.0, 1)):
        plan = begun(space_with(2, "random", grid=grid), tmp_path / name)
        for _ in range(2):
            assignment = plan.next()
            assert assignment is not None
            finish(plan, assignment.trial_id, accuracy)
            plan.ended(assignment.trial_id)
        held = plan.next()
        assert held is not None
        assert confirmation_of(plan._records[held.trial_id].samples[0]) is not None
        plan = begun(space_with(3, "random", grid=grid), tmp_path / name)
        ran = run_out(plan, lambda config, later=later: later)
        assert len(ran) == 1 + 3
        assert (held.trial_id in ran) == (others == 0)
        assert all(len(record.samples) == 1 for record in plan.folder.records())


def test_added_seeds_run_alone(tmp_path: Path) -> None:
    run_out(begun(space_with(confirm={"seed": [1]}), tmp_path), accuracy)
    assert len(run_out(begun(space_with(confirm={"seed": [1, 7]}), tmp_path), accuracy)) == 2
    run_out(begun(searching("tpe", 4), tmp_path / "plain"), accuracy)
    assert len(run_out(begun(space_with(), tmp_path / "plain"), accuracy)) == 6  # a finished sweep is confirmed later


def test_a_failed_confirmation_takes_no_other_along(tmp_path: Path) -> None:
    space = space_with(2, retries=0, grid={"density": [0.5]})
    written(space, tmp_path)
    plan = begun(space, tmp_path)
    ended = 0
    while (assignment := plan.next()) is not None:
        ended += 1
        if ended == 4:
            fail(plan, assignment.trial_id)
        else:
            finish(plan, assignment.trial_id, accuracy)
        plan.ended(assignment.trial_id)
    assert (ended, plan.complete, plan.failed) == (5, True, 1)
    assert figures(tmp_path)["density=0.5"]["confirmed"] == "2/3, 1 failed"
    assert begun(space, tmp_path).complete
    assert plan.folder.forgive() == 1
    assert len(run_out(begun(space, tmp_path), accuracy)) == 1
    assert figures(tmp_path)["density=0.5"]["confirmed"] == "3/3"


def test_a_cell_whose_samples_all_fail_confirms_nothing_and_ends(tmp_path: Path) -> None:
    space = space_with(2, retries=0, grid={"density": [0.5]})
    plan = begun(space, tmp_path)
    while (assignment := plan.next()) is not None:
        fail(plan, assignment.trial_id)
        plan.ended(assignment.trial_id)
    assert plan.complete
    assert plan.totals == {"density=0.5": 2}
    assert begun(space, tmp_path).complete
    plan.folder.forgive()
    assert len(run_out(begun(space, tmp_path), accuracy)) == 5


def test_a_retried_sample_that_is_better_is_confirmed_instead(tmp_path: Path) -> None:
    space = space_with(2, "random", retries=0, grid={"density": [0.5]})
    plan = begun(space, tmp_path)
    first = plan.next()
    assert first is not None
    fail(plan, first.trial_id)
    plan.ended(first.trial_id)
    run_out(plan, lambda config: 0.5)
    plan.folder.forgive()
    again = begun(space, tmp_path)
    assert not again.complete
    run_out(again, lambda config: 0.9)
    assert best_of(again.folder, "density=0.5").id == first.trial_id
    assert values(again.folder, "density=0.5", first.trial_id) == [1, 2, 3]


def test_a_result_that_was_lost_runs_again_and_changes_nothing(tmp_path: Path) -> None:
    space = space_with(grid={"density": [0.5]})
    run_out(begun(space, tmp_path), accuracy)
    folder = SweepFolder(tmp_path)
    for lost in (searched(folder)[0].id, confirming(folder)[0].id):
        break_down(folder, lost)
        plan = begun(space, tmp_path)
        assert not plan.complete
        assert run_out(plan, accuracy) == [lost]


def test_pruners_never_stop_a_confirmation(tmp_path: Path) -> None:
    space = make_space(
        trial=TRIAL, search=SEARCH, samples=3, grid={"density": [0.5]}, confirm={"seed": [1]},
        pruner={"name": "median", "n_startup_trials": 1, "n_warmup_steps": 0},
    )  # fmt: skip
    plan = begun(space, tmp_path)
    stopped = []
    for k in range(4):
        assignment = plan.next()
        assert assignment is not None
        for step in range(1, 5):
            plan.judge(assignment.trial_id, step, 0.9 if k == 0 else 0.1)
        (sample,) = plan._records[assignment.trial_id].samples
        stopped.append(sample.stopped is not None)
        finish(plan, assignment.trial_id, lambda config, k=k: 0.9 - 0.1 * k)
        plan.ended(assignment.trial_id)
    assert any(stopped[1:3])
    assert not stopped[3]
    assert plan.complete


@pytest.mark.parametrize(("feasible", "chosen"), [(True, 0.2), (False, 0.6)])
def test_an_infeasible_sample_is_confirmed_only_if_none_is_feasible(
    tmp_path: Path, feasible: bool, chosen: float
) -> None:
    """The objective prefers large momentum; the bound allows small ones only."""
    search = {"finetune.momentum": {"choice": [0.2, 0.6, 0.9]}}
    bound = 0.5 if feasible else 0.1
    space = make_space(
        search=search, samples=3, sampler="grid", grid={"density": [0.5]}, confirm={"seed": [1]},
        constraints=[{"column": "val_loss", "at_most": bound}],
    )  # fmt: skip
    folder = written(space, tmp_path)
    plan = Plan(space, folder)
    while (assignment := plan.next()) is not None:
        momentum = assignment.config.finetune.momentum  # type: ignore[attr-defined]
        attempt, _ = plan._records[assignment.trial_id].folder.begin()
        loss = momentum if feasible else {0.2: 3.0, 0.6: 0.6, 0.9: 2.0}[momentum]
        attempt.end("complete", result={"val_accuracy": momentum, "val_loss": loss})
        plan.ended(assignment.trial_id)
    (confirmed,) = confirming(folder)
    assert confirmed.content["finetune"]["momentum"] == chosen
    row = figures(tmp_path)["density=0.5"]
    text = "1/1" if feasible else "1/1, 1 outside the constraints, no sample keeps the constraints"
    assert (row["confirmed"], row["n"], row["searched"]) == (text, 1, chosen)


def test_equally_good_samples_agree_with_the_tables(tmp_path: Path) -> None:
    for seed in range(4):
        space = space_with(5, "random", grid={"density": [0.5]}, seed=seed)
        folder = written(space, tmp_path / str(seed))
        run_out(Plan(space, folder), lambda config: 0.5)
        assert figures(tmp_path / str(seed))["density=0.5"]["confirmed"] == "3/3"


def test_epochs_of_confirmations_count(tmp_path: Path) -> None:
    """Each trial plans one epoch: the budget ends after three samples and one of three confirmations."""
    limits: dict[str, Any] = {"grid": {"density": [0.5]}, "retries": 0}
    space = space_with(3, max_epochs=4, **limits)
    plan = begun(space, tmp_path)
    ran = []
    while (assignment := plan.next()) is not None:
        attempt, _ = plan._records[assignment.trial_id].folder.begin()
        attempt.end("complete", result={"val_accuracy": 0.5, "epochs": 1})
        plan.ended(assignment.trial_id)
        ran.append(assignment.trial_id)
    assert (len(ran), plan.complete, plan.out_of_budget, plan.over) == (4, False, True, True)
    again = begun(space, tmp_path)
    assert (again.over, again.next()) == (True, None)
    assert len(run_out(begun(space_with(3, max_epochs=6, **limits), tmp_path))) == 2


def test_an_interrupted_confirmation_fits_the_budget_that_it_had(tmp_path: Path) -> None:
    space = space_with(1, max_epochs=4, grid={"density": [0.5]})
    plan = begun(space, tmp_path)
    sample = plan.next()
    assert sample is not None
    attempt, _ = plan._records[sample.trial_id].folder.begin()
    attempt.end("complete", result={"val_accuracy": 0.5, "epochs": 1})
    plan.ended(sample.trial_id)
    begun_once = plan.next()
    assert begun_once is not None
    again = begun(space, tmp_path)
    assert len(run_out(again, lambda config: 0.5)) == 3


def test_an_earlier_sweep_gives_its_samples_and_not_its_confirmations(tmp_path: Path) -> None:
    space = space_with(3, "random")
    folder = written(space, tmp_path / "earlier")
    run_out(Plan(space, folder), accuracy)
    later = searching("tpe", 3, seed=1, from_sweep="earlier")
    for cell in warm_start(later, SweepFolder(tmp_path / "later")).values():
        assert len(cell.observations) == 3
        assert all(o.values[0] in {accuracy(r.content) for r in searched(folder)} for o in cell.observations)
    tainted = space_with(3, "tpe", {"seed": [4, 0]}, trial={**later.trial, "seed": 9}, from_sweep="earlier")
    said = r"confirm.seed has 0, but the trials of from_sweep 'earlier' were searched"
    with pytest.raises(UserError, match=said):
        warm_start(tainted, SweepFolder(tmp_path / "later"))
    for sure in ("tpe", "random"):  # observations, then points: added to a sweep that took them over
        folder = SweepFolder(tmp_path / f"later-{sure}")
        fields = {"trial": tainted.trial, "from_sweep": "earlier"}
        commit_warm_start(folder, warm_start(space_with(3, sure, None, **fields), folder))
        with pytest.raises(UserError, match=said):
            warm_start(space_with(3, sure, {"seed": [0]}, **fields), folder)


def test_a_confirmation_is_derived_anew_like_any_sample(tmp_path: Path) -> None:
    space = space_with(2)
    run_out(begun(space, tmp_path), accuracy)
    records = SweepFolder(tmp_path).records()
    assert compare_committed(space, records).difference is None
    for other in (searching("tpe", 2), space_with(2, confirm={"seed": [1, 2]})):
        difference = compare_committed(other, records).difference
        assert difference is not None
        assert "but confirm has no such value: add it" in difference
    record = confirming(SweepFolder(tmp_path))[0]
    changed = {**record.content, "seed": 17}
    SweepFolder(tmp_path).schedule(record.id, changed, record.samples)
    difference = compare_committed(space, SweepFolder(tmp_path).records()).difference
    assert difference is not None
    assert "trial.seed" in difference
