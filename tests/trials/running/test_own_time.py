"""A trial that has taken as long as it may fails with everything committed, and goes on under a higher limit."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.trials.small_trials import config_of, folder_of, run_in
from trials.errors import TIME_LIMIT, TimeLimit
from trials.running import own_time, progress, trial
from trials.running.own_time import OwnTime
from trials.storage.trial_folder import State, TrialFolder

pytestmark = pytest.mark.fault("trial-hours")


class Clock:
    """Stands for ``time.monotonic``: goes on by a second whenever it is read."""

    def __init__(self) -> None:
        self.now = 0.0

    def monotonic(self) -> float:
        self.now += 1.0
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    found = Clock()
    for module in (own_time, progress):
        monkeypatch.setattr(module, "time", found)
    monkeypatch.setattr(progress, "STOP_POLL_S", 0.0)
    return found


def figures(storage: Path, config: Any) -> list[dict[str, Any]]:
    folder = TrialFolder(folder_of(config, storage))
    state = folder.state()
    assert state is not None
    return [{k: v for k, v in row.items() if k != "seconds"} for row in folder.rows(state.commits[-1])["epochs"]]


@pytest.mark.parametrize("name", ["one_shot", "bip-backward"])
def test_a_trial_goes_on_from_where_its_time_was_over(
    name: str, tmp_path: Path, clock: Clock, few_digits: None
) -> None:
    config = config_of(name)
    whole = run_in(tmp_path / "whole", config)
    assert whole.status == "complete"
    ended, limit, failures = State(), 5.0, 0
    while ended.status != "complete":
        ended = run_in(tmp_path / "limited", config, limit_s=limit)
        if ended.status == "complete":
            break
        failures += 1
        assert ended.status == "failed"
        assert ended.error is not None
        assert ended.error["type"] == TIME_LIMIT
        assert ended.error["message"].endswith(
            f"but trial_hours is {limit / 3600:g}: raise it and add --retry-failed, and the trial goes on from its "
            "last commit"
        )
        assert ended.commits, "what it has computed is committed"
        assert ended.progress["own_seconds"] >= limit
        limit = ended.progress["own_seconds"] + 8
    assert failures >= 2
    assert ended.failures == failures
    assert figures(tmp_path / "limited", config) == figures(tmp_path / "whole", config)


def test_a_trial_whose_time_is_over_does_not_begin_again(tmp_path: Path, clock: Clock, few_digits: None) -> None:
    config = config_of("one_shot")
    first = run_in(tmp_path, config, limit_s=5.0)
    began: list[int] = []

    class Unwanted(trial._Run):
        def go(self) -> None:
            began.append(1)

    original, trial._Run = trial._Run, Unwanted  # type: ignore[misc]
    try:
        second = run_in(tmp_path, config, limit_s=5.0)
    finally:
        trial._Run = original  # type: ignore[misc]
    assert (second.status, second.commits, began) == ("failed", first.commits, [])
    assert second.error is not None
    assert second.error["type"] == TIME_LIMIT


def test_the_time_of_a_shared_trial_does_not_count(
    tmp_path: Path, few_digits: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = config_of("one_shot")
    slow, whole = trial.obtain, []

    def slowly(*arguments: Any) -> Any:
        whole.append(1)
        time.sleep(0.3)
        return slow(*arguments)

    monkeypatch.setattr(trial, "obtain", slowly)
    state = run_in(tmp_path, config, limit_s=3600.0)
    assert (state.status, whole) == ("complete", [1])
    assert state.seconds - state.progress["own_seconds"] >= 0.3


def test_a_shared_trial_has_no_limit(tmp_path: Path, clock: Clock, few_digits: None) -> None:
    config = config_of("one_shot")
    state = run_in(tmp_path, config, limit_s=2.0)
    assert state.status == "failed"
    (shared,) = (tmp_path / "stages").iterdir()
    found = TrialFolder(shared).state()
    assert found is not None
    assert found.status == "complete"
    assert found.progress["own_seconds"] > 2.0


def test_seconds_go_on_over_attempts_and_stand_still_in_pauses(clock: Clock) -> None:
    before = State(progress={"own_seconds": 100.0}, seconds=500.0)
    spent = OwnTime(before, 110.0)  # each look at the clock takes a second
    assert spent.seconds == 101.0
    with spent.paused():
        clock.now += 50
        assert spent.seconds == spent.seconds
        with spent.paused():
            clock.now += 50
    assert spent.seconds == 103.0
    assert not spent.over
    clock.now += 10
    assert spent.over
    with pytest.raises(TimeLimit, match=r"trial_hours is 0\.0305556"):
        spent.require()
    unlimited = OwnTime(replace(before, progress={}), None)
    assert unlimited.seconds == 501.0
    assert not unlimited.over
    unlimited.require()
