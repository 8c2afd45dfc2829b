"""Members of a population that had failed when its next generation began stay failed, so its ranking stays."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from sweeper.continuing import _nothing_to_run
from sweeper.driver import _forgive
from sweeper.folder.forgiving import followed_failures
from sweeper.folder.packed_records import PackedRecords
from sweeper.search.plan import Plan
from tests.sweeper.populations import landscape, places, population
from tests.sweeper.sweeps import begun, fail, finish

pytestmark = pytest.mark.fault("retry-failed-population")

ONE = {"density": [0.5]}


def generation(plan: Plan, failing: tuple[int, ...]) -> list[str]:
    """Run four trials, of which those at the positions given fail for good."""
    handed = [plan.next() for _ in range(4)]
    for member, assignment in enumerate(handed):
        assert assignment is not None
        fail(plan, assignment.trial_id) if member in failing else finish(plan, assignment.trial_id, landscape)
        plan.ended(assignment.trial_id)
    return [assignment.trial_id for assignment in handed if assignment]


def the_rest(plan: Plan) -> list[str]:
    ran = []
    while (assignment := plan.next()) is not None:
        finish(plan, assignment.trial_id, landscape)
        plan.ended(assignment.trial_id)
        ran.append(assignment.trial_id)
    assert plan.complete
    return ran


def half_decided(path: Path, **fields: Any) -> tuple[Plan, list[str]]:
    """A population whose first generation has two failed members, and whose second has two of four members."""
    plan = begun(population(retries=0, grid=ONE, **fields), path)
    first = generation(plan, (1, 2))
    assert None not in (plan.next(), plan.next())
    return plan, first


def parents(plan: Plan) -> list[Any]:
    return [places(plan)[1, member].attrs["pbt"]["parent"] for member in range(4)]


@pytest.mark.parametrize("how", ["retry_failed", "more retries", "as before"])
def test_a_half_decided_generation_is_finished_from_the_same_ranking(tmp_path: Path, how: str) -> None:
    undisturbed, _ = half_decided(tmp_path / "undisturbed")
    left = [places(undisturbed)[1, member] for member in (0, 1)]
    again = begun(undisturbed.space, tmp_path / "undisturbed")
    whole = the_rest(again)

    plan, first = half_decided(tmp_path / "s")
    assert [places(plan)[1, member] for member in (0, 1)] == left
    if how == "retry_failed":
        assert plan.folder.forgive() == 0
    retries = 3 if how == "more retries" else 0
    resumed = begun(population(retries=retries, grid=ONE), tmp_path / "s")
    ran = the_rest(resumed)
    assert sorted(ran) == sorted(whole)
    assert not set(first) & set(ran)
    assert parents(resumed) == parents(again)
    assert resumed.failed == 2
    assert places(resumed).keys() == places(again).keys()


def test_members_of_the_last_generation_run_again(tmp_path: Path) -> None:
    plan = begun(population(retries=0, grid=ONE), tmp_path)
    first = generation(plan, (0,))
    assert followed_failures(plan.folder.records()) == frozenset()
    assert plan.folder.forgive() == 1
    resumed = begun(plan.space, tmp_path)
    assert the_rest(resumed)[0] == first[0]
    assert resumed.failed == 0


def test_generations_of_other_cells_do_not_count(tmp_path: Path) -> None:
    plan = begun(population(retries=0), tmp_path)
    handed = [plan.next() for _ in range(8)]
    for assignment in handed:
        assert assignment is not None
        failing = assignment.cell == "density=0.2"
        fail(plan, assignment.trial_id) if failing else finish(plan, assignment.trial_id, landscape)
        plan.ended(assignment.trial_id)
    assert plan.next() is not None, "the next generation of the other cell"
    assert plan.folder.forgive() == 4
    assert begun(plan.space, tmp_path).failed == 0


def test_the_driver_says_which_of_them_stay_failed(tmp_path: Path) -> None:
    plan, first = half_decided(tmp_path)
    out = io.StringIO()
    _forgive(plan.folder, Console(file=out, width=500))
    lines = out.getvalue().splitlines()
    assert lines[0] == "0 failed trials may be tried again"
    assert lines[1].startswith("2 failed members stay failed, since the next generation of their populations has begun")
    assert all(trial_id in lines[1] for trial_id in (first[1], first[2]))


def test_a_finished_population_with_such_members_has_nothing_to_run(tmp_path: Path) -> None:
    plan, _ = half_decided(tmp_path)
    the_rest(begun(plan.space, tmp_path))
    records = PackedRecords(plan.folder)
    assert _nothing_to_run(plan.space, plan.folder, records, retry_failed=True)
    assert _nothing_to_run(population(retries=5, grid=ONE), plan.folder, records, retry_failed=False)
