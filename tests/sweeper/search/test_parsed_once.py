"""Each trial's config is parsed once per process, from the check of the space to the end of its last trial."""

from __future__ import annotations

import itertools
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from sweeper.search.plan import Plan
from sweeper.space.checks import check_space
from sweeper.space.load import load_space
from sweeper.space.space import Space
from tests.sweeper.fake_cluster import fake_cluster
from tests.sweeper.populations import PBT, SEARCH, TRIAL
from tests.sweeper.populations import landscape as climbed
from tests.sweeper.space_files import written
from tests.sweeper.sweeps import ONE_SHOT, begun, finish
from trials.config.trial_config import TrialConfig
from trials.frozen import validate
from trials.methods import parsing, segments
from trials.storage.leases.lease import Lease

GRID = {"density": [0.5, 0.2], "seed": [0, 1]}
SPACES: dict[str, dict[str, Any]] = {
    "grid": {"trial": {**ONE_SHOT, "finetune": {"epochs": 1, "lr": 0.1, "momentum": 0.5}}, "grid": GRID},
    "random": {"trial": ONE_SHOT, "grid": GRID, "search": SEARCH, "sampler": "random", "samples": 3},
    "pbt": {"trial": TRIAL, "grid": {"density": [0.5, 0.2]}, "search": SEARCH, "pbt": PBT},
}
TRIALS = {"grid": 4, "random": 12, "pbt": 24}


@pytest.fixture
def parsed(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """By trial id, how many times validation has built the trial's config."""
    found: Counter[str] = Counter()

    def counting(model: type[Any], content: object, where: str) -> Any:
        config = validate(model, content, where)
        if isinstance(config, TrialConfig):
            found[config.id] += 1
        return config

    for module in (parsing, segments):
        monkeypatch.setattr(module, "validate", counting)
    return found


class NoDisplay:
    """Stands in for the live view."""

    def note(self, text: str) -> None: ...

    def resize(self, *_: object) -> None: ...

    def started(self, *_: object) -> None: ...

    def ended(self, *_: object, **__: object) -> None: ...


class Searcher:
    """The PlanSearcher of a plan, called as Ray Tune calls it, without a Ray cluster."""

    def __init__(self, plan: Plan, lock: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        from sweeper.execution.on_ray import tune_searcher

        fake_cluster(monkeypatch, here=100)
        self.plan = plan
        self.asked = tune_searcher.PlanSearcher(plan, NoDisplay(), Lease(lock))  # type: ignore[arg-type]

    def take(self) -> list[str]:
        """Suggest every trial that can run now, which builds each one's message for a worker; return their ids."""
        suggested = (self.asked.suggest(f"tune-{number}") for number in itertools.count())
        self.taken = [told["trial"] for told in itertools.takewhile(lambda told: isinstance(told, dict), suggested)]
        return self.taken

    def end(self, ids: list[str]) -> None:
        for trial_id in ids:
            finish(self.plan, trial_id, climbed)
            self.asked.on_trial_complete(f"tune-{self.taken.index(trial_id)}")

    def run_out(self) -> list[str]:
        """Take and end trials until the plan is complete; return their ids."""
        ran: list[str] = []
        while ids := self.take():
            self.end(ids)
            ran += ids
        assert self.plan.complete
        return ran


def checked(kind: str, folder: Path) -> Space:
    """A checked space with a budget of epochs, which reads the configs of the plan's records too."""
    space = load_space(written(folder, {"about": f"a {kind}", "max_epochs": 1000, **SPACES[kind]}))
    check_space(space)
    return space


@pytest.mark.parametrize("kind", SPACES)
def test_once_in_a_new_sweep(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, parsed: Counter[str]) -> None:
    plan = begun(checked(kind, tmp_path), tmp_path / "sweep")
    ran = Searcher(plan, tmp_path / "lock", monkeypatch).run_out()
    assert len(ran) == len(set(ran)) == TRIALS[kind]
    assert {trial_id: parsed[trial_id] for trial_id in ran} == dict.fromkeys(ran, 1)


@pytest.mark.parametrize("kind", SPACES)
def test_once_in_a_plan_rebuilt_from_records(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, parsed: Counter[str]
) -> None:
    """As a new process does it, the check of the space included."""
    died = Searcher(begun(checked(kind, tmp_path), tmp_path / "sweep"), tmp_path / "lock", monkeypatch)
    taken = died.take()
    died.end(taken[::2])
    parsed.clear()
    space = checked(kind, tmp_path)
    ran = Searcher(begun(space, tmp_path / "sweep"), tmp_path / "lock", monkeypatch).run_out()
    assert set(taken[1::2]) <= set(ran)
    assert len(ran) == len(set(ran)) == TRIALS[kind] - len(taken[::2])
    assert {trial_id: parsed[trial_id] for trial_id in ran} == dict.fromkeys(ran, 1)
