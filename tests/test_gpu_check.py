"""The GPU check also runs tiny on a CPU, which tests that it runs, reports what it skipped, and writes its figures."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks.gpu.__main__ import options
from benchmarks.gpu.check import Check, DeviceDead
from benchmarks.gpu.measuring import Card
from benchmarks.gpu.plan import SECTIONS, Section
from benchmarks.gpu.report import found, report
from benchmarks.gpu.results import read_results, write_results
from benchmarks.gpu.steps import KINDS, TIMED
from benchmarks.gpu.supervise import LOST, REFUSED, supervise
from tests.few_libraries import few_libraries
from trials.methods.registry import METHODS

ROOT = Path(__file__).resolve().parents[1]
ON_CUDA = [section.name for section in SECTIONS if section.needs_cuda]
SSIM = {"regrow", "regrow_iterative", "single_layer"}
"""Methods that need another library, pytorch_msssim."""


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], str]:
    """Results and page of the whole check on a CPU, in processes that have only the libraries that it says it needs."""
    folder = tmp_path_factory.mktemp("check")
    command = [sys.executable, "-m", "benchmarks", "gpu", "--device", "cpu", "--out", str(folder / "out")]
    environment = few_libraries(folder)
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=400)
    assert done.returncode == 0, done.stderr
    assert (folder / "out" / "gpu_check.md").read_text() == done.stdout
    return json.loads((folder / "out" / "gpu_check.json").read_text()), done.stdout


def test_every_section_runs_on_a_cpu_but_those_for_cuda(whole: tuple[dict[str, Any], str]) -> None:
    results, page = whole
    assert list(found(results, "error")) == []
    assert [name for name in results if name in {section.name for section in SECTIONS}] == [s.name for s in SECTIONS]
    skipped = {f"smoke / {method} {what}" for method in SSIM for what in _ways(results, method)}
    skipped |= {"epoch / CIFAR-10", *ON_CUDA}
    assert {where for where, why in found(results, "skipped") if why != "this stage is not captured"} == skipped
    assert f"torch {results['machine']['torch']}" in page


def _ways(results: dict[str, Any], method: str) -> set[str]:
    names = {name.partition(" ")[::2] for name in results["smoke"]}
    return {way for first, way in names if first == method}


def test_every_method_runs_and_resumes(whole: tuple[dict[str, Any], str]) -> None:
    smoke = whole[0]["smoke"]
    ways = set()
    for method in METHODS.keys() - SSIM:
        (way,) = _ways(whole[0], method) - {"resumed", "once", "again", "random contiguous", "random channels_last"}
        ways.add(way)
        assert smoke[f"{method} {way}"]["status"] == "complete"
        if way != "bf16":
            continue
        after = smoke[f"{method} resumed"]
        assert (after["status"], after["as undisturbed"]) == ("complete", True), method
        assert after["first"] == "preempted"
    assert ways == {"bf16", "float32", "float64"}
    assert smoke["same seed twice is the same"] is True


def test_steps_are_counted_and_timed(whole: tuple[dict[str, Any], str]) -> None:
    results, _ = whole
    assert list(results["waits"])[: len(KINDS)] == list(KINDS)
    assert all(results["waits"][kind] == {"reads_in_5_steps": 0} for kind in ("dense", "masked", "adamw", "adaptive"))
    counts = results["counts"]["resnet20s"]
    dense = counts["dense"]
    assert {kind: each["waits"] for kind, each in counts.items()} == dict.fromkeys(KINDS, 0)
    for kind, budget in {"masked": 1.03, "bip": 2.2, "hydra": 1.5, "greg1/weight": 1.1, "adaptive": 1.4}.items():
        assert counts[kind]["operators"] <= budget * dense["operators"], kind
    assert dense["operators_by_kind"]["convolution"] == dense["operators_by_kind"]["convolution, gradients"] == 19
    assert dense["operators_by_kind"]["optimiser"] == 1
    forward = 2 * 128 * 40_551_040 / 1e9  # multiply-adds of a forward pass; the first layer has no gradient of images
    assert dense["GFLOP"] == pytest.approx(3 * forward, rel=0.02)
    for kind in TIMED:
        assert results["steps_resnet20s"][kind]["eager_ms"] > 0
        assert results["steps_resnet20s"][kind].get("graph_vs_eager", 0) == 0


def test_what_surrounds_a_step_is_measured(whole: tuple[dict[str, Any], str]) -> None:
    results, _ = whole
    loop = (
        "batch_ms", "batch_graph_ms", "step_with_batch_ms", "graph_with_batch_ms", "epoch_start_ms", "evaluate_ms",
        "evaluate_graph_ms", "evaluate_by_hand_ms", "checkpoint_bytes", "checkpoint_copy_ms", "checkpoint_serialise_ms",
        "checkpoint_write_ms",
    )  # fmt: skip
    assert all(results["loop"][name] >= 0 for name in loop)
    assert results["epoch"]["images"] == "noise"
    assert results["ratios"]["epoch, product/bare"]["eager"] > 0
    assert results["epoch"]["product"]["eager"]["start_and_end_s"] > 0
    assert len(results["switches"]) == 7  # six ways, and the seconds
    assert all(results["processes"]["eager"][count]["steps_per_s"] > 0 for count in ("1", "2"))
    kernels = results["kernels"]["dense"]
    assert sum(kind["calls"] for kind in kernels["kinds"].values()) == kernels["operators"]
    assert sum(kind["share"] for kind in kernels["kinds"].values()) == pytest.approx(1, abs=0.01)
    assert 0 < len(kernels["longest"]) <= 12


def test_sections_without_time_left_are_skipped(tmp_path: Path) -> None:
    check = Check(Card(torch.device("cpu")), seconds=0.0, folder=tmp_path)
    check.section("stacked", 5.0, False, lambda check, result: pytest.fail("it ran"))
    assert read_results(tmp_path) == {"stacked": {"skipped": "0 s left, needs 5 s"}}


def test_an_error_ends_its_own_section_alone(tmp_path: Path) -> None:
    check = Check(Card(torch.device("cpu")), seconds=60.0, folder=tmp_path)
    check.section("first", 1.0, False, lambda check, result: result.update(ratio=1 / 0))
    check.section("second", 1.0, False, lambda check, result: result.update(figure=1))
    results = read_results(tmp_path)
    assert list(found(results, "error")) == [("first", "ZeroDivisionError: division by zero")]
    assert results["second"]["figure"] == 1


class _Dying(Card):
    """A device on which an error sticks: from the first one on, every wait raises it."""

    broken: list[str] = []  # noqa: RUF012  one test only

    def wait(self) -> None:
        if self.broken:
            raise RuntimeError(self.broken[0])


def test_a_dead_device_ends_its_process_but_not_the_figures_before_it(tmp_path: Path) -> None:
    check = Check(_Dying(torch.device("cpu")), seconds=60.0, folder=tmp_path)

    def breaks() -> None:
        _Dying.broken.append("CUDA error: device-side assert triggered")
        raise RuntimeError("CUDA error: device-side assert triggered")

    def section(check: Check, result: dict[str, Any]) -> None:
        check.attempt(result, "before", lambda: 1)
        check.attempt(result, "breaks", breaks)
        check.attempt(result, "after", lambda: pytest.fail("it ran on a dead device"))

    check.section("first", 1.0, False, section)
    assert check.dead
    check.section("second", 1.0, False, section)
    results = read_results(tmp_path)
    assert results["first"]["before"] == 1
    assert "device-side assert" in results["first"]["breaks"]["error"]
    assert results["first"]["error"].startswith(f"{DeviceDead.__name__}: the device is dead")
    assert results["second"] == {"skipped": "the device is dead"}


PROCESS = """
import sys, time
from pathlib import Path
from benchmarks.gpu.results import read_results, write_results
folder, names = Path(sys.argv[1]), sys.argv[2].split(",")
results = read_results(folder)
for name in names:
    results[name] = {"running": True, "half": 1}
    write_results(folder, results)
    if name == "killed":
        import os, signal
        os.kill(os.getpid(), signal.SIGKILL)
    if name == "hangs":
        time.sleep(60)
    del results[name]["running"]
    if name == "dead":
        results[name]["error"] = "the device is dead"
    write_results(folder, results)
    if name == "dead":
        sys.exit(17)
