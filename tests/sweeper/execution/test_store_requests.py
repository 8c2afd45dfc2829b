"""How many requests a trial costs whose storage is a bucket."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest

from sweeper.execution.assigned_trial import run_assigned
from sweeper.execution.concluding import conclude
from sweeper.folder.sweep_folder import SweepFolder
from sweeper.search.plan import Plan
from tests.sweeper.fake_cluster import Shown, fake_cluster
from tests.sweeper.sweeps import make_space
from tests.trials.buckets import Requests, prefix, served
from trials.storage.leases.lease import Lease
from trials.storage.place import ObjectPath

MOST_OF_A_TRIAL = 15
"""Requests for a trial that commits once."""

MOST_OF_A_SWEEP = 110
"""Requests of a sweep beside those of its trials: plan, tables, results, report, and the dense network they share."""


@pytest.fixture(scope="module")
def store() -> Iterator[Requests]:
    with served() as requests:
        yield requests


def run_all(where: ObjectPath, trials: int) -> None:
    """Run a sweep of trials that share their dense network with all that a driver and its workers do, here."""
    from rich.console import Console

    from sweeper.execution.on_ray.tune_searcher import PlanSearcher

    recipe = {"epochs": 1, "batch_size": 50}
    space = make_space(
        trial={"method": "one_shot", "dataset": "few_digits", "model": "tiny", "pretrain": recipe, "finetune": recipe},
        grid={"density": [0.1 + 0.1 * number for number in range(trials)]},
        search={},
        samples=1,
    )
    folder = SweepFolder(where / "sweep")
    folder.append({"space": space.document()})
    plan = Plan(space, folder)
    searcher = PlanSearcher(plan, Shown(), Lease(where / "sweep" / "lock"))  # type: ignore[arg-type]
    number = 0
    while not plan.over:
        number += 1
        assignment = searcher.suggest(str(number))
        assert isinstance(assignment, dict)

        def hear(result: dict[str, Any], name: str = str(number)) -> None:
            searcher.on_trial_result(name, result)

        run_assigned(assignment, hear)
        searcher.on_trial_complete(str(number))
    assert conclude(plan, Console(quiet=True)) == 0


def test_a_trial_takes_few_requests(
    store: Requests, few_digits: None, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    fake_cluster(monkeypatch, here=1)
    counted = []
    for trials in (2, 6):
        store.take()
        run_all(prefix(f"few_requests_{trials}"), trials)
        counted.append([_kind(method, path) for method, path in store.take() if "claims" not in path])  # by the clock
    few, many = map(Counter, counted)
    per_trial = {kind: (many[kind] - few[kind]) / 4 for kind in many if many[kind] != few[kind]}
    listed = "".join(f"\n{number:5} {kind}" for kind, number in per_trial.items())
    assert sum(per_trial.values()) <= MOST_OF_A_TRIAL, listed
    fixed = sum(few.values()) - 2 * sum(per_trial.values())
    assert fixed <= MOST_OF_A_SWEEP, "".join(f"\n{number:5} {kind}" for kind, number in few.items())
    assert few["GET /storage-of-tests/S/sweep/tables/epochs.parquet"] == 1  # the results and the report share them


def _kind(method: str, path: str) -> str:
    path = re.sub(r"few_requests_\d", "S", path.replace("%2F", "/"))
    return f"{method} {re.sub(r'(dense|one_shot)-[0-9a-f]+|[0-9a-f]{8,}', '*', path)}"
