"""How a run waits for its machines' answers before trials run. Without Ray."""

from __future__ import annotations

import errno
import fcntl
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sweeper.execution.assigned_trial import run_assigned
from sweeper.execution.on_ray import requirements
from sweeper.execution.on_ray.requirements import PROBE_S, Waiting
from sweeper.execution.on_ray.tune_searcher import PlanSearcher
from sweeper.execution.on_ray.worker_environment import LOOK_S, SAID_S
from sweeper.folder.sweep_folder import SweepFolder
from sweeper.search.plan import Plan
from tests.sweeper.fake_cluster import Shown, fake_cluster
from tests.sweeper.sweeps import make_space
from tests.trials.conftest import few_digits
from tests.trials.small_trials import RECIPE
from trials.errors import UserError
from trials.storage.leases.lease import Lease
from trials.storage.trial_folder import TrialFolder

__all__ = ["few_digits"]

MACHINES = {
    name: {"NodeManagerHostname": name, "NodeManagerAddress": f"10.0.0.{number}"} for number, name in enumerate("abc")
}


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Seconds so far; machine ``a`` answers at once, ``c`` after 100 s, ``b`` never."""
    now = [0.0]

    def wait(asked: list[str], num_returns: int, timeout: float) -> tuple[list[str], list[str]]:
        now[0] += timeout
        ready = [name for name in asked if name == "a" or (name == "c" and now[0] >= 100)]
        return ready, [name for name in asked if name not in ready]

    monkeypatch.setattr(requirements.ray, "wait", wait)
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    return now


@pytest.mark.parametrize(("asked", "said", "seconds"), [("a", 0, LOOK_S), ("ac", 1, 100), ("abc", 1, PROBE_S)])
def test_machines_that_do_not_answer_are_named_once(clock: list[float], asked: str, said: int, seconds: float) -> None:
    notes: list[str] = []
    Waiting(notes.append).wait(list(asked), [MACHINES[name] for name in asked])
    assert len(notes) == said
    assert abs(clock[0] - seconds) <= 1
    for note in notes:
        assert [name in note for name in ("b (10.0.0.1)", "c (10.0.0.2)")] == ["b" in asked, True]
        assert "a (10.0.0.0)" not in note
        assert f"{SAID_S:.0f} s ago" in note


def test_a_run_that_is_to_stop_waits_no_longer(clock: list[float], monkeypatch: pytest.MonkeyPatch) -> None:
    def shared(where: Any, waiting: Waiting) -> None:
        waiting.wait(["b"], [MACHINES["b"]])

    monkeypatch.setattr(requirements, "require_shared", shared)
    requirements.require_machines("x", [], Waiting(stopping=lambda: clock[0] > 10))  # type: ignore[arg-type]
    assert clock[0] <= 11


@pytest.mark.fault("no-locks")
def test_a_machine_without_locks_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two machines of a cluster, played by this process; ``b`` mounts the storage without locks."""
    where = ["a"]

    def flock(*_: object) -> None:
        if where[0] == "b":
            raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))

    def ask_all(questions: Any, waiting: Any) -> Iterator[tuple[Any, str | None]]:
        for node, task, arguments in questions:
            where[0] = node["NodeID"]
            yield node, task(*arguments)

    there = [{**MACHINES[name], "NodeID": name, "Alive": True} for name in "ab"]
    monkeypatch.setattr(fcntl, "flock", flock)
    monkeypatch.setattr(requirements, "_ask_all", ask_all)
    monkeypatch.setattr(requirements.ray, "nodes", lambda: there)
    with pytest.raises(UserError, match=r"and b \(10.0.0.1\) does not: .* has no locks \(flock: Function not") as told:
        requirements.require_shared(tmp_path)
    assert "\n" not in str(told.value)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.fault("no-locks")
def test_a_machine_without_locks_that_joins_later_spends_no_retry(
    few_digits: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_cluster(monkeypatch, here=8)
    trial = {"method": "one_shot", "dataset": "few_digits", "model": "tiny", "pretrain": RECIPE, "finetune": RECIPE}
    plan = Plan(make_space(trial={**trial, "density": 0.3}, grid={}), SweepFolder(tmp_path / "sweep"))
    searcher = PlanSearcher(plan, Shown(), Lease(tmp_path / "lock"))  # type: ignore[arg-type]
    assignment = searcher.suggest("one")
    assert isinstance(assignment, dict)

    def flock(*_: object) -> None:
        raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))

    told: list[dict[str, Any]] = []
    with monkeypatch.context() as patch:
        patch.setattr(fcntl, "flock", flock)
        assert run_assigned(assignment, told.append, where={"node": "n1", "machine": "worker7", "card": ""})
    assert "has no locks" in told[-1]["lost"]
    searcher.on_trial_result("one", told[-1])
    searcher.on_trial_complete("one", error=True)
    assert "n1" in searcher.plan.sick.barred
    state = TrialFolder(plan.folder.trial_folder(assignment["trial"])).state()
    assert state is None or (state.status, state.failures) == ("running", 0)
