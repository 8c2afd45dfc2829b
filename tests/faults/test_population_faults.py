"""A population whose driver and workers are killed gives the results of an undisturbed one and repeats no work."""

from __future__ import annotations

from pathlib import Path

import pytest

import sweeper
from sweeper.cli import COMPLETE
from tests.faults.drivers import Drivers
from tests.faults.sweeps import Watch, arguments, assert_same, kill_workers, run_until

pytestmark = pytest.mark.slow

SPACE = """
about: a population to be killed
trial:
  method: bip
  dataset: digits
  model: tiny
  pretrain: {epochs: 4}
  prune: {epochs: 6, schedule: constant}
  mask_schedule: constant
  checkpoint_every_s: 0.2
grid: {density: [0.3]}
search: {mask_lr: {loguniform: [0.01, 0.1]}, prune.lr: {loguniform: [0.01, 0.1]}}
pbt: {population: 3, interval: 2, generations: 3, quantile: 0.34}
"""
TRIALS = 9


@pytest.mark.fault("driver-sigkill")
def test_sigkill_of_a_driver_and_of_workers(drivers: Drivers, tmp_path: Path) -> None:
    (tmp_path / "small.yaml").write_text(SPACE)
    path = tmp_path / "killed" / "small"
    watch = Watch(path)
    driver = drivers.start(*arguments("killed"))
    run_until(driver, 0.5, path)
    driver.kill()
    watch.look()
    driver = drivers.start(*arguments("killed"))
    kill_workers(driver, path, 0.1)
    assert driver.wait() == COMPLETE, driver.said
    assert "its process died" in driver.said
    watch.look()
    assert len(watch.finished) == TRIALS
    undisturbed = drivers.run(*arguments("undisturbed", "--serial"))
    assert undisturbed.process.returncode == COMPLETE, undisturbed.said
    assert_same(path, tmp_path / "undisturbed" / "small")
    lineage = sweeper.load(path).lineage
    assert len(lineage) == TRIALS
    assert (lineage["parent"] != lineage["member"]).sum() > 0
