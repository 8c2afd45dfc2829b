"""``max_epochs`` is spent on the cells whose next trial fits, not only on the one whose turn it is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from sweeper.search.cell_queue import CellQueue
from tests.sweeper.pruned import TRIAL
from tests.sweeper.sweeps import begun, make_space
from trials.storage.trial_folder import TrialFolder

SEARCH = {"finetune.lr": {"loguniform": [1e-3, 1.0]}}


class Search:
    """What a queue asks of a cell's search."""

    def __init__(self, epochs: int = 1, samples: int = 3) -> None:
        self.next_epochs, self.samples, self.count, self.ready = epochs, samples, 0, True

    @property
    def wants(self) -> bool:
        return self.count < self.samples


def take(queue: CellQueue, searches: dict[str, Any], room: int = 100) -> str | None:
    key = queue.take(lambda epochs: epochs <= room)
    if key is not None:
        searches[key].count += 1
        queue.update(key)
    return key


def test_the_cell_with_the_fewest_samples_comes_first_then_the_grids_order() -> None:
    searches: dict[str, Any] = {"a": Search(), "b": Search(samples=1), "c": Search()}
    searches["a"].count = 1
    queue = CellQueue(searches)
    assert [take(queue, searches) for _ in range(7)] == ["b", "c", "a", "c", "a", "c", None]
    assert not queue


def test_a_cell_that_does_not_fit_is_passed_over_and_keeps_its_place() -> None:
    searches: dict[str, Any] = {"large": Search(9), "middle": Search(5), "small": Search(2)}
    queue = CellQueue(searches)
    assert take(queue, searches, 4) == "small"
    assert take(queue, searches, 5) == "middle"
    assert take(queue, searches, 9) == "large"
    assert take(queue, searches, 1) is None
    assert queue
    assert queue.none_fits(lambda epochs: epochs <= 1)
    assert not queue.none_fits(lambda epochs: epochs <= 2)
    assert take(queue, searches, 9) == "large"


def test_a_cell_that_waits_for_trials_comes_back_when_it_is_ready() -> None:
    searches: dict[str, Any] = {"a": Search(), "b": Search()}
    searches["a"].ready = False
    queue = CellQueue(searches)
    assert [take(queue, searches) for _ in range(4)] == ["b", "b", "b", None]
    queue.update("a")
    assert take(queue, searches) is None
    assert queue, "it still waits"
    searches["a"].ready = True
    queue.update("a")
    assert [take(queue, searches) for _ in range(4)] == ["a", "a", "a", None]


def test_a_cell_that_wants_no_more_leaves_the_queue_and_may_come_back() -> None:
    searches: dict[str, Any] = {"a": Search(), "b": Search()}
    queue = CellQueue(searches)
    searches["a"].samples = 0
    queue.update("a")
    assert take(queue, searches) == "b"
    searches["a"].samples = 1
    queue.update("a")
    assert [take(queue, searches) for _ in range(2)] == ["a", "b"]


def space_of(max_epochs: int | None, samples: int = 2, epochs: tuple[int, ...] = (9, 4)) -> Any:
    """A space whose first cell trains longer than its second."""
    return make_space(
        trial={**TRIAL, "density": 0.5},
        grid={"finetune.epochs": list(epochs)},
        search=SEARCH,
        sampler="random",
        samples=samples,
        max_epochs=max_epochs,
    )


def complete(plan: Any, trial_id: str, epochs: int | None = None) -> None:
    config = plan._records[trial_id].content
    attempt, _ = TrialFolder(plan.folder.trial_folder(trial_id)).begin()
    trained = config["finetune"]["epochs"] if epochs is None else epochs
    attempt.end("complete", result={"val_accuracy": 0.5, "epochs": trained})
    plan.ended(trial_id)


def epochs_of(plan: Any) -> list[int]:
    """The epochs of the trials that are handed out one after the other, each run to its end."""
    found = []
    while (assignment := plan.next()) is not None:
        found.append(assignment.config.finetune.epochs)
        complete(plan, assignment.trial_id)
    return found


@pytest.mark.parametrize(
    ("max_epochs", "run", "left_over"),
    [
        (26, [9, 4, 9, 4], False),
        (25, [9, 4, 9], True),
        (21, [9, 4, 4], True),  # the first cell's second trial does not fit, the second cell's does
        (17, [9, 4, 4], True),
        (13, [9, 4], True),
        (8, [4, 4], True),  # the first cell never fits
        (3, [], True),
    ],
)
def test_the_next_cell_that_fits_is_run(tmp_path: Path, max_epochs: int, run: list[int], left_over: bool) -> None:
    plan = begun(space_of(max_epochs), tmp_path)
    assert epochs_of(plan) == run
    assert (plan.over, plan.out_of_budget, plan.complete) == (True, left_over, not left_over)
    again = begun(space_of(max_epochs), tmp_path)
    assert (again.over, again.out_of_budget, epochs_of(again)) == (True, left_over, [])


def test_a_new_driver_goes_on_with_the_same_cells(tmp_path: Path) -> None:
    plan = begun(space_of(30, samples=5, epochs=(9, 7, 4)), tmp_path)
    found = []
    while (assignment := plan.next()) is not None:
        found.append(assignment.config.finetune.epochs)  # type: ignore[attr-defined]
        complete(plan, assignment.trial_id)
        plan = begun(plan.space, tmp_path)
    assert found == epochs_of(begun(plan.space, tmp_path / "undisturbed")) == [9, 7, 4, 9]
    assert plan.budget.taken == 29


def test_a_cell_that_was_passed_over_is_run_when_a_trial_leaves_epochs(tmp_path: Path) -> None:
    plan = begun(space_of(18), tmp_path)
    first, second, third = (plan.next() for _ in range(3))
    assert first is not None
    assert plan.next() is None
    assert not plan.over
    complete(plan, first.trial_id, epochs=1)
    fourth = plan.next()
    assert fourth is not None
    assert fourth.config.finetune.epochs == 9  # type: ignore[attr-defined]
    assert None not in (second, third)
