"""A driver asks for the same samples, however many drivers died before it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from sweeper.folder.sweep_folder import SweepFolder
from sweeper.space.space import Space
from tests.sweeper.sweeps import (
    SAMPLERS,
    asked,
    begun,
    finish,
    finished,
    record_of,
    run_out,
    searching,
)
from tests.trials.killing import PLACES, Killed, killed_at_write
from trials.storage.trial_folder import TrialFolder

AT_ONCE = 2


class Drivers:
    """Runs a space to its end, two trials at once, the oldest ending first; replaces the driver after given steps."""

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
        assert finished(self.plan) == len(self.plan.folder.records())
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
            if self.plan is before:  # a new driver has read the outcome from the folder
                self.plan.ended(trial_id)
                yield self._count()

    def _count(self) -> int:
        self.steps += 1
        return self.steps

    def _succeed(self) -> None:
        """Replace the driver: the next one hands out unfinished trials before anything new."""
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


def test_after_a_kill_at_any_step_the_next_driver_asks_the_same(tmp_path: Path, undisturbed: Drivers) -> None:
    expected = asked(undisturbed.plan.folder)
    for step in range(1, undisturbed.steps + 1):
        drivers = Drivers(undisturbed.space, tmp_path / str(step)).go(killed_after=range(step, step + 1))
        assert asked(drivers.plan.folder) == expected, step


def test_after_kills_at_every_step_the_next_drivers_ask_the_same(tmp_path: Path, undisturbed: Drivers) -> None:
    drivers = Drivers(undisturbed.space, tmp_path / "sweep").go(killed_after=range(1, 10_000))
    assert asked(drivers.plan.folder) == asked(undisturbed.plan.folder)


@pytest.mark.parametrize("place", PLACES)
def test_a_driver_killed_while_it_schedules(tmp_path: Path, undisturbed: Drivers, place: str) -> None:
    path = tmp_path / "sweep"
    for number in (1, 4, 7, 10):  # three writes per trial: scheduled, begun, ended
        with killed_at_write(number, place), pytest.raises(Killed):
            run_out(begun(undisturbed.space, path))
    run_out(begun(undisturbed.space, path))
    if undisturbed.space.sampler.name == "random":  # TPE depends on the order in which trials end
        assert asked(SweepFolder(path)) == asked(undisturbed.plan.folder)
    assert len(SweepFolder(path).records()) == 8


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


def test_many_samples_are_replayed_in_their_order(tmp_path: Path) -> None:
    """With more than 25 samples, TPE weighs old ones less, so that the order matters."""
    plan = begun(searching("tpe", samples=45, grid={"density": [0.5]}), tmp_path)
    for turn in range(44):
        if turn >= 40:
            expected = begun(plan.space, tmp_path)._searches["density=0.5"].ask()
        assignment = plan.next()
        assert assignment is not None
        if turn >= 40:
            assert record_of(plan.folder, assignment.trial_id).samples == (expected,)
        finish(plan, assignment.trial_id)
        plan.ended(assignment.trial_id)
