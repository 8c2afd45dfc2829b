"""A resumed sweep may run elsewhere: which trials run where the space says now, and which as they were scheduled."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from sweeper.search.plan import Assignment, Plan
from sweeper.space.compatibility import contradictions
from tests.sweeper.populations import SEARCH, TRIAL, landscape, population
from tests.sweeper.sweeps import begun, finish, make_space

HERE: dict[str, Any] = {"checkpoint_every_s": 60.0, "capture": True}
ELSEWHERE: dict[str, Any] = {"checkpoint_every_s": 5.0, "capture": False}


def where(assignment: Assignment) -> dict[str, Any]:
    return {name: getattr(assignment.config, name) for name in HERE}


def taken(plan: Plan) -> list[Assignment]:
    return list(iter(plan.next, None))


def test_later_generations_run_where_the_space_says_now(tmp_path: Path) -> None:
    before, now = (population(trial={**TRIAL, **fields}, grid={"density": [0.5]}) for fields in (HERE, ELSEWHERE))
    assert contradictions(before, now) == []
    expected = []
    for space, name in ((before, "stays"), (now, "moves")):
        plan = begun(before, tmp_path / name)
        for assignment in taken(plan):
            assert where(assignment) == HERE
            finish(plan, assignment.trial_id, landscape)
            plan.ended(assignment.trial_id)
        second = taken(begun(space, tmp_path / name))
        assert [where(assignment) for assignment in second] == 4 * [HERE if space is before else ELSEWHERE]
        expected.append([assignment.trial_id for assignment in second])
    assert expected[0] == expected[1]  # where trials run is no part of their names


@pytest.mark.parametrize("fields", [{}, {"search": SEARCH, "sampler": "random", "samples": 2}], ids=["grid", "random"])
def test_a_scheduled_trial_keeps_what_its_config_says(fields: dict[str, Any], tmp_path: Path) -> None:
    base = {"grid": {"density": [0.5, 0.2]}, **fields}
    before, now = (make_space(**{**base, "trial": {**TRIAL, **where_it_runs}}) for where_it_runs in (HERE, ELSEWHERE))
    first = begun(before, tmp_path).next()
    assert first is not None
    plan = begun(now, tmp_path)
    again, *others = taken(plan)
    assert (again.trial_id, where(again)) == (first.trial_id, HERE)
    assert [where(assignment) for assignment in others] == len(others) * [ELSEWHERE]
    for record in plan.folder.records():
        assert record.config.model_dump(mode="json") == record.content