"""


def _supervised(tmp_path: Path, names: list[str], script: str = PROCESS, seconds: float = 60) -> tuple[int, Any, int]:
    """Exit code, results and number of processes of a check whose processes run ``script``."""
    begun = []

    def command(sections: Any, seconds: float) -> list[str]:
        begun.append([section.name for section in sections])
        return [sys.executable, "-c", script, str(tmp_path), ",".join(begun[-1])]

    sections = [Section(name, "", "one", limit_s=2.0) for name in names]
    code = supervise(sections, command, tmp_path, seconds)
    return code, read_results(tmp_path), len(begun)


def test_the_check_goes_on_after_a_process_that_is_killed_hangs_or_lost_the_device(tmp_path: Path) -> None:
    assert LOST == 17
    names = ["first", "killed", "second", "hangs", "third", "dead", "last"]
    code, results, processes = _supervised(tmp_path, names)
    assert (code, processes) == (0, 4)
    assert [name for name in names if "error" not in results[name]] == ["first", "second", "third", "last"]
    assert results["killed"] == {"half": 1, "error": "its process was ended by SIGKILL"}
    assert results["hangs"] == {"half": 1, "error": "it took longer than 2 s"}


def test_a_device_that_stays_dead_ends_the_check(tmp_path: Path) -> None:
    code, results, processes = _supervised(tmp_path, ["first", "second"], "import sys; sys.exit(17)")
    assert (code, processes) == (0, 2)
    assert results["first"]["skipped"] == "two processes began no section: the device is dead"
    assert results["second"] == results["first"]


def test_a_check_whose_time_is_over_says_so(tmp_path: Path) -> None:
    code, results, processes = _supervised(tmp_path, ["first"], seconds=-1)
    assert (code, processes) == (0, 0)
    assert results == {"first": {"skipped": "0 s left"}}


def test_a_process_that_refuses_its_options_ends_the_check(tmp_path: Path) -> None:
    assert _supervised(tmp_path, ["first"], f"import sys; sys.exit({REFUSED})")[::2] == (REFUSED, 1)


@pytest.mark.parametrize(
    ("same", "said"),
    [
        ({"bip": True, "dense": True}, "Captured trials end like the eager ones: bip, dense."),
        ({"bip": False, "dense": True}, "Captured trials that end unlike the eager ones: bip."),
        ({"dense": False, "bip": False}, "Captured trials that end unlike the eager ones: dense, bip."),
        ({}, None),
    ],
)
def test_the_page_names_captured_trials_that_end_otherwise(same: dict[str, bool], said: str | None) -> None:
    page = report({"smoke": {"dense bf16": {"status": "complete"}, "captured as eager": same}})
    assert [line for line in page.splitlines() if "Captured" in line] == ([] if said is None else [said])


def test_a_kill_leaves_whole_files(tmp_path: Path) -> None:
    write_results(tmp_path, {"machine": {"device": "a card"}})
    assert read_results(tmp_path)["machine"] == {"device": "a card"}
    assert "Measured on a card." in (tmp_path / "gpu_check.md").read_text()
    assert not list(tmp_path.glob("*.part"))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--only", "wait"], "'wait' is none of: machine,"),
        (["--here", "--device", "mars"], "mars"),
        (["--data", "/nowhere"], "'/nowhere'"),
    ],
)
def test_a_wrong_option_is_refused(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        options(arguments)
    assert message in capsys.readouterr().err
