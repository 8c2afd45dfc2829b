"""``report.html`` while a sweep runs: by a process that keeps within its share and ends with its driver."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from sweeper.execution import report_refresher
from sweeper.execution.report_refresher import ReportRefresher
from sweeper.report.refreshing import Pace
from sweeper.search.plan import Plan
from tests.sweeper.on_ray import ROOT
from tests.sweeper.report.serving import begun_sweep, one_more
from tests.trials.processes import wait_for


@pytest.fixture
def plan(tmp_path: Path) -> Plan:
    """A sweep of which one trial has ended."""
    return begun_sweep(tmp_path / "small")


@contextmanager
def refreshed(plan: Plan, notes: list[str], every_s: float = 0.05, share: float = 20.0) -> Iterator[int]:
    """The process id of a refresher at work."""
    with ReportRefresher(plan.folder.path, notes.append, every_s=every_s, share=share) as refresher:
        wait_for(lambda: refresher._process, "the process to start")
        assert refresher._process is not None
        yield refresher._process.pid


def seconds_of(process: int) -> float:
    """Processor time of a process so far."""
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def is_there(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def rests(report: Path, for_s: float = 0.3) -> bool:
    """Whether the file stays as it is for ``for_s`` seconds: a change seen half-way is followed by one more report."""
    before = report.stat().st_mtime_ns
    time.sleep(for_s)
    return report.stat().st_mtime_ns == before


def test_it_follows_the_sweep_and_ends_with_the_block(plan: Plan) -> None:
    notes: list[str] = []
    report = plan.folder.path / "report.html"
    with refreshed(plan, notes) as process:
        wait_for(report.exists, "the first report")
        assert os.getsid(process) == process  # Ctrl-C in the terminal goes to the driver alone
        assert os.getpriority(os.PRIO_PROCESS, process) == 19
        wrote = [report.stat().st_mtime_ns]
        for _ in range(2):
            one_more(plan)
            wait_for(lambda: report.stat().st_mtime_ns != wrote[-1], "the next report")
            wrote.append(report.stat().st_mtime_ns)
        wait_for(lambda: rests(report), "nothing to be written when nothing is new")
        began = time.monotonic()
    assert time.monotonic() - began < 1.5
    assert not is_there(process)
    assert notes == []
    assert [path.name for path in plan.folder.path.glob(".*")] == []


def test_it_keeps_within_its_share(plan: Plan) -> None:
    """Its start alone takes about a second; refreshes that are due at any time wait for the time that allows them."""
    began, notes = time.monotonic(), list[str]()
    with refreshed(plan, notes, every_s=0.01, share=0.7) as process:
        wait_for((plan.folder.path / "report.html").exists, "the first report")
        spent, needed = seconds_of(process), time.monotonic() - began
    assert needed > spent / 0.7 * 0.95


def test_pauses_keep_the_sum_of_all_refreshes_below_the_share() -> None:
    draw = random.Random(0)
    for _ in range(50):
        cost, start = draw.uniform(0.01, 20), draw.uniform(0.5, 3)
        pace = Pace(60.0, 0.05, began=0.0, spent_s=start, last_s=max(start, cost))
        now = 60.0 + pace.first(60.0)
        for _ in range(30):
            cost *= draw.uniform(0.9, 1.0)
            at, now = now, now + cost * draw.uniform(1, 30)  # others need the processor, too
            pace.took(cost, drawn=True)
            assert pace.spent_s <= 0.05 * now * 1.000001
            pause = pace.next(at, now)
            assert now + pause - at >= max(60.0, 20 * cost) * 0.999999
            now += pause


def test_what_finds_nothing_new_says_nothing_of_the_next_refresh() -> None:
    pace = Pace(60.0, 0.05, began=0.0, spent_s=1.0, last_s=10.0)
    pace.took(0.01, drawn=False)
    assert pace.next(1000.0, 1000.0) == pytest.approx(200.0)


def test_a_driver_that_is_killed_leaves_none(plan: Plan) -> None:
    code = f"""
import time
from pathlib import Path
from sweeper.execution.report_refresher import ReportRefresher
with ReportRefresher(Path({str(plan.folder.path)!r}), print, every_s=0.01, share=20.0) as refresher:
    while refresher._process is None:
        time.sleep(0.01)
    print(refresher._process.pid, flush=True)
    time.sleep(600)
"""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen([sys.executable, "-c", code], env=environment, stdout=subprocess.PIPE, text=True) as driver:
        assert driver.stdout is not None
        process = int(driver.stdout.readline())
        wait_for((plan.folder.path / "report.html").exists, "the first report")
        assert is_there(process)
        driver.send_signal(signal.SIGKILL)
        wait_for(lambda: not is_there(process), "its child to end", 10)


def test_what_goes_wrong_is_one_line_and_tried_again(plan: Plan) -> None:
    notes: list[str] = []
    report = plan.folder.path / "report.html"
    space = plan.folder.path / "sweep.yaml"
    whole = space.read_bytes()
    space.write_bytes(whole[:-9])
    with refreshed(plan, notes) as process:
        wait_for(lambda: notes, "a line")
        one_more(plan)
        time.sleep(0.3)
        assert len(notes) == 1
        assert notes[0].startswith("report.html could not be refreshed (")
        space.write_bytes(whole)
        one_more(plan)
        wait_for(report.is_file, "the report")
        os.kill(process, signal.SIGKILL)
        wait_for(lambda: len(notes) == 2, "a line on its end")
    assert notes[1] == "report.html is written at the end only: the process that refreshed it has ended (code -9)"


def test_one_that_does_not_answer_is_killed(plan: Plan, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(report_refresher, "CHILD_END_S", 0.2)
    notes: list[str] = []
    with refreshed(plan, notes) as process:
        os.kill(process, signal.SIGSTOP)
        (plan.folder.path / f".report.html.{process}.tmp").write_text("half")
        began = time.monotonic()
    assert time.monotonic() - began < 1.5
    assert not is_there(process)
    assert not list(plan.folder.path.glob(".*"))
    assert notes == []


def test_without_a_python_to_start_there_is_a_line(plan: Plan, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    notes: list[str] = []
    with ReportRefresher(plan.folder.path, notes.append, every_s=0.0):
        wait_for(lambda: notes, "a line")
    assert len(notes) == 1
    assert notes[0].startswith("report.html is written at the end only: no process could be started")


def test_a_short_run_starts_nothing(plan: Plan, monkeypatch: pytest.MonkeyPatch) -> None:
    def forbidden(*_: object, **__: object) -> None:
        raise AssertionError("started")

    monkeypatch.setattr(subprocess, "Popen", forbidden)
    notes: list[str] = []
    began = time.monotonic()
    with ReportRefresher(plan.folder.path, notes.append):
        time.sleep(0.05)
    assert time.monotonic() - began < 1.0
    assert notes == []
