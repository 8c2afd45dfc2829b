"""Searches that are killed repeatedly suggest and stop the same trials as an undisturbed serial one: the same rows."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import time
from pathlib import Path

import pandas as pd
import pytest
import torch

import sweeper
from sweeper.cli import COMPLETE
from sweeper.folder.sweep_folder import SweepFolder, is_stopped
from sweeper.search.plan import Plan
from sweeper.space.checks import check_space
from sweeper.space.load import load_space
from sweeper.space.space import Space
from tests.faults.drivers import Drivers
from tests.faults.sweeps import VARYING, run_until
from tests.trials.processes import started
from trials.running.trial import TrialHost, run
from trials.storage.rows import Row

pytestmark = pytest.mark.slow

SPACE = """
about: to be killed
trial:
  method: one_shot
  dataset: digits
  model: tiny
  pretrain: {epochs: 2}
  finetune: {epochs: 4}
  checkpoint_every_s: 0.05
"""
SEARCHES = {
    "halving": """
grid: {density: [0.3, 0.05]}
search: {finetune.lr: {loguniform: [0.0001, 1.0]}, finetune.momentum: {uniform: [0.0, 0.95]}}
sampler: {name: tpe, n_startup_trials: 2}
pruner: {name: halving, reduction_factor: 2}
samples: 4
""",
    "evolution": """
search: {density: {loguniform: [0.01, 1.0]}, finetune.lr: {loguniform: [0.001, 1.0]}}
sampler: {name: nsga2, population_size: 3}
objectives: [{column: val_accuracy, direction: maximize}, {column: density, direction: minimize}]
constraints: [{column: val_accuracy, at_least: 0.3}]
samples: 8
""",
    "confirmed": """
grid: {density: [0.3]}
search: {finetune.lr: {loguniform: [0.0001, 1.0]}, finetune.momentum: {uniform: [0.0, 0.95]}}
sampler: {name: tpe, n_startup_trials: 2}
samples: 5
confirm: {seed: [1, 2, 3]}
""",
}
KILLS = 10


def space_of(kind: str, folder: Path) -> Space:
    path = folder / f"{kind}.yaml"
    path.write_text(SPACE + SEARCHES[kind])
    space = load_space(str(path))
    check_space(space)
    return space


def drive_serially(space: Space, path: Path) -> None:
    """Run a plan's trials in this process, one at a time, as driver and worker at once."""
    torch.set_num_threads(1)
    folder = SweepFolder(path)
    folder.repair()
    plan = Plan(space, folder)

    def judge(step: int, row: Row) -> bool:
        plan.judge(assignment.trial_id, step, row[space.objective], row)
        return is_stopped(folder.trial_folder(assignment.trial_id), step)

    while (assignment := plan.next()) is not None:
        trial_host = TrialHost(folder.stages, is_over=judge if space.pruner else TrialHost.is_over)
        run(assignment.config, folder.trial_folder(assignment.trial_id), trial_host)
        plan.ended(assignment.trial_id)
    assert plan.complete


def progress(path: Path) -> list[tuple[int, float]]:
    """A value that changes with every commit of a trial or a shared trial, and with every decision of the driver."""
    names = [*path.glob("trials/*/*.json"), *path.parent.glob("stages/*/*.json")]
    found = []
    for name in names:
        with contextlib.suppress(FileNotFoundError):
            found.append((name.stat().st_ino, name.stat().st_mtime))
    return sorted(found)


def killed_after(space: Space, path: Path, commits: int, seconds: float) -> bool:
    """Drive in a new process and SIGKILL it ``seconds`` after ``commits`` commits; False if it finished before."""
    with started(drive_serially, space, path) as process:
        before = progress(path)
        while commits and process.is_alive():
            time.sleep(0.002)
            now = progress(path)
            commits -= now != before
            before = now
        process.join(seconds)
        if process.is_alive():
            assert process.pid is not None
            os.kill(process.pid, signal.SIGKILL)
            process.join()
        assert process.exitcode in (0, -signal.SIGKILL)
        return process.exitcode != 0


def assert_same(one: Path, other: Path) -> None:
    """Both sweeps hold the same trials with the same status and bit-identical rows, without duplicates."""
    ours, theirs = sweeper.load(one), sweeper.load(other)
    assert not ours.epochs.duplicated(["trial", "stage", "level", "epoch"]).any()
    for table, varying in VARYING.items():
        a, b = (getattr(tables, table).drop(columns=varying) for tables in (ours, theirs))
        pd.testing.assert_frame_equal(a, b, check_exact=True)


@pytest.mark.fault("driver-sigkill")
@pytest.mark.parametrize("kind", SEARCHES)
def test_sigkill_again_and_again(tmp_path: Path, kind: str) -> None:
    space = space_of(kind, tmp_path)
    killed, undisturbed = tmp_path / "killed" / kind, tmp_path / "undisturbed" / kind
    drive_serially(space, undisturbed)
    draw = random.Random(kind)
    for _ in range(KILLS):
        assert killed_after(space, killed, draw.randint(1, 4), draw.uniform(0.0, 0.05))
    drive_serially(space, killed)
    assert_same(killed, undisturbed)
    trials = sweeper.load(killed).trials
    assert trials["samples"].sum() == 8
    assert set(trials["status"]) == ({"complete", "pruned"} if space.pruner else {"complete"})
    assert trials["attempts"].max() > 1


@pytest.mark.fault("driver-sigkill")
def test_sigkill_of_a_driver_that_stops_trials_on_ray(drivers: Drivers, tmp_path: Path) -> None:
    space = space_of("halving", tmp_path)
    path = tmp_path / "killed" / "halving"
    arguments = ("--space", "halving.yaml", "--storage", "killed", "--serial")
    driver = drivers.start(*arguments)
    run_until(driver, 0.5, path)
    driver.kill()
    driver = drivers.start(*arguments)
    assert driver.wait() == COMPLETE, driver.said
    drive_serially(space, tmp_path / "undisturbed" / "halving")
    assert_same(path, tmp_path / "undisturbed" / "halving")
