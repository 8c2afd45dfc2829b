"""Lost machines: raylets and the head killed, a machine cut off. Several raylets on one host stand for machines."""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import sweeper
from sweeper.cli import COMPLETE, STOPPED
from tests.faults.drivers import Driver, Drivers, living
from tests.faults.sweeps import SPACE, Watch, assert_same, states
from tests.machines import several_machines
from tests.trials.processes import wait_for

pytestmark = [pytest.mark.slow, pytest.mark.slow_faults]

HEALTH = {
    "health_check_initial_delay_ms": 1000,
    "health_check_period_ms": 1000,
    "health_check_timeout_ms": 3000,
    "health_check_failure_threshold": 5,
}
SETTINGS = ("--set", "trial.prune.epochs=100", "--set", "trial.checkpoint_every_s=0.5", "--samples", "1")


class Machines:
    """A head and two worker machines with a core each; the driver joins them by their address."""

    def __init__(self, drivers: Drivers) -> None:
        self.drivers = drivers
        self.cluster = several_machines({"num_cpus": 1, "include_dashboard": False, "_system_config": HEALTH})
        self.workers = [self.cluster.add_node(num_cpus=1) for _ in range(2)]

    def start(self, storage: str) -> Driver:
        return self.drivers.start(*sweep_arguments(storage), address=self.cluster.address)

    def trials_on(self, node: Any) -> list[int]:
        """Processes in which trials run on a machine: children of its raylet."""
        raylet = raylet_of(node)
        names = {pid: name for pid, (_, name) in living().items()}
        return [pid for pid, name in names.items() if name.startswith("ray::TrialWorker") and parent(pid) == raylet]


def raylet_of(node: Any) -> int:
    (info,) = node.all_processes["raylet"]
    return int(info.process.pid)


def parent(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    except OSError:
        return 0


def sweep_arguments(storage: str) -> tuple[str, ...]:
    return ("--space", "small.yaml", "--storage", storage, *SETTINGS)


@pytest.fixture
def machines(drivers: Drivers, tmp_path: Path) -> Iterator[Machines]:
    (tmp_path / "small.yaml").write_text(SPACE)
    machines = Machines(drivers)
    try:
        yield machines
    finally:
        machines.cluster.shutdown()


@pytest.fixture(scope="module")
def calm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of an undisturbed sweep."""
    folder = tmp_path_factory.mktemp("calm")
    (folder / "small.yaml").write_text(SPACE)
    driver = Drivers(folder).run(*sweep_arguments("calm"), "--serial")
    assert driver.process.returncode == COMPLETE, driver.said
    return folder / "calm" / "small"


def deaths(driver: Driver) -> list[str]:
    """The trials whose process died, in the order in which the driver reported them."""
    return re.findall(r"(\S+) \([^\n]*\): its process died", driver.said)


def all_busy(machines: Machines, path: Path) -> bool:
    """Whether trials run on every machine and have own commits, so that none computes or awaits a shared trial."""
    running = [state for state in states(path).values() if state.status == "running" and state.commits]
    return len(running) == 3 and all(machines.trials_on(node) for node in machines.workers)


@pytest.mark.fault("raylet-sigkill", "machine-frozen")
def test_a_machine_that_is_killed_and_one_that_is_cut_off(machines: Machines, calm: Path, tmp_path: Path) -> None:
    path = tmp_path / "disturbed" / "small"
    watch = Watch(path)
    driver = machines.start("disturbed")
    driver.wait_until(lambda: all_busy(machines, path), "trials on all machines")
    first, second = machines.workers
    # The head loses contact with the second machine; once Ray has given it up, its trial wakes and tries to go on.
    frozen = [raylet_of(second), *machines.trials_on(second)]
    os.kill(raylet_of(first), signal.SIGKILL)
    for pid in frozen:
        os.kill(pid, signal.SIGSTOP)
    driver.wait_until(lambda: deaths(driver), "the silence to be noticed")  # not of the first: its worker commits
    watch.look()
    for pid in frozen[1:]:
        os.kill(pid, signal.SIGCONT)
    driver.wait_until(lambda: states(path)[deaths(driver)[0]].attempt == 2, "a successor")
    os.kill(frozen[0], signal.SIGCONT)
    assert driver.wait() == COMPLETE, driver.said
    assert sorted(sweeper.load(path).trials["attempts"]) == [1, 1, 2, 2], driver.said
    watch.look()
    assert set(sweeper.load(path).trials["failures"]) == {0}
    assert_same(path, calm)


@pytest.mark.fault("worker-sigterm")
def test_notice_to_a_machine(machines: Machines, calm: Path, tmp_path: Path) -> None:
    """SIGTERM to the raylet and all of its processes, as a machine that shuts down sends it."""
    path = tmp_path / "disturbed" / "small"
    driver = machines.start("disturbed")
    driver.wait_until(lambda: all_busy(machines, path), "trials on all machines")
    node = machines.workers[0]
    for pid in (*machines.trials_on(node), raylet_of(node)):
        os.kill(pid, signal.SIGTERM)
    assert driver.wait() == COMPLETE, driver.said
    assert set(sweeper.load(path).trials["failures"]) == {0}
    assert_same(path, calm)


@pytest.mark.fault("head-sigkill")
def test_the_head_is_killed(machines: Machines, calm: Path, tmp_path: Path, drivers: Drivers) -> None:
    path = tmp_path / "disturbed" / "small"
    watch = Watch(path)
    driver = machines.start("disturbed")
    driver.wait_until(lambda: all_busy(machines, path), "trials on all machines")
    for kind in ("gcs_server", "raylet"):
        for info in machines.cluster.head_node.all_processes[kind]:
            os.kill(info.process.pid, signal.SIGKILL)
    assert driver.wait(120) not in (COMPLETE, STOPPED)  # after a minute without the head
    wait_for(lambda: not any(machines.trials_on(node) for node in machines.workers), "the workers' end")
    watch.look()
    again = drivers.run(*sweep_arguments("disturbed"))  # on a newly started cluster
    assert again.process.returncode == COMPLETE, again.said
    watch.look()
    assert_same(path, calm)
