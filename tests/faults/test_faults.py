"""Sweeps whose driver and workers are killed give the results of an undisturbed sweep and repeat no finished work."""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pandas as pd
import pytest

import sweeper
from sweeper.cli import COMPLETE, STOPPED, WRONG_INPUT
from sweeper.folder.sweep_folder import SweepFolder
from tests.faults.drivers import Driver, Drivers
from tests.faults.sweeps import (
    SPACE,
    VARYING,
    Watch,
    arguments,
    assert_same,
    begun_since,
    kill_workers,
    run_until,
    states,
)
from tests.trials.processes import wait_for
from trials.storage.leases.lease import Lease

pytestmark = pytest.mark.slow
TRIALS = 8


@pytest.fixture(autouse=True)
def space(tmp_path: Path) -> None:
    (tmp_path / "small.yaml").write_text(SPACE)


def moments(seed: int) -> Iterator[float]:
    """When to kill: early in the start, while Ray starts, during the shared trial, then at any time."""
    draw = random.Random(seed)
    yield -draw.uniform(0.2, 1.5)
    yield -draw.uniform(2.0, 4.0)
    yield draw.uniform(0.0, 0.5)
    for _ in range(7):
        yield draw.uniform(0.0, 1.0)


SLOW = pytest.mark.slow_faults


@pytest.mark.fault("driver-sigkill", "worker-sigkill")
@pytest.mark.parametrize("kills", [[0, 3], pytest.param(range(10), marks=SLOW)], ids=["few", "many"])
def test_sigkill_of_drivers_and_of_workers(drivers: Drivers, tmp_path: Path, kills: Sequence[int]) -> None:
    path = tmp_path / "killed" / "small"
    watch = Watch(path)
    for moment in [moment for n, moment in enumerate(moments(seed=2)) if n in kills]:
        driver = drivers.start(*arguments("killed"))
        run_until(driver, moment, path)
        driver.kill()
        watch.look()
    more = ("--samples", "3")  # so that some work is certainly left
    driver = drivers.start(*arguments("killed", *more))
    kill_workers(driver, path, 0.3)
    assert driver.wait() == COMPLETE, driver.said
    assert "its process died" in driver.said
    watch.look()
    assert len(watch.finished) == TRIALS + 4
    undisturbed = drivers.run(*arguments("undisturbed", "--serial", *more))
    assert undisturbed.process.returncode == COMPLETE, undisturbed.said
    assert_same(path, tmp_path / "undisturbed" / "small")
    assert sweeper.load(tmp_path / "undisturbed" / "small").trials["attempts"].tolist() == (TRIALS + 4) * [1]
    tables = {file.name: file.read_bytes() for file in (path / "tables").iterdir()}
    again = drivers.run(*arguments("killed", *more))  # starts no Ray
    assert again.process.returncode == COMPLETE
    watch.look()
    assert tables == {file.name: file.read_bytes() for file in (path / "tables").iterdir()}


def let_run(driver: Driver, path: Path) -> None:
    """Wait until two running trials have a commit of their own."""
    before = {name: len(state.commits) and state.commits[-1].number for name, state in states(path).items()}

    def committed() -> bool:
        now = [(n, s) for n, s in states(path).items() if s.status == "running" and s.commits]
        return len([n for n, s in now if s.commits[-1].number > before.get(n, 0)]) >= 2

    driver.wait_until(committed, "two trials to commit")
    assert not driver.ended, driver.said


def assert_stopped(driver: Driver, path: Path, watch: Watch) -> None:
    """Complete or preempted with a checkpoint, nothing running, nothing dead."""
    watch.look()
    now = states(path)
    assert {state.status for state in now.values()} <= {"complete", "preempted"}
    preempted = [state for state in now.values() if state.status == "preempted"]
    assert any(state.commits and state.commits[-1].checkpoint for state in preempted)
    assert all(state.failures == 0 for state in now.values())
    assert not (path / "stop").exists()
    assert Lease(path / "lock").owner() is None
    assert not driver.workers()


