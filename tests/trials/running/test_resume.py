"""A trial that is stopped or killed, at any point and any number of times, gives the bits of an undisturbed one."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from tests.trials.folders import assert_same_outcome, checkpoint_of, rows_of, same, state_of, the_stage, timeless
from tests.trials.killing import Killed, deaths, killed_at_write
from tests.trials.small_trials import CONFIGS, STEPS, config_of, folder_of, run_in, source_of
from trials.config.trial_config import TrialConfig
from trials.methods import Method
from trials.methods.bip.bip import Bilevel
from trials.methods.registry import METHODS
from trials.models import MODELS
from trials.running import progress, trial
from trials.running.progress import Progress
from trials.running.stage_run import StageRun

pytestmark = pytest.mark.usefixtures("few_digits")

ENOUGH = 100
"""More attempts than any of these trials needs."""


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory, few_digits: None) -> Callable[[TrialConfig], Path]:
    """The folder of a config's trial that ran in one go, once per module."""
    storage = tmp_path_factory.mktemp("undisturbed")

    def folder(config: TrialConfig) -> Path:
        state = run_in(storage, config)
        assert (state.status, state.attempt) == ("complete", 1), state.error
        return folder_of(config, storage)

    return folder


def eager(config: TrialConfig) -> TrialConfig:
    """The same trial, which commits after every step."""
    frequent = config.model_copy(update={"checkpoint_every_s": 0.0})
    assert frequent.id == config.id
    return frequent


def test_committing_after_every_step_changes_nothing(
    tmp_path: Path, undisturbed: Callable[[TrialConfig], Path]
) -> None:
    config = config_of("bip")
    assert run_in(tmp_path, eager(config)).attempt == 1
    assert_same_outcome(folder_of(config, tmp_path), undisturbed(config))


