"""The GPU check also runs tiny on a CPU, which tests that it runs, reports what it skipped, and writes its figures."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from benchmarks.gpu.__main__ import options
from benchmarks.gpu.check import Check, found
from benchmarks.gpu.measuring import Card
from benchmarks.gpu.report import report

ROOT = Path(__file__).resolve().parents[1]


def test_it_runs_on_a_cpu(tmp_path: Path) -> None:
    trials = ["bip", "bip random scores channels_last", "resume"]
    chosen = ["--only", "machine,smoke,waits,compile_*", "--trials", ",".join(trials)]
    command = [sys.executable, "-m", "benchmarks.gpu", "--device", "cpu", "--out", str(tmp_path), *chosen]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    results = json.loads((tmp_path / "gpu_check.json").read_text())
    assert list(found(results, "error")) == []
    assert list(results) == ["machine", "smoke", "waits", "compile_resnet20s", "compile_others"]
    assert [name for name, _ in found(results, "skipped")] == ["compile_resnet20s", "compile_others"]
    assert [results["smoke"][name]["status"] for name in trials[:2]] == ["complete", "complete"]
    resume = results["smoke"]["resume"]
    assert (resume["first"]["status"], resume["then"]["status"]) == ("preempted", "complete")
    assert resume["as undisturbed"] is True
    assert results["waits"]["dense"] == {"reads_in_5_steps": 0}
    page = (tmp_path / "gpu_check.md").read_text()
    assert page == done.stdout
    assert f"torch {results['machine']['torch']}" in page


def test_sections_without_time_left_are_skipped(tmp_path: Path) -> None:
    check = Check(Card(torch.device("cpu")), seconds=0.0, folder=tmp_path)
    check.section("stacked", 5.0, False, lambda check, result: pytest.fail("it ran"))
    assert json.loads((tmp_path / "gpu_check.json").read_text()) == {"stacked": {"skipped": "0 s left, needs 5 s"}}


def test_an_error_ends_its_own_section_alone(tmp_path: Path) -> None:
    check = Check(Card(torch.device("cpu")), seconds=60.0, folder=tmp_path)
    check.section("first", 1.0, False, lambda check, result: result.update(ratio=1 / 0))
    check.section("second", 1.0, False, lambda check, result: result.update(figure=1))
    results = json.loads((tmp_path / "gpu_check.json").read_text())
    assert list(found(results, "error")) == [("first", "ZeroDivisionError: division by zero")]
    assert results["second"]["figure"] == 1


@pytest.mark.parametrize(
    ("same", "said"),
    [
        ({"bip": True, "dense": True}, "Captured trials end like the eager ones: bip, dense."),
        ({"bip": False, "dense": True}, "Captured trials that end unlike the eager ones: bip."),
        ({"dense": False, "bip": False}, "Captured trials that end unlike the eager ones: dense, bip."),
        ({"hydra": True, "dense": True}, "Captured trials end like the eager ones: dense."),
        ({"hydra": True}, None),
        ({}, None),
    ],
)
def test_the_page_names_captured_trials_that_end_otherwise(same: dict[str, bool], said: str | None) -> None:
    """Hydra was skipped: two trials that did not run are not alike."""
    names = ("bip", "bip eager", "dense", "dense eager")
    smoke = {**{name: {"status": "complete"} for name in names}, "hydra": {"skipped": "0 s left, needs 15 s"}}
    page = report({"smoke": {**smoke, "captured as eager": same}})
    assert [line for line in page.splitlines() if "Captured" in line] == ([] if said is None else [said])


@pytest.mark.parametrize(
    ("arguments", "message"), [(["--only", "wait"], "'wait' is none of: machine,"), (["--device", "mars"], "mars")]
)
def test_a_wrong_option_is_refused(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        options(arguments)
    assert message in capsys.readouterr().err
