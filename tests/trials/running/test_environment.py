"""A trial's state says when, where and with which code it ran, for each environment of its attempts."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import torch

from tests.trials.folders import assert_same_outcome, state_of, the_stage
from tests.trials.small_trials import config_of, folder_of, run_in
from trials.frozen import SCHEMA
from trials.running import environment, progress
from trials.storage import trial_folder
from trials.storage.trial_folder import TrialFolder

pytestmark = pytest.mark.usefixtures("few_digits")

UTC = r"20\d\d-[01]\d-[0-3]\dT[0-2]\d:[0-5]\d:[0-5]\dZ"


@pytest.mark.parametrize(
    ("fields", "precision", "layout"),
    [
        ({}, "float32", "contiguous"),
        ({"precision": "bf16", "memory_format": "channels_last"}, "bf16", "channels_last"),
    ],
)
def test_a_trial_and_its_shared_trial_say_where_they_ran(
    tmp_path: Path, fields: dict[str, str], precision: str, layout: str
) -> None:
    config = config_of("one_shot-filter", device="cpu", **fields)
    run_in(tmp_path, config, threads=1, commit="abc-dirty")
    for folder in (folder_of(config, tmp_path), the_stage(tmp_path)):
        state = state_of(folder)
        assert state.environments == (
            {
                "threads": 1,
                "device": "cpu",
                "torch": torch.__version__,
                "cuda": None,
                "precision": precision,
                "memory_format": layout,
                "commit": "abc-dirty",
                "schema": SCHEMA,
            },
        )
        assert re.fullmatch(UTC, state.started)
        assert re.fullmatch(UTC, state.ended)
        assert state.started <= state.ended


def test_a_trial_that_goes_on_elsewhere_says_so_and_keeps_its_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress, "STOP_POLL_S", 0.0)
    times = iter(f"2026-11-27T00:00:{second:02}Z" for second in range(60))
    monkeypatch.setattr(trial_folder, "_now", lambda: next(times))
    config = config_of("dense", train={"epochs": 1, "batch_size": 128})
    stage = []
    for commit in ("a", "a", "b", "a"):
        state = run_in(tmp_path, config, should_stop=lambda: True, commit=commit)
        stage.append(state_of(the_stage(tmp_path)))
        assert (state.ended > state.started) == (state.status != "running")
    assert [len(state.environments) for state in stage[:3]] == [1, 1, 2]
    assert [state.environments[-1]["commit"] for state in stage[:3]] == ["a", "a", "b"]
    assert len({state.started for state in stage}) == 1
    while run_in(tmp_path, config, should_stop=lambda: True, commit="a").status != "complete":
        pass
    undisturbed = tmp_path / "undisturbed"
    run_in(undisturbed, config, commit="c")
    assert_same_outcome(folder_of(config, tmp_path), folder_of(config, undisturbed))


def test_a_state_of_an_older_version_opens_and_a_newer_one_too(tmp_path: Path) -> None:
    folder = TrialFolder(tmp_path)
    folder.begin(environment={"threads": 2})
    content = json.loads(folder.state_path.read_text())
    assert content["environments"] == [{"threads": 2}]
    for name in ("started", "ended", "environments"):
        del content[name]
    folder.state_path.write_text(json.dumps({**content, "of a later version": [1]}))
    state = state_of(tmp_path)
    assert (state.started, state.ended, state.environments) == ("", "", ())
    attempt, _ = folder.begin()
    attempt.end("failed")
    assert state_of(tmp_path).environments == ()
    assert re.fullmatch(UTC, state_of(tmp_path).ended)


def test_the_commit_is_that_of_the_checkout() -> None:
    commit = environment.git_commit()
    assert commit is None or re.fullmatch(r"[0-9a-f]{40}(-dirty)?", commit)