@pytest.mark.fault("driver-signals", "two-drivers")
def test_signals_end_with_everything_committed(drivers: Drivers, tmp_path: Path) -> None:
    path = tmp_path / "stopped" / "small"
    watch = Watch(path)
    stopped = arguments("stopped", "--set", "trial.prune.epochs=20")

    driver = drivers.start(*stopped)
    let_run(driver, path)
    driver.signal_all(signal.SIGINT)  # Ctrl-C
    assert driver.wait() == STOPPED, driver.said
    assert "SIGINT: running trials commit and end" in driver.said
    assert "Traceback" not in driver.said
    assert_stopped(driver, path, watch)

    driver = drivers.start(*stopped)
    driver.wait_until(lambda: Lease(path / "lock").owner(), "the lease")
    second = drivers.run(*stopped)  # two at once
    assert second.process.returncode == WRONG_INPUT
    assert f"error: small is being run by process {driver.process.pid} on " in second.said
    assert second.said.count("\n") == 1
    let_run(driver, path)
    asked = drivers.run("--cancel", "small", "--storage", "stopped")  # from elsewhere
    assert asked.process.returncode == COMPLETE, asked.said
    assert f"asked process {driver.process.pid} on " in asked.said
    assert driver.wait() == STOPPED, driver.said
    assert "asked to stop: running trials commit and end" in driver.said
    assert "Traceback" not in driver.said
    assert_stopped(driver, path, watch)


@pytest.mark.fault("batch-warning")
@SLOW
@pytest.mark.parametrize("to_all", [False, True], ids=["driver", "all"])
def test_a_batch_systems_warning_ends_with_everything_committed(to_all: bool, drivers: Drivers, tmp_path: Path) -> None:
    path = tmp_path / "warned" / "small"
    watch = Watch(path)
    driver = drivers.start(*arguments("warned", "--set", "trial.prune.epochs=20"))
    let_run(driver, path)
    for number in (signal.SIGUSR1, signal.SIGXCPU, signal.SIGUSR2):
        if not driver.ended:
            (driver.signal_all if to_all else driver.process.send_signal)(number)
            time.sleep(1.2)
    assert driver.wait() == STOPPED, driver.said
    assert "SIGUSR1: running trials commit and end" in driver.said
    assert "Traceback" not in driver.said
    assert_stopped(driver, path, watch)


@pytest.mark.fault("term-to-all")
@SLOW
def test_sigterm_to_every_process_ends_in_time(drivers: Drivers, tmp_path: Path) -> None:
    path = tmp_path / "ended" / "small"
    watch = Watch(path)
    ended = arguments("ended", "--set", "trial.prune.epochs=20")
    driver = drivers.start(*ended)
    let_run(driver, path)
    began = time.monotonic()
    driver.signal_all(signal.SIGTERM)  # as SLURM does before it kills
    assert driver.wait() == STOPPED, driver.said
    assert time.monotonic() - began < 20
    wait_for(lambda: not driver.workers(), "the workers to end", 20)
    assert_stopped(driver, path, watch)
    assert drivers.run(*ended).process.returncode == COMPLETE
    watch.look()
    assert len(watch.finished) == TRIALS
    assert set(sweeper.load(path).trials["failures"]) == {0}


