"""The command line: one driver per sweep, and the next one continues when it is stopped or killed."""

from __future__ import annotations

import functools
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import yaml

from sweeper import before_run, driver
from sweeper.cli import COMPLETE, STOPPED, WRONG_INPUT
from sweeper.folder import driving
from tests.sweeper.command_line import SPACE, attempts, figures, sweep, wrong
from tests.sweeper.on_ray import ROOT
from tests.trials.killing import Killed, deaths, killed_at_write
from tests.trials.sealed_files import text_of
from trials.storage.leases.lease import Lease

pytestmark = pytest.mark.usefixtures("here", "no_stray_handlers")


def test_a_second_driver_is_refused(capsys: pytest.CaptureFixture[str], here: Path, ran: list[str]) -> None:
    with Lease(here / "results" / "small" / "lock") as lease:
        assert lease.acquire()
        owner = lease.owner()
        wrong(capsys, SPACE, f"is being run by {owner}", str(os.getpid()), "--show")
        assert not ran
        assert lease.owner() == owner
    assert not (here / "results" / "small" / "sweep.yaml").exists()
    assert sweep() == COMPLETE
    assert len(ran) == 4


def test_a_sweep_that_another_driver_changed_while_this_one_waited_is_refused(
    capsys: pytest.CaptureFixture[str], here: Path, ran: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    require_writable = driver.files.require_writable

    def meanwhile(path: Path) -> None:
        monkeypatch.setattr(driver.files, "require_writable", require_writable)
        assert sweep("--samples", "3") == COMPLETE

    monkeypatch.setattr(driver.files, "require_writable", meanwhile)
    assert sweep() == WRONG_INPUT
    assert "samples is 2" in capsys.readouterr().err
    assert len(ran) == 6


def driver_elsewhere(here: Path, beat: int = 0) -> Path:
    path = here / "results" / "small" / "lock" / "lease.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    owner = {"host": "elsewhere", "pid": 1, "started": "1", "token": "t", "beat": beat}
    partial = path.with_suffix(".new")
    partial.write_text(json.dumps(owner))
    partial.replace(path)
    return path


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(driving, "Lease", functools.partial(Lease, patience_s=0.5))
    monkeypatch.setattr(driving, "HEARTBEAT_S", 0.1)


@pytest.mark.usefixtures("impatient")
def test_the_lease_of_a_driver_that_died_with_its_machine_is_taken_over(
    capsys: pytest.CaptureFixture[str], here: Path, ran: list[str]
) -> None:
    driver_elsewhere(here)
    assert sweep() == COMPLETE
    assert "process 1 on elsewhere; waiting" in capsys.readouterr().out
    assert len(ran) == 4


@pytest.mark.usefixtures("impatient")
def test_the_lease_of_a_driver_alive_on_another_machine_is_not_taken_over(
    capsys: pytest.CaptureFixture[str], here: Path, ran: list[str]
) -> None:
    driver_elsewhere(here)
    beat = threading.Timer(0.2, driver_elsewhere, (here, 1))
    beat.start()
    assert sweep() == WRONG_INPUT
    beat.join()
    assert "is being run by process 1 on elsewhere" in capsys.readouterr().err
    assert not ran


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", '{"host": 1}', "\x00"])
def test_an_unreadable_lease_has_no_owner(here: Path, ran: list[str], content: str) -> None:
    driver_elsewhere(here).write_text(content)
    assert sweep() == COMPLETE


@pytest.mark.usefixtures("not_under_nohup")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_before_trials_run_ends_quietly(
    capsys: pytest.CaptureFixture[str], here: Path, monkeypatch: pytest.MonkeyPatch, number: signal.Signals
) -> None:
    handlers = [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)]
    monkeypatch.setattr(before_run.data, "require_data", lambda *_: os.kill(os.getpid(), number))
    assert sweep() == STOPPED
    assert capsys.readouterr().err.splitlines() == ["stopped; run the same command again to resume"]
    assert [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)] == handlers


INTERRUPTED_START = """
import os, signal, sys, threading
from sweeper.cli import main
from sweeper.execution.on_ray import kept

def connect(*_):  # as Ray, which is not interrupted while it starts
    assert threading.current_thread() is not threading.main_thread()
    os.kill(os.getpid(), signal.SIGTERM)
    os.write(2, b"*** SIGTERM received at time=1 on cpu 0 ***\\nPC: @ 0x7f  (unknown)  epoll_wait\\n")
    return True

kept.connect, kept._session = connect, lambda: "none"
sys.exit(main(["--space", "small.yaml", "--set", "trial.dataset=digits"]))
"""


def test_a_driver_that_is_stopped_while_ray_starts_lets_it_start_and_ends(here: Path) -> None:
    """Ray's own SIGTERM handler can leave a lock held, so that the process hangs; native code prints a stack."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", INTERRUPTED_START]
    ended = subprocess.run(command, cwd=here, env=environment, capture_output=True, text=True, check=False, timeout=60)
    assert ended.returncode == STOPPED, ended.stderr
    assert "stopped while Ray was starting" in ended.stdout
    assert "tables: " in ended.stdout
    assert ended.stderr == ""


def test_a_driver_killed_while_it_writes_sweep_yaml(here: Path, ran: list[str]) -> None:
    path = here / "results" / "small" / "sweep.yaml"
    path.parent.mkdir(parents=True)
    (path.parent / ".sweep.yaml.123.tmp").write_text("---\nspace: {na")
    assert sweep() == COMPLETE
    first = text_of(path)
    (path.parent / ".sweep.yaml.124.tmp").write_text(first + "---\nspace: {na")
    assert sweep("--samples", "3") == COMPLETE
    assert text_of(path).startswith(first)
    assert len(list(yaml.safe_load_all(path.read_text()))) == 2


@pytest.mark.parametrize("seed", range(3))
def test_a_driver_killed_at_any_write(here: Path, ran: list[str], seed: int) -> None:
    """Writes of sweep.yaml, of a trial's record, of a worker's commit and of the tables."""
    assert sweep("--storage", "undisturbed") == COMPLETE
    kills = 0
    for number, place in deaths(seed, longest=10):
        try:
            with killed_at_write(number, place):
                sweep()
            break
        except Killed:
            kills += 1
    assert kills > 2
    assert sweep() == COMPLETE
    path = here / "results" / "small"
    assert figures(path).equals(figures(here / "undisturbed" / "small"))
    assert sorted(attempts(path)) == sorted(attempts(here / "undisturbed" / "small"))
    tables = load_tables(path)
    shutil.rmtree(path / "tables")
    assert sweep() == COMPLETE
    assert load_tables(path) == tables


def load_tables(path: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in (path / "tables").glob("*.parquet")}
