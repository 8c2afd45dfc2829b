"""Fixtures of the sweeper's tests: a Ray, a folder for a command line, no Ray token file in the home folder."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sweeper.search.plan import Plan
from tests.sweeper.command_line import SMALL, put_in_place_of_ray
from tests.trials.conftest import few_digits
from trials.running.trial import TrialHost, run
from trials.storage.leases.lease import Lease

__all__ = ["few_digits"]

os.environ["RAY_AUTH_MODE"] = "disabled"


@pytest.fixture(scope="module")
def ray() -> Iterator[Any]:
    """One local Ray for all sweeps of a module, which they join."""
    from sweeper.execution.on_ray import cluster  # sets what Ray reads as it is imported

    cluster.ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    yield cluster.ray
    cluster.ray.shutdown()


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, few_digits: None) -> Path:
    """The working folder of one test, with a space in it."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "small.yaml").write_text(SMALL)
    return tmp_path


@pytest.fixture
def ran(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Runs trials in this process instead of on Ray; the list holds the ids of those that ran."""
    names: list[str] = []

    def run_plan(plan: Plan, display: Any, lease: Lease, **_: Any) -> None:
        while (assignment := plan.next()) is not None:
            path = plan.folder.trial_folder(assignment.trial_id)
            run(assignment.config, path, TrialHost(plan.folder.stages))
            names.append(assignment.trial_id)
            for ending in plan.ended(assignment.trial_id):
                display.ended(ending.trial_id, ending.cell, ending.status, ending.value, already=False)

    put_in_place_of_ray(monkeypatch, run_plan)
    return names


@pytest.fixture
def no_stray_handlers() -> Iterator[None]:
    """Checks that a driver restores every signal handler."""
    before = {n: signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    yield
    assert {n: signal.getsignal(n) for n in before} == before