@pytest.mark.fault("memory-monitor")
@SLOW
def test_the_memory_monitor_of_ray_kills_workers(
    drivers: Drivers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_memory_usage_threshold", "0.0001")
    monkeypatch.setenv("RAY_memory_monitor_refresh_ms", "15000")
    path = tmp_path / "short" / "small"
    driver = drivers.start(*arguments("short", "--set", "trial.prune.epochs=200"))  # longer than until it looks
    driver.wait_until(lambda: "at most 1 at once" in driver.said, "the monitor to kill")
    why = "Ray's memory monitor killed its process, since memory ran short on its machine ("
    assert why in driver.said, driver.said
    driver.process.terminate()
    assert driver.wait() == STOPPED, driver.said
    assert {state.failures for state in states(path).values()} <= {0}


@pytest.mark.fault("driver-signals")
@SLOW
def test_other_signals_end_with_everything_committed(drivers: Drivers, tmp_path: Path) -> None:
    path = tmp_path / "stopped" / "small"
    watch = Watch(path)
    stopped = arguments("stopped", "--set", "trial.prune.epochs=20")

    driver = drivers.start(*stopped)
    let_run(driver, path)
    driver.process.terminate()
    assert driver.wait() == STOPPED, driver.said
    assert "SIGTERM: running trials commit and end" in driver.said
    assert "Traceback" not in driver.said
    assert_stopped(driver, path, watch)

    driver = drivers.start(*stopped, terminal=True)
    let_run(driver, path)
    driver.hang_up()  # SIGHUP to the foreground process group, and no terminal to write to
    assert driver.wait() == STOPPED, driver.said
    assert_stopped(driver, path, watch)

    driver = drivers.start(*stopped)
    driver.wait_until(lambda: Lease(path / "lock").owner(), "the lease")
    time.sleep(2.5)  # Ray starts
    driver.process.terminate()
    assert driver.wait() == STOPPED, driver.said
    assert "Traceback" not in driver.said
    watch.look()

    assert drivers.run(*stopped).process.returncode == COMPLETE
    watch.look()
    assert len(watch.finished) == TRIALS
    trials = sweeper.load(path).trials
    assert trials["trial"].is_unique
    assert set(trials["failures"]) == {0}


@pytest.mark.fault("driver-signals")
def test_a_second_signal_ends_driver_and_workers_at_once(drivers: Drivers, tmp_path: Path) -> None:
    path = tmp_path / "left" / "small"
    driver = drivers.start(*arguments("left", "--set", "trial.checkpoint_every_s=60"))
    run_until(driver, 0.0, path)
    os.kill(driver.workers()[0], signal.SIGSTOP)  # a frozen worker cannot end by itself
    driver.process.send_signal(signal.SIGINT)
    time.sleep(2.0)
    assert not driver.ended
    driver.process.send_signal(signal.SIGINT)
    assert driver.wait(20) == STOPPED
    wait_for(lambda: not drivers.left(), "the end of all it had started")
    assert SweepFolder(path).records()


@pytest.mark.fault("trial-hangs", "worker-sigterm")
@SLOW
def test_a_worker_that_gets_sigterm_and_one_that_hangs(drivers: Drivers, tmp_path: Path) -> None:
    """SIGTERM makes a worker commit and spends no retry; a silent worker counts as dead and spends one."""
    path = tmp_path / "noticed" / "small"
    watch = Watch(path)
    settings = (
        "grid.seed=[0]",
        "trial.prune.epochs=60",
        "trial.checkpoint_every_s=60",
        "silence_limit_s=20",
        "retries=5",
    )
    few = ("--samples", "1", *(word for setting in settings for word in ("--set", setting)))
    driver = drivers.start(*arguments("noticed", *few))
    driver.wait_until(lambda: len(begun_since({}, path)) == 2, "both trials to begin")
    time.sleep(0.5)
    os.kill(driver.workers()[0], signal.SIGTERM)
    driver.wait_until(lambda: any(s.attempt > 1 for s in states(path).values()), "the trial to be handed out again")
    assert not driver.ended, driver.said
    assert all(state.failures == 0 for state in states(path).values()), driver.said
    assert "failed" not in driver.said
    frozen = driver.workers()
    for worker in frozen:
        os.kill(worker, signal.SIGSTOP)
    driver.wait_until(lambda: "no sign of life" in driver.said, "the frozen to be missed")
    assert driver.wait() == COMPLETE, driver.said
    watch.look()
    assert not set(frozen) & set(driver.processes())
    calm = drivers.run(*arguments("calm", "--serial", *few))
    assert calm.process.returncode == COMPLETE, calm.said
    ours, theirs = sweeper.load(path), sweeper.load(tmp_path / "calm" / "small")
    varying = [*VARYING["trials"], "failures"]
    pd.testing.assert_frame_equal(ours.trials.drop(columns=varying), theirs.trials.drop(columns=varying))
    assert ours.trials["failures"].sum() >= 1
