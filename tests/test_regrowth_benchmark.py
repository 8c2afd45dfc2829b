"""The benchmark of regrowth's parts runs tiny on a CPU, and writes its figures and its picture."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from benchmarks import regrowth_parts
from benchmarks.regrowth_parts import PARTS, main

ROOT = Path(__file__).resolve().parents[1]
TINY = ["--model", "tiny", "--images", "256", "--side", "8", "--ssim-batches", "1", "--saliency-batches", "1"]


def test_one_episode_times_every_part(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    command = [sys.executable, "-m", "benchmarks", "regrowth", "--quick", *TINY, "--device", "cpu"]
    command += ["--json", str(tmp_path / "parts.json"), "--figure", str(tmp_path / "parts.png")]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    content = json.loads((tmp_path / "parts.json").read_text())
    assert list(content["parts"]) == list(PARTS)
    assert all(part["mean"] > 0 and len(part["seconds"]) == 1 for part in content["parts"].values())
    assert (content["model"], content["runs"], content["device"]) == ("tiny", 1, "cpu")
    assert all(part["std"] is None for part in content["parts"].values())
    assert "±" not in done.stdout
    assert 0 < content["regrown"] <= 0.01 * 19_344
    assert (tmp_path / "parts.png").read_bytes().startswith(b"\x89PNG")
    assert len(done.stdout.splitlines()) == 1 + len(PARTS)


def test_several_runs_give_a_mean_and_a_deviation(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "parts.json"
    assert main([*TINY, "--runs", "2", "--epochs", "0", "--device", "cpu", "--json", str(file)]) == 0
    for part in json.loads(file.read_text())["parts"].values():
        assert len(part["seconds"]) == 2
        assert part["mean"] == pytest.approx(sum(part["seconds"]) / 2)
    with pytest.raises(SystemExit):
        main(["--runs", "0"])
    assert "--runs must be at least 1" in capsys.readouterr().err


def test_what_takes_long_only_the_first_time_is_not_timed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Such as the import of a compiler, which took longer than the finetuning itself."""
    late, began = 0.0, set()

    def slow_at_first(name: str) -> Callable[..., Any]:
        real = getattr(regrowth_parts, name)

        def run(*arguments: Any, **named: Any) -> Any:
            nonlocal late
            if name not in began:
                began.add(name)
                late += 1000
            return real(*arguments, **named)

        return run

    clock = time.perf_counter
    monkeypatch.setattr(regrowth_parts.time, "perf_counter", lambda: clock() + late)
    for name in ("measured_ssim", "scores", "run_episode"):
        monkeypatch.setattr(regrowth_parts, name, slow_at_first(name))
    file = tmp_path / "parts.json"
    assert main([*TINY, "--quick", "--device", "cpu", "--json", str(file)]) == 0
    assert late == 3000
    assert all(part["mean"] < 1000 for part in json.loads(file.read_text())["parts"].values())


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (
            ["--json", "/nowhere/a.json"],
            "--json is '/nowhere/a.json', but must be a file in a folder that can be written",
        ),
        (["--figure", "a.xyz"], "--figure is 'a.xyz', but must end in .png, .pdf or .svg"),
        (["--device", "tpu"], "device is 'tpu'"),
        (["--data-fraction", "0"], "--data-fraction in (0, 1]"),
        (["--ssim-batches", "0"], "must be at least 1"),
    ],
)
def test_wrong_options_are_refused_before_anything_is_timed(
    arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("matplotlib")
    with pytest.raises(SystemExit) as ended:
        main([*TINY, *arguments])
    assert ended.value.code == 2
    assert said in capsys.readouterr().err
