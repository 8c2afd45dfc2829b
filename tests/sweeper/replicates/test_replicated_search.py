"""Every point of a search runs with several seeds, and the search is told one value of it."""

from __future__ import annotations

import random
import statistics
from pathlib import Path
from typing import Any

import pytest
from optuna.trial import TrialState

from sweeper.folder.sweep_folder import SweepFolder
from sweeper.search.cells.replicated_study import RACE
from sweeper.sweep import load
from tests.sweeper.replicates.replicated_sweeps import (
    Storm,
    by_point,
    noisy,
    replicated,
    samples_of,
    space_with,
    told,
)
from tests.sweeper.sweeps import begun, fail, finish, landscape, make_space, run_out

CELLS = ("density=0.5", "density=0.2")
STATES = {"tpe", "random", "gp", "qmc", "cmaes", "nsga2", "grid"}


def test_a_point_is_asked_once_and_runs_with_every_seed(tmp_path: Path) -> None:
    plan = begun(space_with(samples=4), tmp_path)
    assert plan.totals == dict.fromkeys(CELLS, 12)
    assert len(run_out(plan, noisy())) == 24
    points = by_point(plan.folder)
    assert len(points) == 8
    for records in points.values():
        assert sorted(records) == [0, 1, 2]
        contents = [{**record.content, "seed": None} for record in records.values()]
        assert contents[0] == contents[1] == contents[2]
        assert {record.content["seed"] for record in records.values()} == {0, 1, 2}
    for cell in CELLS:
        assert len(told(plan, cell)) == 4
    assert begun(space_with(samples=4), tmp_path).complete


@pytest.mark.parametrize(
    ("judge", "expected"),
    [
        ("mean", statistics.fmean),
        ("median", statistics.median),
        ("lower_bound", lambda values: statistics.fmean(values) - statistics.stdev(values)),
        ({"name": "lower_bound", "k": 2}, lambda values: statistics.fmean(values) - 2 * statistics.stdev(values)),
    ],
)
@pytest.mark.parametrize("direction", ["maximize", "minimize"])
def test_the_judge_makes_one_value_of_a_points_values(
    tmp_path: Path, judge: Any, expected: Any, direction: str
) -> None:
    sign = 1 if direction == "maximize" else -1
    space = space_with(3, replicates={"judge": judge}, direction=direction)
    plan = begun(space, tmp_path)
    run_out(plan, lambda config: sign * noisy(0.1)(config))
    for cell in CELLS:
        for number, (state, values, _) in enumerate(told(plan, cell)):
            found = [r.state.result["val_accuracy"] for r in by_point(plan.folder)[cell, number].values() if r.state]
            assert state == TrialState.COMPLETE
            assert values == [pytest.approx(sign * expected([sign * value for value in found]))]


def test_a_point_with_a_failed_replicate_has_failed_and_gets_no_further_one(tmp_path: Path) -> None:
    plan = begun(space_with(2, retries=0), tmp_path)
    first = plan.next()
    assert first is not None
    fail(plan, first.trial_id)
    plan.ended(first.trial_id)
    run_out(plan)
    cell = first.cell
    assert [state for state, *_ in told(plan, cell)] == [TrialState.FAIL, TrialState.COMPLETE]
    assert len(by_point(plan.folder)[cell, 0]) == 1
    assert plan.totals[cell] == 1 + 3


def test_a_bound_that_one_replicate_misses_is_missed_by_the_point(tmp_path: Path) -> None:
    space = space_with(2, "random", constraints=[{"column": "val_accuracy", "at_most": 0.5}])
    plan = begun(space, tmp_path)
    run_out(plan, lambda config: 0.4 + 0.1 * config["seed"])  # 0.4, 0.5, 0.6
    study = replicated(plan, CELLS[0])
    assert all(outcome.missed == pytest.approx(0.2) for outcome in study.outcomes.values())
    assert all(outcome.values == (pytest.approx(0.5),) for outcome in study.outcomes.values())


def test_the_race_drops_what_can_no_longer_matter(tmp_path: Path) -> None:
    space = space_with(12, "random", replicates={"race": True})
    plan = begun(space, tmp_path)
    ran = run_out(plan, noisy(0.005))
    assert len(ran) < 2 * 12 * 3
    for cell in CELLS:
        states = [state for state, *_ in told(plan, cell)]
        assert states.count(TrialState.PRUNED) >= 3
        assert states.count(TrialState.COMPLETE) >= 2
        study = replicated(plan, cell)
        complete = {n: o.values[0] for n, o in study.outcomes.items() if o.values}
        for number, point in study.points.items():
            finished = point.outcome is not None and point.outcome.state == TrialState.COMPLETE
            assert finished == (len(point.ended) == 3)
            assert point.dropped == (not finished)
            if point.dropped:
                assert statistics.fmean(point.values) < max(complete.values())
                (last,) = [s for s in point.asked.values() if s.attrs["replicate"].get("dropped")]
                assert last.attrs["replicate"]["dropped"] == RACE
                assert number not in complete
        assert plan.totals[cell] == sum(len(point.asked) for point in study.points.values())


