"""Points that run with several seeds, beside a pruner: what is compared, how a point ends, what is replayed."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from optuna.trial import TrialState

from sweeper.folder.forgiving import forgive_trial
from sweeper.folder.sweep_folder import SweepFolder
from sweeper.search.plan import Plan
from sweeper.space.space import Space
from sweeper.sweep import load
from tests.sweeper.pruned import KINDS, Curve, Drivers, accuracy, space_of, train
from tests.sweeper.replicates.replicated_sweeps import everything_told, replicated, samples_of
from tests.sweeper.sweeps import begun, fail
from trials.storage.trial_folder import TrialFolder

SEEDS = [0, 1, 2]
CELLS = ("density=0.5", "density=0.2")
EASY = {"name": "median", "n_startup_trials": 1}


def pruned_space(pruner: Any, samples: int = 5, *, race: bool = False, **fields: Any) -> Space:
    replicates = {"values": {"seed": SEEDS}, "race": race}
    return space_of(pruner, samples, **{"replicates": replicates, "retries": 0, **fields})


def noisy(config: dict[str, Any], step: int) -> float:
    draw = random.Random(repr((config["seed"], config["density"], config["finetune"]["lr"])))
    return accuracy(config, step) + 0.02 * draw.gauss(0, 1)


SOME = [*((kind, False) for kind in KINDS), ("halving", True), ("median", True)]
"""Kinds of pruners, and whether points are raced."""


class Crowd:
    """Runs a sweep with several trials at once, each a row further in random order, with drivers that die.

    Trials fail with the probability ``failures`` in place of their last row.
    """

    def __init__(self, space: Space, path: Path, seed: int, value: Curve = noisy) -> None:
        self.space, self.path, self.value = space, path, value
        self.random = random.Random(seed)
        self.plan = begun(space, path)
        self.running: dict[str, Iterator[str]] = {}
        self.stopped = self.ended = 0

    def run(self, *, deaths: float = 0.02, failures: float = 0.0, wide: int = 4) -> Plan:
        while not self.plan.over:
            while len(self.running) < wide and (assignment := self.plan.next()) is not None:
                self.running[assignment.trial_id] = train(self.plan, assignment.trial_id, self.value)
            mine = self.random.choice(sorted(self.running))
            came_to = next(self.running[mine])
            if self.random.random() < deaths:
                self.plan, self.running = begun(self.space, self.path), {}
            elif came_to in ("complete", "pruned"):
                self.end(mine, came_to)
            elif self.random.random() < failures / 20:
                fail(self.plan, mine)
                self.end(mine, "failed")
        assert self.plan.complete
        return self.plan

    def end(self, mine: str, came_to: str) -> None:
        del self.running[mine]
        self.plan.ended(mine)
        self.stopped += came_to == "pruned"
        self.ended += 1
        if self.ended % 4 == 0:
            self.check()

    def check(self) -> None:
        """What a new driver would tell the samplers is what this one has told them."""
        other = begun(self.space, self.path)
        assert other.totals == self.plan.totals
        assert everything_told(other) == everything_told(self.plan)
        for mine, theirs in zip(self.plan._searches.values(), other._searches.values(), strict=True):
            assert (mine.wants, mine.count, mine.total) == (theirs.wants, theirs.count, theirs.total)


@pytest.mark.parametrize(("kind", "race"), SOME)
def test_a_new_driver_knows_what_the_last_one_knew(tmp_path: Path, kind: str, race: bool) -> None:
    space = pruned_space(KINDS[kind], race=race)
    crowd = Crowd(space, tmp_path, seed=len(kind))
    plan = crowd.run()
    for cell in CELLS:
        for point in replicated(plan, cell).points.values():
            states = {outcome.state for outcome in point.ended.values()}
            assert point.outcome is not None
            pruned = TrialState.PRUNED in states or point.dropped
            assert point.outcome.state == (TrialState.PRUNED if pruned else TrialState.COMPLETE)
    params: dict[tuple[str, int], set[str]] = {}
    for (cell, number, _), sample in samples_of(plan.folder).items():
        params.setdefault((cell, number), set()).add(repr(sample.params))
    assert all(len(found) == 1 for found in params.values())
    assert crowd.stopped or kind == "patient alone"


@pytest.mark.parametrize("kind", ["halving", "median"])
def test_failures_beside_stopped_trials_lose_nothing(tmp_path: Path, kind: str) -> None:
    for seed in range(2):
        plan = Crowd(pruned_space(KINDS[kind]), tmp_path / str(seed), seed).run(failures=0.2)
        for cell in CELLS:
            for point in replicated(plan, cell).points.values():
                states = {outcome.state for outcome in point.ended.values()}
                worst = next(s for s in (TrialState.FAIL, TrialState.PRUNED, TrialState.COMPLETE) if s in states)
                assert point.outcome is not None
                assert point.outcome.state == worst


@pytest.mark.parametrize(("kind", "race"), SOME)
def test_one_trial_at_a_time_gives_the_same_sweep_however_often_drivers_die(
    tmp_path: Path, kind: str, race: bool
) -> None:
    space = pruned_space(KINDS[kind], 5, race=race, grid={"density": [0.5]})
    whole = Drivers(space, tmp_path / "whole", noisy).go()
    torn = Drivers(space, tmp_path / "torn", noisy).go(range(3, 10**6, 13))
    assert whole.came_to() == torn.came_to()


@pytest.mark.parametrize("kind", KINDS)
def test_trials_of_one_seed_are_compared_with_each_other_only(tmp_path: Path, kind: str) -> None:
    """Seeds whose values all lie far above or below those of the others change nothing."""
    space = pruned_space(KINDS[kind], sampler="random")

    def lifted(config: dict[str, Any], step: int) -> float:
        return noisy(config, step) + {0: 0.0, 1: 100.0, 2: -100.0}[config["seed"]]

    found = []
    for name, value in (("as they are", noisy), ("lifted", lifted)):
        records = Drivers(space, tmp_path / name, value).go().plan.folder.records()
        states = [(r.id, r.state.status, r.state.result["epochs"]) for r in records if r.state]
        found.append(sorted(states))
    assert found[0] == found[1]
    assert kind == "patient alone" or {status for _, status, _ in found[0]} == {"pruned", "complete"}


def test_a_point_with_a_stopped_trial_gets_no_further_one_and_its_others_end(tmp_path: Path) -> None:
    """The second point is worse with the seed 1 only; the seeds 0 and 2 are stopped because the point is."""
    space = pruned_space(EASY, 3, grid={"density": [0.5]}, sampler="random")
    plan = begun(space, tmp_path)

    def value(config: dict[str, Any], step: int) -> float:
        number = next(n for r in plan.folder.records() if r.content == config for s in r.samples for n in [s.number])
        return (0.1 if (number, config["seed"]) == (1, 1) else 0.5 + 0.1 * number) + 0.01 * step

    ids = [a.trial_id for _ in range(6) if (a := plan.next()) is not None]
    for trial in ids[:3]:
        assert list(train(plan, trial, value))[-1] == "complete"
        plan.ended(trial)
    zero, one, two = (train(plan, trial, value) for trial in ids[3:])
    for _ in range(2):
        assert [next(zero), next(zero)][-1] in ("judged", "trained")
    assert list(one)[-1] == "pruned"
    plan.ended(ids[4])
    assert 1 not in replicated(plan, "density=0.5").outcomes
    rest = list(zero)
    assert rest[-1] == "pruned"
    assert rest.count("judged") <= 1
    plan.ended(ids[3])
    assert list(two) == ["trained", "judged", "pruned"]
    plan.ended(ids[5])
    assert replicated(plan, "density=0.5").outcomes[1].state == TrialState.PRUNED
    left = [a.trial_id for _ in range(9) if (a := plan.next()) is not None]
    assert len(left) == 3
    assert not {*left} & {*ids}


def test_a_point_whose_failed_trial_runs_again_is_complete(tmp_path: Path) -> None:
    """A failure may be forgiven, so it ends no other trial."""
    space = pruned_space(KINDS["halving"], 1, grid={"density": [0.5]})
    plan = begun(space, tmp_path)
    ids = [a.trial_id for _ in range(3) if (a := plan.next()) is not None]
    fail(plan, ids[1])
    plan.ended(ids[1])
    for trial in (ids[0], ids[2]):
        assert list(train(plan, trial))[-1] == "complete"
        plan.ended(trial)
    assert plan.complete
    assert replicated(plan, "density=0.5").outcomes[0].state == TrialState.FAIL
    assert forgive_trial(TrialFolder(plan.folder.trial_folder(ids[1])))
    again = begun(space, tmp_path)
    assert (assignment := again.next()) is not None
    assert assignment.trial_id == ids[1]
    assert list(train(again, ids[1]))[-1] == "complete"
    again.ended(ids[1])
    assert again.complete
    assert replicated(again, "density=0.5").outcomes[0].state == TrialState.COMPLETE


def test_what_the_pruner_leaves_on_a_trial_stays_with_its_seed(tmp_path: Path) -> None:
    """A new driver takes none of it over to a point's next replicates."""
    space = pruned_space(KINDS["halving"], 1, grid={"density": [0.5]}, race=True)
    plan = begun(space, tmp_path)
    assert (assignment := plan.next()) is not None
    assert list(train(plan, assignment.trial_id))[-1] == "complete"
    (first,) = samples_of(plan.folder).values()
    assert any("rung" in key for key in first.attrs["pruner"])
    again = begun(space, tmp_path)
    assert again.next() is not None
    (second,) = (sample for sample in samples_of(plan.folder).values() if sample != first)
    assert "rung" not in repr(second.attrs)


def test_a_new_driver_counts_what_a_search_that_has_ended_early_will_have(tmp_path: Path) -> None:
    rule = {"plateau": {"samples": 3, "improvement": 0.01}}
    plan = Crowd(pruned_space(EASY, 10, stop_when=rule), tmp_path, 5).run()
    assert sum(plan.totals.values()) == len(plan.folder.records()) < 60
    assert begun(plan.space, tmp_path).totals == plan.totals


def test_repeated_points_that_have_ended_early_are_counted(tmp_path: Path) -> None:
    search = {"finetune.lr": {"choice": [0.01, 0.1, 0.3]}, "finetune.momentum": {"choice": [0.0, 0.5]}}
    space = pruned_space(EASY, 10, search=search, ask_again=0)
    SweepFolder(tmp_path).append({"space": space.document()})
    plan = Crowd(space, tmp_path, 7).run()
    standing = load(tmp_path).standing()
    assert len(plan.folder.records()) < sum(plan.totals.values()) < 60
    assert (standing.total, standing.left, standing.cells_done) == (sum(plan.totals.values()), 0, 2)
