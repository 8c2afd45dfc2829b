"""An unfinished trial whose config.json this version cannot read fails alone, as it would in a worker."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sweeper.search.plan import Assignment, Plan
from sweeper.space.space import Space
from tests.sweeper.fake_cluster import fake_cluster
from tests.sweeper.populations import landscape as climbed
from tests.sweeper.populations import places, population
from tests.sweeper.pruned import space_of
from tests.sweeper.sweeps import begun, finish, make_space, record_of, searching
from tests.trials.sealed_files import document, write_document
from trials.storage.leases.lease import Lease
from trials.storage.trial_folder import TrialFolder

SPACES: dict[str, Callable[..., Space]] = {
    "grid": make_space,
    "random": lambda **fields: searching("random", 2, **fields),
    "budget": lambda **fields: searching("random", 2, max_epochs=1000, **fields),
    "pruner": lambda **fields: space_of({"name": "median", "n_startup_trials": 1}, 2, **fields),
    "pbt": population,
}


def spoil(plan: Plan, trial_id: str, fields: dict[str, Any]) -> None:
    """Write a trial's config as another version might have; None takes a field away."""
    path = plan.folder.trials / trial_id / "config.json"
    content = document(path)
    content["config"] = {k: v for k, v in {**content["config"], **fields}.items() if v is not None}
    write_document(path, content)


def begin_and_die(plan: Plan, trial_id: str) -> None:
    """Commit an epoch of a trial, as a worker that then dies."""
    attempt, _ = TrialFolder(plan.folder.trial_folder(trial_id)).begin()
    row = {"stage": "finetune", "level": 0, "epoch": 1, "stage_id": None, "val_accuracy": 0.5}
    attempt.commit(checkpoint={}, rows={"epochs": [row]}, progress={}, seconds=0.0)


def taken(plan: Plan) -> Assignment:
    assignment = plan.next()
    assert assignment is not None
    return assignment


def run_others(plan: Plan) -> set[str]:
    """Run what the plan hands out; return the ids of the trials."""
    ran = set()
    while (assignment := plan.next()) is not None:
        finish(plan, assignment.trial_id, climbed)
        plan.ended(assignment.trial_id)
        ran.add(assignment.trial_id)
    assert plan.complete
    return ran


@pytest.mark.parametrize("fields", [{"gone_field": 1}, {"method": "tomorrows"}, {"method": None}])
@pytest.mark.parametrize("retries", [0, 2])
@pytest.mark.parametrize("kind", SPACES)
def test_it_spends_its_retries_and_the_others_go_on(
    tmp_path: Path, kind: str, retries: int, fields: dict[str, Any]
) -> None:
    space = SPACES[kind](retries=retries)
    died = begun(space, tmp_path)
    bad, good = taken(died), taken(died)
    begin_and_die(died, bad.trial_id)
    spoil(died, bad.trial_id, fields)
    plan = begun(space, tmp_path)
    ran = run_others(plan)
    assert good.trial_id in ran
    assert bad.trial_id not in ran
    assert plan.failed == 1
    assert len(plan.folder.records()) == len(ran) + 1 == sum(plan.totals.values())
    endings = [ending for attempt in plan.unread for ending in attempt]
    assert [(e.trial_id, e.status, e.again) for e in endings] == [
        (bad.trial_id, "failed", turn < retries) for turn in range(retries + 1)
    ]
    state = record_of(plan.folder, bad.trial_id).state
    assert state is not None
    assert (state.status, state.attempt, state.failures) == ("failed", retries + 2, retries + 1)
    assert state.error is not None
    assert state.error["type"] == "UserError"
    for part in (bad.trial_id, str(tmp_path / "trials" / bad.trial_id / "config.json"), next(iter(fields)), "--retry"):
        assert part in state.error["message"]
    again = begun(space, tmp_path)  # the failure is committed: a further driver has nothing to do
    assert (again.complete, again.failed) == (True, 1)
    assert [ending.error for ending in again.before() if ending.trial_id == bad.trial_id] == [endings[-1].error]


def test_it_is_tried_once_more_when_failed_trials_are_forgiven(tmp_path: Path) -> None:
    space = make_space(retries=0)
    died = begun(space, tmp_path)
    bad = taken(died).trial_id
    spoil(died, bad, {"gone_field": 1})
    run_others(begun(space, tmp_path))
    assert died.folder.forgive() == 1
    plan = begun(space, tmp_path)
    assert run_others(plan) == set()
    assert plan.failed == 1
    spoil(plan, bad, {"gone_field": None})
    assert plan.folder.forgive() == 1
    assert run_others(begun(space, tmp_path)) == {bad}


def test_a_full_disk_leaves_it_in_the_queue(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError("full")

    space = make_space(grid={"density": [0.5]}, retries=0)
    died = begun(space, tmp_path)
    spoil(died, taken(died).trial_id, {"gone_field": 1})
    plan = begun(space, tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(TrialFolder, "write_state", full)
        with pytest.raises(OSError, match="full"):
            plan.next()
    assert (plan.complete, plan.failed) == (False, 0)
    assert run_others(plan) == set()
    assert plan.failed == 1


def test_a_parent_that_finished_is_continued_as_the_space_describes_it(tmp_path: Path) -> None:
    space = population()
    died = begun(space, tmp_path / "a")
    undisturbed = begun(space, tmp_path / "b")
    for plan in (died, undisturbed):
        first = [taken(plan).trial_id for _ in range(8)]
        for trial_id in first:
            finish(plan, trial_id, climbed)
    for trial_id in first:
        spoil(died, trial_id, {"gone_field": 1})
    plan = begun(space, tmp_path / "a")
    assert run_others(plan) == run_others(begun(space, tmp_path / "b"))
    assert plan.failed == 0
    assert places(plan) == places(undisturbed)


class Said:
    """Stands in for the live view."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, str, object]] = []

    def note(self, text: str) -> None:
        self.calls.append(("note", text, None))

    def resize(self, *_: object) -> None: ...

    def started(self, trial_id: str, cell: str) -> None:
        self.calls.append(("started", trial_id, cell))

    def ended(self, trial_id: str, cell: str, status: str, *_: object, already: bool, **__: object) -> None:
        assert not already
        self.calls.append(("ended", trial_id, status))


def test_the_live_view_shows_each_attempt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from sweeper.execution.on_ray import tune_searcher

    fake_cluster(monkeypatch, here=8)
    space = make_space(grid={"density": [0.5]}, retries=1)
    died = begun(space, tmp_path / "sweep")
    bad = taken(died).trial_id
    spoil(died, bad, {"gone_field": 1})
    plan, said = begun(space, tmp_path / "sweep"), Said()
    asking = tune_searcher.PlanSearcher(plan, said, Lease(tmp_path / "lock"))  # type: ignore[arg-type]
    assert asking.suggest("a") == tune_searcher.Searcher.FINISHED
    kinds = [(kind, what) for kind, what, _ in said.calls if kind != "note"]
    assert kinds == 2 * [("started", bad), ("ended", bad)]
    first, second = [what for kind, what, _ in said.calls if kind == "note"]
    assert first.startswith(f"{bad} (density=0.5) failed: UserError: ")
    assert (first.endswith("; tried again"), second.endswith("; tried again")) == (True, False)
