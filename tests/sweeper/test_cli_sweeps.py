"""The command line: a sweep runs once, which changes continue it, and what it prints."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import sweeper
from sweeper.cli import COMPLETE, FAILURES, STOPPED, main
from sweeper.folder.sweep_folder import SweepFolder
from sweeper.search.plan import Plan
from tests.sweeper.command_line import SPACE, attempts, put_in_place_of_ray, sweep, wrong

ROOT = Path(__file__).resolve().parent.parent.parent

pytestmark = pytest.mark.usefixtures("here", "no_stray_handlers")


def test_a_sweep_runs_once(capsys: pytest.CaptureFixture[str], here: Path, ran: list[str]) -> None:
    assert sweep() == COMPLETE
    assert len(ran) == len(set(ran)) == 4
    out = capsys.readouterr().out
    assert "4 trials, 4 done" in out
    assert str(here / "results" / "small" / "tables") in out
    assert sweep() == COMPLETE
    assert len(ran) == 4
    assert attempts(here / "results" / "small") == dict.fromkeys(ran, 1)
    folder = SweepFolder(here / "results" / "small")
    (document,) = folder.documents()
    assert set(document) == {"schema", "written", "space", "data", "versions", "commit", "command"}
    assert "--space" in document["command"]
    assert document["versions"].keys() >= {"torch", "ray", "optuna"}
    assert not (folder.path / "lock" / "lease.json").exists()


def test_a_sweep_can_be_extended_and_moved(here: Path, ran: list[str]) -> None:
    assert sweep() == COMPLETE
    (here / "results").rename(here / "elsewhere")
    assert sweep("--storage", "elsewhere", "--samples", "3", "--set", "grid.density=[0.5, 0.35, 0.2]") == COMPLETE
    assert len(ran) == len(set(ran)) == 4 + 5
    assert attempts(here / "elsewhere" / "small") == dict.fromkeys(ran, 1)
    documents = SweepFolder(here / "elsewhere" / "small").documents()
    assert [document["space"]["samples"] for document in documents] == [2, 3]
    assert not (here / "results").exists()


def test_a_contradicting_space_is_refused_with_the_difference(
    capsys: pytest.CaptureFixture[str], here: Path, ran: list[str]
) -> None:
    assert sweep() == COMPLETE
    before = {path: path.stat().st_mtime_ns for path in (here / "results" / "small").rglob("*") if path.is_file()}
    for setting, parts in {
        "trial.pretrain.epochs=3": ("trial.pretrain.epochs", "3", "2"),
        "grid.density=[0.5]": ("grid.density", "0.2"),
        "search.finetune.lr={loguniform: [0.01, 0.2]}": ("search.finetune.lr", "0.2", "0.1"),
        "sampler=tpe": ("sampler", "tpe", "random"),
        "samples=1": ("samples", "1", "2"),
        "seed=1": ("seed", "1", "0"),
    }.items():
        line = wrong(capsys, [*SPACE, "--set", setting], "begun as another sweep", *parts)
        assert "another --name" in line
        wrong(capsys, [*SPACE, "--set", setting, "--dry-run"], "begun as another sweep")
    assert before == {path: path.stat().st_mtime_ns for path in before}
    assert sweep("--set", "trial.pretrain.epochs=3", "--name", "other") == COMPLETE
    assert len(ran) == 8


def schedule_one(plan: Plan, *_: Any, **__: Any) -> None:
    plan.next()


def test_show_waits_for_neither_torch_nor_ray(here: Path, ran: list[str]) -> None:
    """Importing them takes longer than showing ten thousand trials."""
    sweep()
    script = """
import sys
from sweeper.cli import main
assert main(["--show", "small"]) == 0
assert main(["--list"]) == 0
assert not {"torch", "ray", "scipy"} & set(sys.modules)
"""
    subprocess.run([sys.executable, "-c", script], check=True, env={**os.environ, "PYTHONPATH": str(ROOT)})


def test_show(capsys: pytest.CaptureFixture[str], here: Path, ran: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:  # a driver that dies after scheduling a trial
        put_in_place_of_ray(patch, schedule_one)
        assert sweep() == STOPPED
    capsys.readouterr()
    assert main(["--show", "small"]) == COMPLETE
    assert "2 cells, 0 done; 4 trials, 0 done" in capsys.readouterr().out
    assert sweep() == COMPLETE
    at_the_end = capsys.readouterr().out
    assert main(["--show", "small"]) == COMPLETE
    shown = capsys.readouterr().out
    assert shown
    assert at_the_end.endswith(f"{shown}report: {here / 'results' / 'small' / 'report.html'}\n")
    assert main(["--show", "small", "--storage", str(here / "results")]) == COMPLETE
    assert capsys.readouterr().out == shown


def test_a_failed_trial_is_reported(capsys: pytest.CaptureFixture[str], here: Path, ran: list[str]) -> None:
    arguments = ["--set", "trial.finetune={epochs: 1, lr: 1e30}", "--set", "search=null", "--samples", "1"]
    assert sweep(*arguments) == FAILURES
    assert len(ran) == 4  # each of the two trials is tried twice
    out = capsys.readouterr().out
    assert "NonFiniteLoss" in out
    trials = sweeper.load(here / "results" / "small").trials
    assert trials["status"].tolist() == ["failed", "failed"]
    assert trials["failures"].tolist() == [2, 2]
    assert trials["error_type"].tolist() == ["NonFiniteLoss", "NonFiniteLoss"]
    assert sweep(*arguments) == FAILURES
    assert len(ran) == 4
    assert sweep(*arguments, "--set", "retries=2") == FAILURES
    assert len(ran) == 6
