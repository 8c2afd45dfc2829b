"""Whole sweeps with trackers, read back from their own files: a run for each trial, each row once, after kills too.

TensorBoard's files are always written; MLflow on files and W&B offline if their libraries are installed (extra
``trackers``).
"""

from __future__ import annotations

import importlib.util
import inspect
import math
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import sweeper
from sweeper.cli import COMPLETE, WRONG_INPUT, main
from sweeper.execution.on_ray.trackers.followed import numbers_in
from sweeper.space.options.callbacks import CALLBACKS, RayLogger
from tests.sweeper.on_ray import ROOT
from tests.sweeper.tracker_files import Logged, of_mlflow, of_tensorboard, of_wandb

SPACE = """
plugins: [./kill.py]
trial: {method: one_shot, dataset: digits, model: tiny, pretrain: {epochs: 2}, finetune: {epochs: 3}}
grid: {density: [0.5, 0.2]}
callbacks:
"""

KILL = """
import os
import signal
from ray import tune

class Kill(tune.Callback):
    '''Kills a trial's process, or the driver, at a row, once.'''

    def __init__(self, row, driver=False):
        self.row, self.driver, self.mark = row, driver, os.path.abspath('killed')

    def on_trial_result(self, iteration, trials, trial, result, **info):
        if iteration == self.row and not os.path.exists(self.mark):
            open(self.mark, 'w').close()
            os.kill(os.getpid() if self.driver else result['pid'], signal.SIGKILL)
"""


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "kill.py").write_text(KILL)
    return tmp_path


def installed(*libraries: str) -> bool:
    return all(importlib.util.find_spec(library) for library in libraries)


@pytest.mark.parametrize("name", ["comet", "mlflow", "tensorboard", "wandb"])
def test_the_options_that_are_checked_are_those_of_the_class(name: str) -> None:
    """A dry run checks options without importing Ray."""
    known = CALLBACKS[name]
    assert isinstance(known, RayLogger)
    parameters = inspect.signature(getattr(importlib.import_module(known.module), known.attribute)).parameters.values()
    is_open = any(parameter.kind == parameter.VAR_KEYWORD for parameter in parameters)
    assert known.options == (None if is_open else tuple(sorted(parameter.name for parameter in parameters)))


def test_figures_of_any_kind_leave_those_that_can_be_drawn() -> None:
    figures = {
        "a": 1,
        "b": 0.5,
        "c": math.nan,
        "d": math.inf,
        "e": 10**400,
        "f": "text",
        "g": None,
        "h": [1],
        "i": True,
    }
    assert numbers_in(figures) == {"a": 1.0, "b": 0.5, "d": math.inf, "i": 1.0}


def assert_each_row_once(logged: Logged, sweep: sweeper.Sweep, figures: tuple[str, ...]) -> None:
    """What was logged of each trial is its table ``epochs``, those of its dense start included."""
    epochs = sweep.epochs
    assert sorted(logged) == sorted(sweep.trials["trial"])
    for trial, rows in logged.items():
        table = epochs[epochs["trial"] == trial]
        assert len(table) == 2 + 1 + 3  # pretraining, the network before the finetuning, finetuning
        assert [step for step, _ in rows] == list(range(1, len(table) + 1)), trial
        for name in figures:
            assert [row[name] for _, row in rows] == pytest.approx(table[name].tolist(), rel=1e-6), (trial, name)


FIGURES = ("val_accuracy", "val_loss", "density", "epoch", "cost")


@pytest.mark.usefixtures("ray")
@pytest.mark.filterwarnings("ignore:Exception ignored in. <socket:pytest.PytestUnraisableExceptionWarning")  # Comet's
def test_a_trial_whose_process_dies_is_one_run_with_each_row_once(
    here: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = ["tensorboard", "{name: 'kill:Kill', row: 5}"]
    wanted += ["{name: mlflow, tracking_uri: ./runs}"] * installed("mlflow")
    wanted += ["{name: wandb, mode: offline}"] * installed("wandb")
    wanted += ["{name: comet, online: false}"] * installed("comet_ml")
    (here / "small.yaml").write_text(SPACE + "\n".join(f"  - {one}" for one in wanted))
    assert main(["--space", "small.yaml"]) == COMPLETE
    out = capsys.readouterr().out
    assert "its process died" in out
    assert "the callback" not in out, out
    sweep = sweeper.load(here / "results" / "small")
    logs = here / "results" / "small" / "logs"
    cells = {f"density={density}" for density in (0.5, 0.2)}
    assert_each_row_once(of_tensorboard(logs / "tensorboard"), sweep, FIGURES)
    if installed("mlflow"):
        logged, runs = of_mlflow(str(here / "runs"), "small")
        assert_each_row_once(logged, sweep, FIGURES)
        assert {run.info.status for run in runs.values()} == {"FINISHED"}
        assert {run.data.tags["sweeper.cell"] for run in runs.values()} == cells
        assert {f"density={run.data.params['density']}" for run in runs.values()} == cells
    if installed("wandb"):
        logged, configs = of_wandb(logs / "wandb")
        assert_each_row_once(logged, sweep, FIGURES)
        assert {config["cell"] for config in configs.values()} == cells
        assert {config["trial_id"] for config in configs.values()} == set(sweep.trials["trial"])
        assert len(list(logs.glob("wandb/*/wandb/offline-run-*"))) == 2
    if installed("comet_ml"):
        assert len(list(logs.glob("comet/*.zip"))) == 2


def run_small(here: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / "sweep.py"), "--space", "small.yaml", "--address", "local"]
    return subprocess.run(command, cwd=here, env=dict(os.environ), capture_output=True, text=True, timeout=200)


@pytest.mark.slow
@pytest.mark.parametrize("row", [4, 6])
def test_a_sweep_whose_driver_dies_goes_on_in_the_same_runs(here: Path, row: int) -> None:
    """At row 6, the trial ends without its driver: the next run tells trackers what they have missed."""
    mlflow = "  - {name: mlflow, tracking_uri: ./runs, artifacts: [masks]}\n" * installed("mlflow")
    kill = f"  - {{name: 'kill:Kill', row: {row}, driver: true}}\n"
    (here / "small.yaml").write_text(f"{SPACE}  - tensorboard\n{mlflow}{kill}")
    first = run_small(here)
    assert first.returncode == -signal.SIGKILL, first.stderr
    second = run_small(here)
    assert second.returncode == COMPLETE, second.stdout + second.stderr
    sweep = sweeper.load(here / "results" / "small")
    assert_each_row_once(of_tensorboard(here / "results" / "small" / "logs" / "tensorboard"), sweep, FIGURES)
    if mlflow:
        logged, runs = of_mlflow(str(here / "runs"), "small")
        assert_each_row_once(logged, sweep, FIGURES)
        assert {run.info.status for run in runs.values()} == {"FINISHED"}
        assert all("masks.pt" in run.data.tags["sweeper.artifacts"] for run in runs.values())
    third = run_small(here)
    assert third.returncode == COMPLETE
    assert_each_row_once(of_tensorboard(here / "results" / "small" / "logs" / "tensorboard"), sweep, FIGURES)


@pytest.mark.usefixtures("ray")
def test_a_tracker_that_cannot_be_reached_is_refused_before_a_trial_runs(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("wandb")
    (here / "small.yaml").write_text(f"{SPACE}  - {{name: wandb, api_key_file: nowhere}}\n")
    assert main(["--space", "small.yaml"]) == WRONG_INPUT
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: callbacks has 'wandb', which cannot be set up: FileNotFoundError: ")
    assert not (here / "results" / "small" / "trials").exists()
