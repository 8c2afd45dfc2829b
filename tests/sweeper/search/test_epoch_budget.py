"""A sweep stops before it exceeds its budget of epochs, and continues under a larger one."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

from sweeper.execution.time_limit import time_limit
from sweeper.search.epoch_budget import planned
from sweeper.space.space import Space
from tests.sweeper.pruned import EPOCHS, KINDS, TRIAL, Drivers, space_of
from tests.sweeper.sweeps import begun, make_space
from trials.methods.parsing import parse


def epochs_trained(drivers: Drivers) -> int:
    states = [record.state for record in drivers.plan.folder.records()]
    return sum(state.result["epochs"] for state in states if state is not None)


class Limited(Drivers):
    """Drivers that stop when the budget is spent."""

    def go(self, killed_after: range = range(0)) -> Limited:
        while (assignment := self.plan.next()) is not None:
            if self._train(assignment.trial_id, killed_after):
                self.plan.ended(assignment.trial_id)
            else:
                self.plan = begun(self.space, self.path)
            assert epochs_trained_at_most(self)
        assert self.plan.over
        return self


def epochs_trained_at_most(drivers: Drivers) -> bool:
    return drivers.space.max_epochs is None or drivers.plan.budget.taken <= drivers.space.max_epochs


def with_budget(epochs: int | None, pruner: Any = None) -> Space:
    return space_of(pruner, samples=6, max_epochs=epochs, sampler="random")


def test_without_a_pruner_as_many_trials_run_as_fit(tmp_path: Path) -> None:
    drivers = Limited(with_budget(5 * EPOCHS + 3), tmp_path).go()
    assert epochs_trained(drivers) == drivers.plan.budget.taken == 5 * EPOCHS
    assert (drivers.plan.complete, drivers.plan.out_of_budget) == (False, True)
    again = begun(drivers.space, tmp_path)
    assert again.over
    assert again.next() is None
    more = Limited(with_budget(9 * EPOCHS), tmp_path).go()
    assert epochs_trained(more) == 9 * EPOCHS
    assert Limited(with_budget(None), tmp_path).go().plan.complete


def test_epochs_left_by_stopped_trials_are_spent_on_others(tmp_path: Path) -> None:
    budget = 8 * EPOCHS
    drivers = Limited(with_budget(budget, KINDS["halving"]), tmp_path / "undisturbed").go()
    assert len(drivers.came_to()) > 8
    assert budget - EPOCHS < epochs_trained(drivers) <= budget
    killed = Limited(drivers.space, tmp_path / "killed").go(killed_after=range(2, 10_000, 6))
    assert killed.came_to() == drivers.came_to()


def test_epochs_of_running_trials_are_set_aside(tmp_path: Path) -> None:
    plan = begun(with_budget(3 * EPOCHS), tmp_path)
    handed_out = list(iter(plan.next, None))
    assert len(handed_out) == 3
    assert not plan.over  # they may end early and leave epochs
    assert begun(with_budget(EPOCHS), tmp_path).next() is not None  # trials that have begun continue


def test_a_search_over_epochs_is_counted_by_its_longest(tmp_path: Path) -> None:
    search = {"finetune.epochs": {"int": [1, 10]}}
    plan = begun(make_space(search=search, samples=4, max_epochs=9), tmp_path)
    assert plan.over
    assert begun(make_space(search=search, samples=4, max_epochs=10), tmp_path).next() is not None


@pytest.mark.parametrize(
    ("content", "epochs"),
    [
        ({**TRIAL, "density": 0.5}, EPOCHS),
        ({"method": "imp", "dataset": "digits", "model": "tiny", "levels": 3, "pretrain": {"epochs": 4}}, 12),
        ({"method": "imp", "dataset": "digits", "model": "tiny", "levels": 3, "pretrain": {"epochs": 4},
          "rewind_epoch": 1}, 9),
        ({"method": "dense", "dataset": "digits", "model": "tiny"}, 0),
    ],
)  # fmt: skip
def test_planned_epochs_are_the_trials_own(content: dict[str, Any], epochs: int) -> None:
    assert planned(parse(content)) == epochs


def test_a_time_limit_acts_once_and_only_while_something_runs() -> None:
    acted: list[float] = []
    with time_limit(0.05 / 3600, lambda: acted.append(1)):
        time.sleep(0.3)
    with time_limit(0.2 / 3600, lambda: acted.append(2)), time_limit(None, lambda: acted.append(3)):
        pass
    with time_limit(1e300, lambda: acted.append(4)):
        time.sleep(0.3)
    assert acted == [1]
