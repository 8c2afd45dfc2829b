"""A trial's state says when, where and with which code it ran, for each environment of its attempts."""

from __future__ import annotations

import functools
import re
import shutil
import socket
import subprocess
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.trials.folders import assert_same_outcome, state_of, the_stage
from tests.trials.sealed_files import document, write_document
from tests.trials.small_trials import RECIPE, config_of, folder_of, run_in
from trials.frozen import SCHEMA
from trials.methods import segments
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


# --- what a trial builds on


def commits(path: Path) -> list[Any]:
    """The commits of the code in a state's environments, in their order; None for an unknown environment."""
    return [found.get("commit") for found in state_of(path).environments]


def forget_environments(path: Path) -> None:
    """Make a state one of an older version."""
    content = document(path / "state.json")
    for name in ("started", "ended", "environments"):
        del content[name]
    write_document(path / "state.json", content)


SOURCED = ["one_shot", "imp-weights", "bip", "l1", "greg1", "regrow", "regrow-filter", "single_layer", "dwp"]
"""Methods that start from a dense or from a sparse shared trial, or use another network (``regrow-filter``)."""


@pytest.mark.parametrize("name", SOURCED)
def test_environments_of_shared_trials_count_in_every_trial_that_builds_on_them(tmp_path: Path, name: str) -> None:
    config = config_of(name)
    assert run_in(tmp_path, config, commit="a").status == "complete"
    assert commits(folder_of(config, tmp_path)) == ["a"]
    shutil.rmtree(tmp_path / "sweep")  # another sweep, later, finds the shared trials
    assert run_in(tmp_path, config, commit="b").status == "complete"
    assert commits(folder_of(config, tmp_path)) == ["a", "b"]
    assert {tuple(commits(stage)) for stage in (tmp_path / "stages").iterdir()} == {("a",)}


@pytest.mark.parametrize("field", ["threads", "commit"])
def test_a_dense_trial_says_where_its_shared_trial_was_computed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, field: str
) -> None:
    times = iter(f"2026-11-27T00:00:{second:02}Z" for second in range(60))
    monkeypatch.setattr(trial_folder, "_now", lambda: next(times))
    config = config_of("dense")
    values: tuple[Any, Any] = (1, 2) if field == "threads" else ("a", "b")
    for host, value in zip("xy", values, strict=True):
        monkeypatch.setattr(socket, "gethostname", lambda host=host: host)
        shutil.rmtree(tmp_path / "sweep", ignore_errors=True)
        run_in(tmp_path, config, **{field: value})
        row, stage = state_of(folder_of(config, tmp_path)), state_of(the_stage(tmp_path))
        assert row.environments == stage.environments
        assert [found[field] for found in row.environments] == [values[0]]
        assert (row.host, row.device) == (stage.host, stage.device)
        assert row.started == stage.started < row.ended


def test_a_latency_is_measured_where_the_dense_trial_ran(tmp_path: Path) -> None:
    config = config_of("dense", measure_latency=True)
    for commit in ("a", "b"):
        shutil.rmtree(tmp_path / "sweep", ignore_errors=True)
        run_in(tmp_path, config, commit=commit)
    assert commits(folder_of(config, tmp_path)) == ["a", "b"]


def test_a_segment_counts_the_environments_of_its_ancestors(tmp_path: Path) -> None:
    config = config_of("bip", prune={**RECIPE, "epochs": 3, "schedule": "constant", "lr": 0.1}, until_epoch=1)
    run_in(tmp_path, config, commit="a")
    for end, commit in ((2, "b"), (3, "c")):
        config = segments.child(config, {"prune.lr": 0.1 / end}, end)
        run_in(tmp_path, config, commit=commit)
    assert commits(folder_of(config, tmp_path)) == ["a", "b", "c"]


@pytest.mark.parametrize("name", ["dense", "bip", "segment"])
def test_what_an_older_version_did_not_write_is_unknown_and_not_made_up(tmp_path: Path, name: str) -> None:
    config = config_of("bip" if name == "segment" else name)
    if name == "segment":
        parent = config_of("bip", prune={**RECIPE, "schedule": "constant", "lr": 0.1}, until_epoch=1)
        config = segments.child(parent, {"prune.lr": 0.05}, 2)
        run_in(tmp_path, parent, commit="a")
        forget_environments(folder_of(parent, tmp_path))
    else:
        run_in(tmp_path, config, commit="a")
        shutil.rmtree(tmp_path / "sweep")
        forget_environments(the_stage(tmp_path))
    assert run_in(tmp_path, config, commit="b").status == "complete"
    assert commits(folder_of(config, tmp_path)) == ([None] if name == "dense" else [None, "b"])
    assert (state_of(folder_of(config, tmp_path)).started == "") == (name == "dense")


@pytest.mark.parametrize("commit", ["a", "b"])
def test_a_trial_that_was_interrupted_keeps_what_it_builds_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, commit: str
) -> None:
    config = config_of("one_shot")
    run_in(tmp_path, config, commit="a")
    shutil.rmtree(tmp_path / "sweep")
    monkeypatch.setattr(progress, "STOP_POLL_S", 0.0)
    ends = 0
    while run_in(tmp_path, config, should_stop=lambda: True, commit=commit).status == "preempted":
        ends += 1
    assert ends > 1
    assert commits(folder_of(config, tmp_path)) == ["a", "b"][: 1 + (commit == "b")]


def test_attempts_of_an_older_version_are_unknown(tmp_path: Path) -> None:
    folder = TrialFolder(tmp_path)
    folder.begin(environment={"commit": "a"})
    forget_environments(tmp_path)
    folder.begin(environment={"commit": "b"})
    folder.begin(environment={"commit": "b"})
    assert commits(tmp_path) == [None, "b"]


def test_a_state_of_an_older_version_opens_and_a_newer_one_too(tmp_path: Path) -> None:
    folder = TrialFolder(tmp_path)
    folder.begin(environment={"threads": 2})
    content = document(folder.state_path)
    assert content["environments"] == [{"threads": 2}]
    for name in ("started", "ended", "environments"):
        del content[name]
    write_document(folder.state_path, {**content, "of a later version": [1]})
    state = state_of(tmp_path)
    assert (state.started, state.ended, state.environments) == ("", "", ())
    attempt, _ = folder.begin()
    attempt.end("failed")
    assert state_of(tmp_path).environments == ()
    assert re.fullmatch(UTC, state_of(tmp_path).ended)


def test_the_commit_is_that_of_the_checkout() -> None:
    commit = environment.git_commit()
    assert commit is None or re.fullmatch(r"[0-9a-f]{40}(-dirty)?", commit)


def test_a_checkout_around_installed_code_is_not_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    installed = tmp_path / ".venv" / "environment.py"
    installed.parent.mkdir()
    installed.touch()
    run = functools.partial(subprocess.run, cwd=tmp_path, check=True, capture_output=True)
    identity = ["-c", "user.name=x", "-c", "user.email=x@example.org"]
    run(["git", "init"])
    (tmp_path / "own.py").touch()
    run(["git", "add", "own.py"])
    run(["git", *identity, "commit", "-m", "x"])
    monkeypatch.setattr(environment, "__file__", str(installed))
    assert environment.git_commit.__wrapped__() is None
    monkeypatch.setattr(environment, "__file__", str(tmp_path / "own.py"))
    commit = run(["git", "rev-parse", "HEAD"], text=True).stdout.strip()
    assert environment.git_commit.__wrapped__() == commit
