"""A shared trial is computed once by the first process that needs it; all others reuse it."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import pytest

from tests.trials.folders import assert_same_outcome, checkpoint_of, rows_of, same, state_of, the_stage, timeless
from tests.trials.processes import PATIENCE_S, started, wait_for
from tests.trials.small_trials import RECIPE, config_of, folder_of, run_in
from trials.errors import Preempted, Superseded
from trials.running import shared_trials
from trials.running.shared_trials import obtain
from trials.running.stage_run import StageRun
from trials.storage.leases.lease import Lease
from trials.storage.trial_folder import State, TrialFolder

LONGER = {**RECIPE, "epochs": 6}


def one_of_two(number: int) -> Any:
    """One of two trials that start from the same network; on digits, as other processes lack ``few_digits``."""
    return config_of("bip", dataset="digits", density=(0.2, 0.5)[number], pretrain=LONGER)


def run_one(storage: Path, number: int) -> None:
    """Run one of the two trials; for another process."""
    config = one_of_two(number).model_copy(update={"checkpoint_every_s": 0.0})
    assert run_in(storage, config).status == "complete"


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    storage = tmp_path_factory.mktemp("undisturbed")
    for number in (0, 1):
        run_in(storage, one_of_two(number))
    return storage


def assert_both_as_undisturbed(storage: Path, undisturbed: Path) -> None:
    for number in (0, 1):
        config = one_of_two(number)
        assert_same_outcome(folder_of(config, storage), folder_of(config, undisturbed))
    assert timeless(rows_of(the_stage(storage))) == timeless(rows_of(the_stage(undisturbed)))
    assert same(checkpoint_of(the_stage(storage))["net"], checkpoint_of(the_stage(undisturbed))["net"])
    copied = {row["stage_id"] for n in (0, 1) for row in rows_of(folder_of(one_of_two(n), storage))["epochs"]}
    assert copied == {the_stage(storage).name, None}
    assert Lease(the_stage(storage)).owner() is None


@pytest.mark.usefixtures("few_digits")
def test_trials_that_differ_in_density_share_one_computation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trained: list[str] = []
    original = StageRun.train_epoch

    def note(self: StageRun, *arguments: Any) -> Any:
        trained.append(self.stage.name)
        return original(self, *arguments)

    monkeypatch.setattr(StageRun, "train_epoch", note)
    for config in (config_of("bip"), config_of("bip", density=0.5), config_of("one_shot"), config_of("imp-weights")):
        assert run_in(tmp_path, config).status == "complete"
    assert trained.count("pretrain") == RECIPE["epochs"]
    assert state_of(the_stage(tmp_path)).attempt == 1
    seconds = {row["seconds"] for row in rows_of(the_stage(tmp_path))["epochs"]}
    rows = rows_of(folder_of(config_of("bip", density=0.5), tmp_path))["epochs"]
    assert {row["seconds"] for row in rows if row["stage"] == "pretrain"} == seconds  # copied from the shared trial
    run_in(tmp_path, config_of("bip", seed=4))
    assert len(list((tmp_path / "stages").iterdir())) == 2


def test_two_processes_that_need_it_at_the_same_moment(tmp_path: Path, undisturbed: Path) -> None:
    with started(run_one, tmp_path, 0) as first, started(run_one, tmp_path, 1) as second:
        for process in (first, second):
            process.join(PATIENCE_S)
            assert process.exitcode == 0
    assert state_of(the_stage(tmp_path)).attempt == 1
    assert_both_as_undisturbed(tmp_path, undisturbed)


def commits_at(path: Path) -> int:
    state = TrialFolder(path).state()
    return state.commits[-1].number if state is not None and state.commits else 0


def test_the_waiting_process_goes_on_where_the_computing_one_was_killed(tmp_path: Path, undisturbed: Path) -> None:
    def committed() -> int:
        return max([commits_at(path) for path in (tmp_path / "stages").glob("*")], default=0)

    with started(run_one, tmp_path, 0) as first:
        wait_for(lambda: committed() >= 3, "three commits of the stage")
        with started(run_one, tmp_path, 1) as second:
            wait_for(lambda: folder_of(one_of_two(1), tmp_path).joinpath("state.json").exists(), "the second to begin")
            assert first.pid is not None
            os.kill(first.pid, signal.SIGKILL)
            first.join(PATIENCE_S)
            killed_at = committed()
            assert state_of(the_stage(tmp_path)).status == "running"
            second.join(PATIENCE_S)
            assert second.exitcode == 0
    state = state_of(the_stage(tmp_path))
    assert state.attempt == 2
    assert state.commits[-1].number > killed_at  # resumed, not started anew
    run_in(tmp_path, one_of_two(0))
    assert_both_as_undisturbed(tmp_path, undisturbed)


def test_kills_at_ten_moments(tmp_path: Path, undisturbed: Path) -> None:
    """Kill every few commits, throughout the shared trial and the trial that starts from it."""
    folder = folder_of(one_of_two(0), tmp_path)

    def committed() -> int:
        return sum(commits_at(path) for path in (folder, *(tmp_path / "stages").glob("*")))

    kills = 0
    for ahead in (0, 1, 3, 2, 5, 1, 4, 2, 3, 1):
        target = committed() + ahead
        with started(run_one, tmp_path, 0) as process:
            wait_for(lambda target=target, p=process: committed() >= target or not p.is_alive(), "some commits")
            if not process.is_alive():
                break
            assert process.pid is not None
            os.kill(process.pid, signal.SIGKILL)
            kills += 1
    assert kills >= 8
    for number in (0, 1):
        run_in(tmp_path, one_of_two(number))
    assert_both_as_undisturbed(tmp_path, undisturbed)


def never() -> bool:
    return False


def complete(path: Path, status: str = "complete") -> State:
    """A shared trial with one commit, in place of its computation."""
    attempt, _ = TrialFolder(path).begin()
    rows = {"epochs": [{"epoch": 1}]}
    if status == "complete":
        attempt.commit(checkpoint={}, rows=rows, progress={}, seconds=0.0, status=status)
    else:
        attempt.end(status, error={"type": "Bad", "message": "luck"}, failures=attempt.state.failures + 1)
    return attempt.state


def test_a_finished_shared_trial_is_not_computed_again(tmp_path: Path) -> None:
    complete(tmp_path)
    found = obtain(TrialFolder(tmp_path), lambda: pytest.fail("computed"), never)
    assert found.rows == {"epochs": [{"epoch": 1}]}
    assert "rows" in found.checkpoint
    assert found.state == state_of(tmp_path)


def test_asked_to_stop_while_waiting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shared_trials, "SHARED_POLL_S", 0.001)
    answers = iter([False, False, True])
    with Lease(tmp_path) as busy:
        assert busy.acquire()
        with pytest.raises(Preempted):
            obtain(TrialFolder(tmp_path), lambda: pytest.fail("computed"), lambda: next(answers))
    assert next(answers, None) is None


def test_failures_are_raised_and_counted(tmp_path: Path) -> None:
    computed = 0

    def fail() -> State:
        nonlocal computed
        computed += 1
        return complete(tmp_path, "failed")

    for _ in range(5):
        with pytest.raises(RuntimeError, match=rf"{tmp_path.name}.* failed.*luck"):
            obtain(TrialFolder(tmp_path), fail, never)
    assert computed == shared_trials.MOST_FAILURES
    assert Lease(tmp_path).owner() is None


def test_a_process_that_loses_the_lease_waits_for_its_successor(tmp_path: Path) -> None:
    """Its lease on the shared trial was taken over while it was frozen; this does not supersede its own trial."""

    def superseded() -> State:
        complete(tmp_path)
        raise Superseded

    assert obtain(TrialFolder(tmp_path), superseded, never).rows == {"epochs": [{"epoch": 1}]}


def test_the_lease_is_given_back_when_the_computation_raises(tmp_path: Path) -> None:
    def interrupted() -> State:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        obtain(TrialFolder(tmp_path), interrupted, never)
    assert Lease(tmp_path).owner() is None
