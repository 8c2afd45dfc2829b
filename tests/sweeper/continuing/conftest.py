"""Trials that end at once, as if they had run."""

from __future__ import annotations

from typing import Any

import pytest

from sweeper.search.plan import Plan
from tests.sweeper.command_line import put_in_place_of_ray
from tests.sweeper.sweeps import finish


@pytest.fixture
def ran(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Ends trials at once, as if they had run; the list holds the ids of those that did."""
    names: list[str] = []

    def run_plan(plan: Plan, *_: Any, **__: Any) -> None:
        while (assignment := plan.next()) is not None:
            finish(plan, assignment.trial_id, lambda _: 0.5)
            plan.ended(assignment.trial_id)
            names.append(assignment.trial_id)

    put_in_place_of_ray(monkeypatch, run_plan)
    monkeypatch.setattr("sweeper.driver.git_commit", lambda: "c" * 40)
    return names