def test_without_noise_the_race_finds_the_best_point_of_a_sweep_without_it(tmp_path: Path) -> None:
    raced = begun(space_with(12, "random", replicates={"race": True}), tmp_path / "a")
    whole = begun(space_with(12, "random"), tmp_path / "b")
    assert len(run_out(raced)) < len(run_out(whole))
    for cell in CELLS:
        best = [
            max((o.values[0], n) for n, o in replicated(p, cell).outcomes.items() if o.values) for p in (raced, whole)
        ]
        assert best[0] == best[1]


@pytest.mark.parametrize("seed", [2, 14, 18, 24])
def test_a_point_that_repeats_one_ends_as_that_one_did(tmp_path: Path, seed: int) -> None:
    spreads = {0.001: 0.001, 0.01: 0.2, 0.05: 0.02, 0.1: 0.03, 0.3: 0.2}

    def noise(config: dict[str, Any]) -> float:
        lr = config["finetune"]["lr"]
        return 0.5 + spreads[lr] * random.Random(repr((config["seed"], lr, seed))).gauss(0, 1)

    space = make_space(
        grid={"density": [0.5]}, search={"finetune.lr": {"choice": list(spreads)}}, sampler="random", samples=20,
        ask_again=0, seed=seed, replicates={"values": {"seed": [0, 1, 2, 3]}, "race": True},
    )  # fmt: skip
    SweepFolder(tmp_path).append({"space": space.document()})
    plan = begun(space, tmp_path)
    run_out(plan, noise)
    study, ends = replicated(plan, CELLS[0]), {}
    for number, outcome in study.outcomes.items():
        ends.setdefault(study.samples[number].params["finetune.lr"], []).append((outcome.state, outcome.values))
    assert all(found.count(found[0]) == len(found) for found in ends.values())
    assert TrialState.PRUNED in {found[0][0] for found in ends.values()}
    sweep, best = load(tmp_path), max(values for found in ends.values() for _, values in found if values)
    assert sweep.best()["val_accuracy"].tolist() == list(best)
    assert sorted(sweep.points()["finetune.lr"]) == sorted(ends)  # a row each


def test_a_raced_point_runs_one_replicate_at_a_time(tmp_path: Path) -> None:
    plan = begun(space_with(3, replicates={"race": True}), tmp_path)
    running = [a.trial_id for _ in range(20) if (a := plan.next()) is not None]
    assert len(running) == 6  # the first replicate of every point
    assert plan.next() is None
    assert not plan.complete
    finish(plan, running[0])
    plan.ended(running[0])
    assert plan.next() is not None
    assert plan.next() is None


def test_seeds_may_be_added(tmp_path: Path) -> None:
    run_out(begun(space_with(3), tmp_path), noisy())
    plan = begun(space_with(3, replicates={"values": {"seed": [0, 1, 2, 7]}}), tmp_path)
    assert plan.totals == dict.fromkeys(CELLS, 12)
    assert len(run_out(plan, noisy())) == 6
    assert all(sorted(records) == [0, 1, 2, 7] for records in by_point(plan.folder).values())


def test_two_fields_give_their_combinations(tmp_path: Path) -> None:
    plan = begun(space_with(1, replicates={"values": {"seed": [0, 1], "split_seed": [3, 4]}}), tmp_path)
    run_out(plan)
    found = {(r.content["seed"], r.content["split_seed"]) for r in plan.folder.records()}
    assert found == {(0, 3), (0, 4), (1, 3), (1, 4)}


def test_a_cell_without_a_search_runs_its_one_point_with_every_seed(tmp_path: Path) -> None:
    from tests.sweeper.sweeps import make_space

    space = make_space(samples=1, replicates={"values": {"seed": [4, 5]}})
    plan = begun(space, tmp_path)
    run_out(plan)
    assert sorted(record.content["seed"] for record in plan.folder.records()) == [4, 4, 5, 5]
    assert begun(space, tmp_path).complete


