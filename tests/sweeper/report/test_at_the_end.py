"""``report.html`` is written at the end of every sweep; what goes wrong with it changes nothing else."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import pytest

from sweeper.cli import COMPLETE, FAILURES, STOPPED
from sweeper.report import page, written
from sweeper.search.plan import Plan
from tests.sweeper.command_line import attempts, put_in_place_of_ray, sweep
from tests.sweeper.sweeps import fail
from trials.storage import files
from trials.storage.place import Place

pytestmark = pytest.mark.usefixtures("here", "no_stray_handlers")


def test_it_is_written_and_named_in_the_last_line(
    capsys: pytest.CaptureFixture[str], here: Path, ran: list[str]
) -> None:
    assert sweep() == COMPLETE
    report = here / "results" / "small" / "report.html"
    assert capsys.readouterr().out.splitlines()[-1] == f"report: {report}"
    text = report.read_text()
    assert all(trial in text for trial in ran)
    assert "4 of 4" in text
    assert sweep("--samples", "3") == COMPLETE
    assert "6 of 6" in report.read_text()


def full(path: Place, content: bytes) -> None:
    if path.name == "report.html":
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    write(path, content)


write = files.write


def broken(*_: Any, **__: Any) -> str:
    raise ZeroDivisionError("float\ndivision by zero")


def absent(*_: Any, **__: Any) -> str:
    raise ModuleNotFoundError("No module named 'jinja2'")


@pytest.mark.parametrize(
    ("where", "fault", "said"),
    [
        (files, ("write", full), "[Errno 28] No space left on device"),
        (written, ("report_html", broken), "ZeroDivisionError: float division by zero"),
        (written, ("report_html", absent), "ModuleNotFoundError: No module named 'jinja2'"),
        (written, ("gathered_of", broken), "ZeroDivisionError: float division by zero"),
    ],
)
def test_a_report_that_cannot_be_written_is_one_line(
    capsys: pytest.CaptureFixture[str], here: Path, ran: list[str], monkeypatch: pytest.MonkeyPatch,
    where: Any, fault: tuple[str, Any], said: str,
) -> None:  # fmt: skip
    monkeypatch.setattr(where, *fault)
    assert sweep() == COMPLETE
    out, errors = capsys.readouterr()
    assert out.splitlines()[-1] == f"report: report.html was not written ({said})"
    assert "4 trials, 4 done" in out
    assert errors == ""
    assert not (here / "results" / "small" / "report.html").exists()
    assert len(attempts(here / "results" / "small")) == 4


def test_failed_and_stopped_sweeps_have_one_too(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    report = here / "results" / "small" / "report.html"

    def stopped(plan: Plan, *_: Any, **__: Any) -> bool:
        plan.next()
        return True

    put_in_place_of_ray(monkeypatch, stopped)  # type: ignore[arg-type]
    assert sweep() == STOPPED
    assert "0 of 4" in report.read_text()

    def failing(plan: Plan, *_: Any, **__: Any) -> None:
        while (assignment := plan.next()) is not None:
            fail(plan, assignment.trial_id)
            plan.ended(assignment.trial_id)

    put_in_place_of_ray(monkeypatch, failing)
    assert sweep("--set", "retries=0") == FAILURES
    assert "the loss is nan" in report.read_text()


def test_a_figure_that_fails_takes_nothing_else(here: Path, ran: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(page, "draw_figure", broken)
    assert sweep() == COMPLETE
    text = (here / "results" / "small" / "report.html").read_text()
    assert "a fault of this program (ZeroDivisionError: float division by zero)" in text
    assert all(trial in text for trial in ran)
