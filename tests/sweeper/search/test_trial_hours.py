"""A trial whose time is over (``trial_hours``) is not tried again by itself, and its search is told that it failed."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from optuna.trial import TrialState
from rich.console import Console

from sweeper.execution.assigned_trial import Reporter, _host
from sweeper.execution.live_view import LiveView
from sweeper.results.report import show
from sweeper.results.tables import load
from sweeper.search.plan import Plan
from sweeper.space.compatibility import contradictions
from tests.sweeper.fake_cluster import fake_cluster
from tests.sweeper.sweeps import begun, finish, searching
from trials.errors import TIME_LIMIT
from trials.storage.leases.lease import Lease
from trials.storage.trial_folder import TrialFolder

pytestmark = pytest.mark.fault("trial-hours")

ONE = {"density": [0.5]}


def run_over(plan: Plan, trial_id: str) -> None:
    """End an attempt as a worker does whose trial has taken too long."""
    attempt, _ = TrialFolder(plan.folder.trial_folder(trial_id)).begin()
    error = {"type": TIME_LIMIT, "message": "it has taken 3 h, but trial_hours is 2", "traceback": ""}
    attempt.end("failed", error=error, failures=attempt.state.failures + 1)


def test_it_is_given_up_though_retries_are_left(tmp_path: Path) -> None:
    space = searching("tpe", samples=2, grid=ONE, retries=5, trial_hours=2.0)
    plan = begun(space, tmp_path)
    plan.folder.append({"space": space.document()})
    first = plan.next()
    assert first is not None
    run_over(plan, first.trial_id)
    (ending,) = plan.ended(first.trial_id)
    assert (ending.status, ending.again, plan.failed) == ("failed", False, 1)
    assert plan._searches[first.cell].study.trials[0].state == TrialState.FAIL  # type: ignore[attr-defined]
    second = plan.next()
    assert second is not None
    assert second.trial_id != first.trial_id
    finish(plan, second.trial_id)
    plan.ended(second.trial_id)
    assert (plan.complete, begun(space, tmp_path).complete) == (True, True)
    row = load(tmp_path).trials.set_index("trial").loc[first.trial_id]
    assert (row["status"], row["error_type"]) == ("failed", TIME_LIMIT)
    out = io.StringIO()
    show(tmp_path, Console(file=out, width=200))
    assert f"failed: {first.trial_id}: TimeLimit: it has taken 3 h, but trial_hours is 2" in out.getvalue()


def test_it_runs_again_when_it_is_asked_for(tmp_path: Path) -> None:
    space = searching("random", samples=1, grid=ONE, trial_hours=2.0)
    plan = begun(space, tmp_path)
    first = plan.next()
    assert first is not None
    run_over(plan, first.trial_id)
    plan.ended(first.trial_id)
    longer = searching("random", samples=1, grid=ONE, trial_hours=4.0)
    assert contradictions(space, longer) == []
    assert begun(longer, tmp_path).next() is None
    assert plan.folder.forgive() == 1
    again = begun(longer, tmp_path).next()
    assert again is not None
    assert again.trial_id == first.trial_id


@pytest.mark.parametrize(("hours", "seconds"), [(2.0, 7200.0), (None, None)])
def test_the_limit_reaches_the_trial(
    hours: float | None, seconds: float | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from sweeper.execution.on_ray import tune_searcher

    fake_cluster(monkeypatch, here=100)
    plan = begun(searching("random", samples=1, grid=ONE, trial_hours=hours), tmp_path / "s")
    view = LiveView(plan.totals, Console(file=io.StringIO()), "val_accuracy", "maximize")
    told = tune_searcher.PlanSearcher(plan, view, Lease(tmp_path / "lock")).suggest("tune")
    assert isinstance(told, dict)
    assert _host(told, Reporter(told, lambda _: None, lambda: False), None).limit_s == seconds


def test_the_display_says_why_a_search_has_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from sweeper.execution.on_ray import tune_searcher

    fake_cluster(monkeypatch, here=100)
    plan = begun(searching("random", samples=5, grid=ONE, stop_at=0.5), tmp_path / "s")
    out = io.StringIO()
    view = LiveView(plan.totals, Console(file=out, width=200), "val_accuracy", "maximize")
    asking = tune_searcher.PlanSearcher(plan, view, Lease(tmp_path / "lock"))
    with view:
        while isinstance(told := asking.suggest("tune"), dict):
            finish(plan, told["trial"], lambda _: 0.75)
            asking.on_trial_complete("tune")
    assert told == tune_searcher.Searcher.FINISHED
    assert "density=0.5: ended after 1 sample: val_accuracy has reached 0.75 (stop_at: 0.5)\n" in out.getvalue()
    assert (view.done, view.total) == (1, 1)
    assert "1/1 " in out.getvalue()
