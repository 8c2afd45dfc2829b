"""A point with replicates counts as one: in budgets, beside added seeds, with equal content, without its figures."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest
from optuna.trial import TrialState

from sweeper.folder.sweep_folder import SweepFolder
from sweeper.search.plan import Plan
from sweeper.search.warm_start import warm_start
from sweeper.space.check_ends import too_few_epochs
from sweeper.space.compatibility import contradictions
from sweeper.space.space import Space
from sweeper.sweep import load
from tests.sweeper.replicates.replicated_sweeps import noisy, replicated, space_with
from tests.sweeper.sweeps import begun, fail, finish, landscape, make_space, record_of, run_out
from trials.errors import UserError
from trials.storage.trial_folder import TrialFolder

ONE = {"grid": {"density": [0.5]}}
CELL = "density=0.5"


def driver(space: Space, path: Path) -> Plan:
    """A new driver, which writes its space down first."""
    SweepFolder(path).append({"space": space.document()})
    return begun(space, path)


def handed_out(plan: Plan) -> list[str]:
    found = []
    while (assignment := plan.next()) is not None:
        found.append(assignment.trial_id)
    return found


def end(plan: Plan, trial_id: str, value: float | None = 0.5) -> None:
    """Complete a trial that has trained all its epochs."""
    epochs = record_of(plan.folder, trial_id).content["finetune"]["epochs"]
    attempt, _ = TrialFolder(plan.folder.trial_folder(trial_id)).begin()
    attempt.end("complete", result={"val_accuracy": value, "epochs": epochs})
    plan.ended(trial_id)


@pytest.mark.parametrize("race", [False, True])
@pytest.mark.parametrize("budget", range(3, 22))
def test_a_point_is_begun_only_if_the_budget_holds_all_its_replicates(tmp_path: Path, budget: int, race: bool) -> None:
    search = {"finetune.lr": {"loguniform": [1e-3, 1.0]}}
    replicates = {"values": {"seed": [0, 1, 2]}, "race": race}
    space = make_space(search=search, samples=4, sampler="random", replicates=replicates, max_epochs=budget)
    plan = driver(space, tmp_path / "s")
    draw, running = random.Random(budget), list[str]()
    while True:
        running += handed_out(plan)
        if not running:
            break
        end(plan, running.pop(draw.randrange(len(running))), draw.random())
    assert plan.over
    points = load(tmp_path / "s").points()
    assert set(points["status"]) <= {"complete", "pruned"}
    spent = int(points["replicates"].sum())
    assert spent <= budget
    if not race:
        assert len(points) == min(budget // 3, 8)


def test_a_known_point_goes_on_although_a_longer_one_would_not_fit(tmp_path: Path) -> None:
    search = {"finetune.epochs": {"choice": [1, 10]}, "finetune.lr": {"loguniform": [1e-3, 1.0]}}
    space = make_space(
        **ONE, search=search, samples=6, sampler="random", replicates={"values": {"seed": [0, 1, 2]}}, max_epochs=30,
        enqueue=[{"finetune.epochs": 1}],
    )  # fmt: skip
    plan = driver(space, tmp_path / "s")
    while (assignment := plan.next()) is not None:
        end(plan, assignment.trial_id)
    assert plan.out_of_budget
    assert load(tmp_path / "s").points()["status"].tolist() == ["complete"]
    assert plan.budget.taken == 3


@pytest.mark.parametrize(
    ("epochs", "says"), [(2, "a point may take 3 epochs with its 3 replicates: none is begun"), (3, None), (None, None)]
)
def test_a_budget_that_no_point_fits_is_said(epochs: int | None, says: str | None) -> None:
    space = make_space(
        search={"finetune.lr": {"loguniform": [1e-3, 1.0]}}, samples=4, max_epochs=epochs,
        replicates={"values": {"seed": [0, 1, 2]}},
    )  # fmt: skip
    said = too_few_epochs(space)
    assert said is None if says is None else said is not None and said.endswith(says)


@pytest.mark.parametrize("rule", [{"stop_at": 0.3}, {"stop_when": {"plateau": {"samples": 1, "improvement": 9.0}}}])
def test_added_seeds_begin_no_new_point_before_the_old_ones_are_known_again(tmp_path: Path, rule: Any) -> None:
    path = tmp_path / "s"
    run_out(driver(space_with(12, replicates={"values": {"seed": [0, 1]}}, **ONE, **rule), path), noisy(0.01))
    points = len(load(path).points())
    assert points < 12
    plan = driver(space_with(12, replicates={"values": {"seed": [2, 0, 1]}}, **ONE, **rule), path)
    asked = handed_out(plan)
    assert len(asked) == points
    for trial_id in asked:
        finish(plan, trial_id, noisy(0.01))
        plan.ended(trial_id)
    assert plan.complete
    assert load(path).points()["replicates"].tolist() == [3] * points


@pytest.mark.parametrize("killed", [False, True])
def test_points_after_added_seeds_are_asked_knowing_the_old_ones(tmp_path: Path, killed: bool) -> None:
    """Also by a driver that begins when some of the old points have their new replicate and others have not."""
    path = tmp_path / "s"
    run_out(driver(space_with(6, replicates={"values": {"seed": [0, 1]}}, **ONE), path), noisy(0.01))
    both = space_with(9, replicates={"values": {"seed": [0, 1, 2]}}, retries=0, **ONE)
    plan = driver(both, path)
    asked = handed_out(plan)
    assert len(asked) == 6
    for trial_id in asked[:3]:
        finish(plan, trial_id, noisy(0.01))
        plan.ended(trial_id)
        assert plan.next() is None
    if killed:
        plan = begun(both, path)
        assert sorted(handed_out(plan)) == sorted(asked[3:])
    for trial_id in asked[3:5]:
        finish(plan, trial_id, noisy(0.01))
        plan.ended(trial_id)
    fail(plan, asked[5])
    plan.ended(asked[5])
    assert {record_of(plan.folder, trial_id).samples[0].number for trial_id in handed_out(plan)} == {6, 7, 8}
    told = replicated(plan, CELL).outcomes
    assert [told[number].state for number in range(6)] == [TrialState.COMPLETE] * 5 + [TrialState.FAIL]


@pytest.mark.parametrize("seed", range(8))
def test_values_that_are_written_differently_are_one_point_for_the_race(tmp_path: Path, seed: int) -> None:
    spreads = [0.001, 0.2, 0.02, 0.03, 0.2]
    steps = [f"0:0.{i + 1}{'0' * zeros}" for i in range(5) for zeros in range(3)]

    def value(config: dict[str, Any]) -> float:
        which = int(str(config["finetune"]["lr_steps"]).partition("0.")[2][0]) - 1
        return 0.5 + spreads[which] * random.Random(repr((config["seed"], which, seed))).gauss(0, 1)

    space = make_space(
        **ONE, search={"finetune.lr_steps": {"choice": steps}}, sampler="random", samples=15, ask_again=0, seed=seed,
        replicates={"values": {"seed": [0, 1, 2, 3]}, "race": True},
    )  # fmt: skip
    path = tmp_path / "s"
    plan = driver(space, path)
    run_out(plan, value)
    ends: dict[str, set[tuple[TrialState, Any]]] = {}
    for point in replicated(plan, CELL).points.values():
        assert point.outcome is not None
        trial = space.config(plan.cells[0], point.sample.params).id
        ends.setdefault(trial, set()).add((point.outcome.state, point.outcome.values))
    assert all(len(found) == 1 for found in ends.values())
    assert "running" not in set(load(path).points()["status"])
    assert load(path).standing().left == 0


@pytest.mark.parametrize("race", [False, True])
@pytest.mark.parametrize("missing", [None, float("nan"), float("inf")])
def test_a_complete_trial_without_its_figure_fails_its_point_in_the_tables_too(
    tmp_path: Path, missing: float | None, race: bool
) -> None:
    path, ran = tmp_path / "s", list[str]()

    def value(config: dict[str, Any]) -> float | None:
        ran.append("")
        return missing if len(ran) == 1 else landscape(config)

    plan = driver(space_with(3, replicates={"values": {"seed": [1, 2, 3]}, "race": race}, **ONE), path)
    run_out(plan, value)
    assert load(path).points()["status"].tolist() == ["failed", "complete", "complete"]
    standing = load(path).standing()
    assert (standing.left, standing.complete, standing.total) == (0, True, plan.totals[CELL])


@pytest.mark.parametrize("seeds", [[0, 1, 2], [2, 1], [2, 0, 1]])
def test_confirmations_count_although_another_replicate_is_the_first(tmp_path: Path, seeds: list[int]) -> None:
    path = tmp_path / "s"
    confirm = {"confirm": {"seed": [7, 8]}}
    run_out(driver(space_with(3, replicates={"values": {"seed": [1, 2]}}, **ONE, **confirm), path), noisy(1e-4))
    before = load(path).summary()
    longer = space_with(3, replicates={"values": {"seed": seeds}}, **ONE, **confirm)
    assert not contradictions(space_with(3, replicates={"values": {"seed": [1, 2]}}, **ONE, **confirm), longer)
    run_out(driver(longer, path), noisy(1e-4))
    after = load(path).summary()
    assert before["confirmed"].tolist() == after["confirmed"].tolist() == ["2/2"]
    assert after["n"].tolist() == [2]
    assert load(path).standing().left == 0


def test_points_of_an_earlier_sweep_that_were_not_run_to_their_end_are_not_taken_over(tmp_path: Path) -> None:
    """The driver died when one replicate was complete, and the next one not asked for."""
    replicates = {"values": {"seed": [0, 1, 2]}, "race": True}
    plan = driver(space_with(3, replicates=replicates, **ONE), tmp_path / "a")
    finish(plan, handed_out(plan)[0], noisy(0.01))
    after = space_with(3, replicates=replicates, from_sweep="a", **ONE)
    with pytest.raises(UserError, match="none of its 0 complete trials"):
        warm_start(after, SweepFolder(tmp_path / "b"))
    run_out(begun(plan.space, tmp_path / "a"), noisy(0.01))
    (warm,) = warm_start(after, SweepFolder(tmp_path / "b")).values()
    whole = [point for point in replicated(begun(plan.space, tmp_path / "a"), CELL).outcomes.values() if point.values]
    assert len(warm.observations) == len(whole)


def test_a_point_whose_other_trial_still_runs_is_running_in_its_study(tmp_path: Path) -> None:
    path = tmp_path / "s"
    plan = driver(space_with(1, replicates={"values": {"seed": [0, 1, 2]}}, retries=0, **ONE), path)
    first, *others = handed_out(plan)
    fail(plan, first)
    plan.ended(first)
    for trial_id in others:
        TrialFolder(plan.folder.trial_folder(trial_id)).begin()
    assert [trial.state for trial in load(path).study(CELL).trials] == [TrialState.RUNNING]
    for trial_id in others:
        finish(plan, trial_id)
    assert [trial.state for trial in load(path).study(CELL).trials] == [TrialState.FAIL]
