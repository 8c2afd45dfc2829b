"""A sweep to be killed, a watch over its finished trials, and the comparison of its tables with an undisturbed run."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pandas as pd

import sweeper
from tests.faults.drivers import Driver
from trials.storage.trial_folder import State, TrialFolder

SPACE = """
about: to be killed
trial:
  method: bip
  dataset: digits
  model: tiny
  pretrain: {epochs: 8}
  prune: {epochs: 8, lr: 0.05}
  checkpoint_every_s: 0.2
grid: {density: [0.5, 0.2], seed: [0, 1]}
search: {mask_lr: {loguniform: [0.01, 0.1]}}
sampler: random
samples: 2
"""

VARYING = {
    "trials": ["seconds", "host", "attempts", "started", "ended"],
    "epochs": ["seconds"],
    "layers": [],
    "allocations": [],
    "lineage": [],
}
"""Columns that may differ between runs."""


def arguments(storage: str, *more: str) -> tuple[str, ...]:
    return ("--space", "small.yaml", "--storage", storage, *more)


def assert_same(one: Path, other: Path) -> None:
    """Both sweeps hold the same complete trials with bit-identical rows, without duplicates."""
    ours, theirs = sweeper.load(one), sweeper.load(other)
    assert set(ours.trials["status"]) == {"complete"}
    assert ours.trials["trial"].is_unique
    assert not ours.epochs.duplicated(["trial", "stage", "level", "epoch"]).any()
    assert not ours.layers.duplicated(["trial", "stage", "level", "layer"]).any()
    for table, varying in VARYING.items():
        a, b = (getattr(tables, table).drop(columns=varying) for tables in (ours, theirs))
        pd.testing.assert_frame_equal(a, b, check_exact=True)


def states(path: Path) -> dict[str, State]:
    found = {folder.name: TrialFolder(folder).state() for folder in (path / "trials").glob("*")}
    return {name: state for name, state in found.items() if state is not None}


class Watch:
    """Remembers the states of finished trials, which must not change."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.finished: dict[str, State] = {}

    def look(self) -> None:
        now = states(self.path)
        for name, state in self.finished.items():
            assert now[name] == state, f"{name} was finished and has changed"
        self.finished = {name: state for name, state in now.items() if state.finished}


def run_until(driver: Driver, moment: float, path: Path) -> None:
    """Wait until ``moment`` seconds after the first trial began (negative: after the driver was started)."""
    if moment >= 0:
        before = attempts(path)
        driver.wait_until(lambda: begun_since(before, path), "a trial to begin")
    time.sleep(abs(moment))


def attempts(path: Path) -> dict[str, int]:
    return {name: state.attempt for name, state in states(path).items()}


def begun_since(before: dict[str, int], path: Path) -> list[State]:
    """The states of trials that have begun another attempt since ``before``."""
    return [state for name, state in states(path).items() if state.attempt > before.get(name, 0)]


def kill_workers(driver: Driver, path: Path, moment: float) -> None:
    """SIGKILL all workers ``moment`` seconds after the first trial began, while a trial runs.

    The workers are frozen first, so that a running trial cannot end between the check and the kill.
    """
    before = attempts(path)
    run_until(driver, moment, path)
    while True:
        assert not driver.ended, driver.said
        workers = driver.workers()
        for worker in workers:
            os.kill(worker, signal.SIGSTOP)
        if any(state.status == "running" for state in begun_since(before, path)):
            break
        for worker in workers:
            os.kill(worker, signal.SIGCONT)
        time.sleep(0.05)
    for worker in workers:
        os.kill(worker, signal.SIGKILL)