@pytest.mark.parametrize("name", CONFIGS)
def test_preempted_at_every_commit_point(
    name: str, tmp_path: Path, undisturbed: Callable[[TrialConfig], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress, "STOP_POLL_S", 0.0)
    config, attempts = config_of(name), 0
    visited: Counter[tuple[int, int]] = Counter()
    while True:
        attempts += 1
        assert attempts < ENOUGH, "it makes no progress"
        state = run_in(tmp_path, config, should_stop=lambda: True)
        assert state.status in ("preempted", "complete"), state.error
        if state.status == "complete":
            break
        visited[state.progress.get("epoch", 0), state.progress.get("step", 0)] += 1
    source = source_of(config, tmp_path)
    first_attempts = attempts_of(source) if source is not None else 0
    if source is not None and source.name.startswith("dense"):
        assert first_attempts == 2 * STEPS + 1 + 1  # after every step, between the epochs, and the last one
    without = ("dense", "regrow-rule", "regrow_iterative", "single_layer")  # these have no steps
    if any(own.epochs for own in METHODS[config.method](config).stages()) and name not in without:
        first = 1 if name == "imp-weights-early" else 0
        assert {(first, step) for step in range(1, STEPS + 1)} <= visited.keys()
        assert attempts > first_attempts + STEPS
    assert_same_outcome(folder_of(config, tmp_path), undisturbed(config))


def attempts_of(path: Path) -> int:
    return state_of(path).attempt


@pytest.mark.parametrize("name", CONFIGS)
def test_killed_at_random_writes(name: str, tmp_path: Path, undisturbed: Callable[[TrialConfig], Path]) -> None:
    config, kills = config_of(name), 0
    for number, place in deaths(seed=sorted(CONFIGS).index(name), longest=25):
        try:
            with killed_at_write(number, place):
                run_in(tmp_path, eager(config))
            break
        except Killed:
            kills += 1
            assert kills < ENOUGH, "it makes no progress"
    assert kills  # at least once
    assert_same_outcome(folder_of(config, tmp_path), undisturbed(config))


@pytest.mark.parametrize(
    ("name", "owner", "where"),
    [
        ("imp-weights-early", StageRun, "train_epoch"),
        ("imp-weights-early", Progress, "commit"),
        ("bip", StageRun, "train_epoch"),
        ("bip", Progress, "report"),
        ("bip", trial._Run, "_load_source"),
    ],
)
def test_killed_between_the_commits(
    name: str,
    owner: type,
    where: str,
    tmp_path: Path,
    undisturbed: Callable[[TrialConfig], Path],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Kill at the end of the n-th call of a function, for every n, with commits at stage ends only."""
    config = config_of(name)
    original, kills, calls = getattr(owner, where), 0, 0

    def dies(self: Any, *arguments: Any, **keywords: Any) -> Any:
        nonlocal calls
        calls += 1
        result = original(self, *arguments, **keywords)
        if calls > kills:
            raise Killed
        return result

    while True:
        calls = 0

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(owner, where, dies)
            try:
                run_in(tmp_path, config)
                break
            except Killed:
                kills += 1
                assert kills < ENOUGH, "it makes no progress"
    assert kills >= 1
    assert_same_outcome(folder_of(config, tmp_path), undisturbed(config))


def test_killed_within_a_step(tmp_path: Path, undisturbed: Callable[[TrialConfig], Path]) -> None:
    """Killed between the updates of weights and scores: half a step must have no effect on the results."""
    config, original, kills, calls = config_of("bip"), Bilevel.step_upper, 0, 0

    def dies(self: Bilevel, batch: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == 2:
            raise Killed
        return original(self, batch)

    while kills < 2 * STEPS:
        calls = 0

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Bilevel, "step_upper", dies)
            try:
                run_in(tmp_path, eager(config))
                break
            except Killed:
                kills += 1
    assert kills == 2 * STEPS - 1
    assert run_in(tmp_path, config).status == "complete"
    assert_same_outcome(folder_of(config, tmp_path), undisturbed(config))


def test_a_network_that_draws_random_numbers_resumes_within_an_epoch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def with_dropout(*, num_classes: int, in_channels: int) -> nn.Module:
        conv = nn.Conv2d(in_channels, 8, 3, padding=1)
        return nn.Sequential(conv, nn.ReLU(), nn.Flatten(), nn.Dropout(0.5), nn.Linear(8 * 64, num_classes))

    monkeypatch.setitem(MODELS, "with_dropout", with_dropout)
    monkeypatch.setattr(progress, "STOP_POLL_S", 0.0)
    config = config_of("one_shot", model="with_dropout")
    assert run_in(tmp_path / "a", config).status == "complete"
    for attempts in range(ENOUGH):
        if run_in(tmp_path / "b", config, should_stop=lambda: True).status == "complete":
            break
        torch.rand(attempts)  # a resumed trial must not depend on the generator's state
    assert attempts > 4 * STEPS
    assert_same_outcome(folder_of(config, tmp_path / "b"), folder_of(config, tmp_path / "a"))


def test_a_failure_costs_only_what_was_not_committed(
    tmp_path: Path, undisturbed: Callable[[TrialConfig], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    config, original, calls = config_of("one_shot"), StageRun.train_epoch, 0

    def fails(self: Any, *arguments: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == 2 + 2:  # the second epoch of finetuning
            raise OSError("out of luck")
        return original(self, *arguments)

    monkeypatch.setattr(StageRun, "train_epoch", fails)
    state = run_in(tmp_path, eager(config))
    assert (state.status, state.failures) == ("failed", 1)
    assert state.error is not None
    assert (state.error["type"], state.error["message"]) == ("OSError", "out of luck")
    assert "in fails" in state.error["traceback"]
    state = run_in(tmp_path, eager(config))
    assert (state.status, state.failures, state.error, state.attempt) == ("complete", 1, None, 2)
    assert calls == 5  # neither the shared trial nor the first epoch of finetuning ran again
    assert_same_outcome(folder_of(config, tmp_path), undisturbed(config))


def test_other_data_than_the_trial_began_on_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "STOP_POLL_S", 0.0)
    config = config_of("bip")
    for _ in range(ENOUGH):
        if run_in(tmp_path, config, should_stop=lambda: True).progress.get("step") == 2:
            break
    before = rows_of(folder_of(config, tmp_path))
    raw = trial.load_data("few_digits")
    monkeypatch.setattr(trial, "load_data", lambda *_: dataclasses.replace(raw, fingerprint="f" * 16))
    state = run_in(tmp_path, config)
    assert state.status == "failed"
    assert state.error is not None
    for part in ("digits", raw.fingerprint, "f" * 16, "give it the data it began on"):
        assert part in state.error["message"]
    assert "\n" not in state.error["message"]
    assert rows_of(folder_of(config, tmp_path)) == before


def test_a_finished_trial_is_not_run_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = config_of("bip")
    state = run_in(tmp_path, config)
    files = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*") if path.is_file()}
    monkeypatch.setattr(trial, "_Run", None)
    assert run_in(tmp_path, config) == state
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*") if path.is_file()} == files


def test_damaged_rows_of_a_finished_trial_are_repaired_without_running_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = config_of("bip")
    state = run_in(tmp_path, config)
    folder = folder_of(config, tmp_path)
    before = rows_of(folder)
    for name in state.commits[-1].rows.values():
        (folder / "rows" / name).write_bytes(b"rot")
    monkeypatch.setattr(trial, "_Run", None)
    assert run_in(tmp_path, config).status == "complete"
    assert rows_of(folder) == before


def test_a_damaged_checkpoint_of_a_finished_trial_is_computed_again(
    tmp_path: Path, undisturbed: Callable[[TrialConfig], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    config = config_of("bip")
    state = run_in(tmp_path, config)
    folder = folder_of(config, tmp_path)
    assert state.commits[-1].checkpoint is not None
    damaged = folder / "checkpoint" / state.commits[-1].checkpoint
    damaged.write_bytes(damaged.read_bytes()[:-100])
    stages: list[str] = []
    original = trial._Run._run_stage

    def note(self: Any, stage: Any, *arguments: Any, **keywords: Any) -> None:
        stages.append(stage.name)
        original(self, stage, *arguments, **keywords)

    monkeypatch.setattr(trial._Run, "_run_stage", note)
    assert run_in(tmp_path, config).attempt == 2
    assert stages == ["prune", "finetune"]
    assert damaged.with_name(damaged.name + ".damaged").exists()
    assert_same_outcome(folder, undisturbed(config))


def test_a_damaged_checkpoint_of_the_source_is_computed_again(
    tmp_path: Path, undisturbed: Callable[[TrialConfig], Path]
) -> None:
    assert run_in(tmp_path, config_of("one_shot")).status == "complete"
    stage = the_stage(tmp_path)
    (checkpoint,) = (stage / "checkpoint").iterdir()
    checkpoint.write_bytes(b"rot")
    config = config_of("bip")  # starts from the same network
    assert run_in(tmp_path, config).status == "complete"
    assert attempts_of(stage) == 2
    assert_same_outcome(folder_of(config, tmp_path), undisturbed(config))


def test_methods_return_the_same_stages_every_time(undisturbed: Callable[[TrialConfig], Path]) -> None:
    for name in CONFIGS:
        method: Method = METHODS[config_of(name).method](config_of(name))
        first, second = ([(s.key, s.epochs, s.first_epoch) for s in method.stages()] for _ in range(2))
        assert first == second
        assert len({key for key, *_ in first}) == len(first)


def test_outcomes_differ_where_configs_do(undisturbed: Callable[[TrialConfig], Path]) -> None:
    """The comparisons above detect differences."""
    a, b = (undisturbed(config_of("bip", seed=seed)) for seed in (3, 4))
    assert timeless(rows_of(a)) != timeless(rows_of(b))
    assert not same(checkpoint_of(a)["net"], checkpoint_of(b)["net"])
