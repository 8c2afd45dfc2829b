"""Replicates and confirmations together, and files of finished trials as artifacts: sweeps with real trackers.

TensorBoard's files are always written; MLflow on files, W&B and Comet offline if their libraries are installed (extra
``trackers``).
"""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import pytest
import torch

import sweeper
from sweeper.cli import COMPLETE, main
from tests.sweeper.execution.test_trackers import installed
from tests.sweeper.tracker_files import of_mlflow, runs_of_wandb

SPACE = """
trial: {method: one_shot, dataset: digits, model: tiny, pretrain: {epochs: 1}, finetune: {epochs: 1}}
grid: {density: [0.5]}
search: {finetune.lr: {loguniform: [0.01, 0.1]}}
sampler: random
samples: 1
replicates: {values: {seed: [0, 1]}}
confirm: {seed: [7]}
plugins: [ray.tune.logger]
callbacks:
  - tensorboard
  - "ray.tune.logger:JsonLoggerCallback"
  - "ray.tune.logger:CSVLoggerCallback"
"""


@pytest.mark.usefixtures("ray")
@pytest.mark.filterwarnings("ignore:Exception ignored in. <socket:pytest.PytestUnraisableExceptionWarning")  # Comet's
def test_trials_of_a_point_are_together_and_have_artifacts_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("WANDB_DATA_DIR", str(tmp_path / "staged"))
    wanted = ["{name: mlflow, tracking_uri: ./runs, artifacts: [masks, prune, compact]}"] * installed("mlflow")
    wanted += ["{name: wandb, mode: offline, artifacts: masks, tags: [mine]}"] * installed("wandb")
    wanted += ["{name: comet, online: false, artifacts: [masks]}"] * installed("comet_ml")
    (tmp_path / "small.yaml").write_text(SPACE + "".join(f"  - {one}\n" for one in wanted))
    assert main(["--space", "small.yaml"]) == COMPLETE
    out = capsys.readouterr().out
    assert out.count("the callback") == len(wanted), out  # each says once what it has attached
    assert out.count("attached artifacts of 3 trials") == len(wanted), out
    points = {row["trial"]: f"density=0.5 #{row['number']}" for _, row in trials_of(tmp_path).iterrows()}
    assert Counter(points.values()) == {"density=0.5 #0": 3}  # two replicates, and a confirmation
    logs = tmp_path / "results" / "small" / "logs"
    folders = {path.parent.name: path.parent.parent.name for path in logs.glob("tensorboard/*/*/events.out.*")}
    assert folders == points
    for name in ("JsonLoggerCallback/{}/result.json", "CSVLoggerCallback/{}/progress.csv"):
        for trial in points:
            lines = (logs / f"ray.tune.logger.{name.format(trial)}").read_text().splitlines()
            assert len(lines) == 3 + name.startswith(
                "CSV"
            )  # pretraining, the network before the finetuning, finetuning
    if installed("mlflow"):
        assert_of_mlflow(str(tmp_path / "runs"), points)
    if installed("wandb"):
        runs = runs_of_wandb(logs / "wandb")
        assert {trial: run.group.rpartition(" (")[0] for trial, run in runs.items()} == {
            trial: f"small {point}" for trial, point in points.items()
        }
        assert Counter(run.role for run in runs.values()) == {"replicate": 2, "confirmation": 1}
        assert {run.tags for run in runs.values()} == {("density=0.5", "one_shot", "mine")}
        assert all([set(files) for files in run.artifacts] == [{"config.json", "masks.pt"}] for run in runs.values())
    if installed("comet_ml"):
        archives = [ZipFile(path) for path in logs.glob("comet/*.zip")]
        files = [Path(name).name for one in archives for name in _uploaded(one)]
        assert Counter(files) == {"config.json": 3, "masks.pt": 3}


def trials_of(folder: Path) -> Any:
    return sweeper.load(folder / "results" / "small").trials


def _uploaded(archive: ZipFile) -> list[str]:
    messages = map(json.loads, archive.read("messages.json").decode().splitlines())
    uploads = [one["payload"]["additional_params"] for one in messages if one["type"] == "file_upload"]
    return [one["fileName"] for one in uploads if one["type"] == "model-element"]


def assert_of_mlflow(uri: str, points: dict[str, str]) -> None:
    """Runs of a point are children of one run, and each has its artifacts."""
    import mlflow

    client = mlflow.MlflowClient(uri)
    _, runs = of_mlflow(uri, "small")
    parents = {trial: client.get_run(run.data.tags["mlflow.parentRunId"]) for trial, run in runs.items()}
    assert {trial: parent.info.run_name for trial, parent in parents.items()} == points
    assert len({parent.info.run_id for parent in parents.values()}) == 1
    for trial, run in runs.items():
        assert parents[trial].data.params["finetune/lr"] == run.data.params["finetune/lr"]
        files = {one.path: one.file_size for one in client.list_artifacts(run.info.run_id)}
        assert set(files) == {"config.json", "masks.pt", "prune.pt", "compact.pt"}
        assert json.loads(run.data.tags["sweeper.artifacts"]) == files
    folder = client.download_artifacts(run.info.run_id, "masks.pt")
    masks = torch.load(folder, weights_only=True)
    kept = sum(int(mask.sum()) for mask in masks.values()) / sum(mask.numel() for mask in masks.values())
    assert kept == pytest.approx(0.5, abs=0.01)