SPACES: dict[str, dict[str, Any]] = {
    "tpe": {},
    "random": {},
    "qmc": {},
    "gp": {"samples": 4},
    "cmaes": {"samples": 8},
    "nsga2": {"sampler": {"name": "nsga2", "population_size": 3}, "samples": 7},
    "nsga3": {"sampler": {"name": "nsga3", "population_size": 3}, "samples": 7},
    "grid": {"sampler": {"name": "grid", "points": 2}, "samples": 4},
}


@pytest.mark.parametrize("race", [False, True], ids=["all", "race"])
@pytest.mark.parametrize("sampler", SPACES)
def test_a_new_driver_knows_what_the_last_one_knew(tmp_path: Path, sampler: str, race: bool) -> None:
    fields = {"sampler": sampler, "samples": 6, **SPACES[sampler]}
    space = space_with(**fields, replicates={"race": race})
    storm = Storm(space, tmp_path, seed=len(sampler), value=noisy(0.05))
    folder = storm.run()
    for (_, number), records in by_point(folder).items():
        params = {repr(s.params) for r in records.values() for s in r.samples if s.number == number}
        assert len(params) == 1
    assert begun(space, tmp_path).complete


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("race", [False, True], ids=["all", "race"])
def test_failures_lose_nothing(tmp_path: Path, seed: int, race: bool) -> None:
    space = space_with(5, retries=0, replicates={"race": race})
    Storm(space, tmp_path, seed, noisy(0.05)).run(failures=0.2)
    plan = begun(space, tmp_path)
    assert plan.complete
    for cell in CELLS:
        for point in replicated(plan, cell).points.values():
            states = [outcome.state for outcome in point.ended.values()]
            assert point.outcome is not None
            if TrialState.FAIL in states:
                assert point.outcome.state == TrialState.FAIL
            else:
                assert (point.outcome.state == TrialState.COMPLETE) == (len(states) == 3)


def test_one_point_at_a_time_gives_the_same_sweep_however_often_drivers_die(tmp_path: Path) -> None:
    for race in (False, True):
        space = space_with(6, replicates={"race": race})
        whole = Storm(space, tmp_path / f"a{race}", 0, noisy(0.05)).run(deaths=0, wide=1)
        torn = Storm(space, tmp_path / f"b{race}", 1, noisy(0.05)).run(deaths=0.5, wide=1)
        assert samples_of(whole) == samples_of(torn)


def test_a_lost_replicate_runs_again(tmp_path: Path) -> None:
    space = space_with(3)
    run_out(begun(space, tmp_path), noisy())
    records = by_point(SweepFolder(tmp_path))[CELLS[0], 1]
    (records[1].folder.path / "config.json").write_bytes(b"{")
    folder = SweepFolder(tmp_path)
    folder.repair()
    plan = begun(space, tmp_path)
    assert run_out(plan, noisy()) == [records[1].id]
    assert {number: r.id for number, r in by_point(folder)[CELLS[0], 1].items()} == {
        number: r.id for number, r in records.items()
    }


def test_the_best_point_is_confirmed_with_fresh_seeds(tmp_path: Path) -> None:
    from sweeper.folder.confirmations import confirmation_of

    space = space_with(4, confirm={"seed": [7, 8]})
    plan = begun(space, tmp_path)
    assert plan.totals == dict.fromkeys(CELLS, 14)
    run_out(plan, noisy(0.3))
    for cell in CELLS:
        outcomes = replicated(plan, cell).outcomes
        best = max(outcomes, key=lambda number: outcomes[number].values or (0.0,))
        found = [s for r in plan.folder.records() for s in r.samples if s.cell == cell and confirmation_of(s)]
        assert {s.number for s in found} == {best}
        first = by_point(plan.folder)[cell, best][0]
        assert {c.trial for s in found if (c := confirmation_of(s))} == {first.id}
    assert begun(space, tmp_path).complete


def test_one_seed_would_choose_another_point(tmp_path: Path) -> None:
    """What replicates are for: a lucky seed does not choose the point."""

    def lucky(config: dict[str, Any]) -> float:
        luck = 0.0 if config["finetune"]["lr"] > 0.03 else 0.9 if config["seed"] == 0 else -0.5
        return landscape(config) + luck

    plan = begun(space_with(8, "random"), tmp_path)
    run_out(plan, lucky)
    outcomes = replicated(plan, CELLS[0]).outcomes
    best = max(outcomes, key=lambda number: outcomes[number].values or (0.0,))
    one_seed = {
        number: records[0].state.result["val_accuracy"]
        for (cell, number), records in by_point(plan.folder).items()
        if cell == CELLS[0] and records[0].state
    }
    assert best != max(one_seed, key=lambda number: one_seed[number])
