"""Exit codes as job schedulers want them: ``--exit-zero-on-failed-trials`` forgives failed trials, and nothing else."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from sweeper.cli import COMPLETE, FAILURES, STOPPED, WRONG_INPUT
from sweeper.search.plan import Plan
from tests.sweeper.command_line import put_in_place_of_ray, sweep
from trials.storage.trial_folder import TrialFolder

FORGIVING = "--exit-zero-on-failed-trials"

pytestmark = pytest.mark.usefixtures("no_stray_handlers")


def failing(plan: Plan, *_: Any, **__: Any) -> None:
    while (assignment := plan.next()) is not None:
        attempt, _resume = TrialFolder(plan.folder.trial_folder(assignment.trial_id)).begin()
        attempt.end("failed", error={"type": "NonFiniteLoss", "message": "nan", "traceback": ""}, failures=1)
        plan.ended(assignment.trial_id)


def test_a_sweep_that_has_ended_with_failed_trials(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put_in_place_of_ray(monkeypatch, failing)
    assert sweep(FORGIVING, "--set", "retries=0") == COMPLETE
    assert "--exit-zero" not in (here / "results" / "small" / "sweep.yaml").read_text()  # no part of the sweep
    assert sweep("--set", "retries=0") == FAILURES
    assert sweep("--set", "retries=0", FORGIVING) == COMPLETE  # as the last run left it


def test_other_ends_keep_their_codes(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put_in_place_of_ray(monkeypatch, lambda *_, **__: None)  # it stops before it has begun a trial
    assert sweep(FORGIVING) == STOPPED
    assert sweep(FORGIVING, "--set", "no.such=1") == WRONG_INPUT
