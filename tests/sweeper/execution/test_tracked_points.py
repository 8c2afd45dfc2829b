"""Replicates and confirmations together, and files of finished trials as artifacts: sweeps with real trackers.

TensorBoard's files are always written; MLflow on files, W&B and Comet offline if their libraries are installed (extra
``trackers``).
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

import sweeper
from sweeper.cli import COMPLETE, main
from tests.sweeper.execution.test_trackers import installed
from tests.sweeper.tracker_files import of_mlflow, of_tensorboard

SPACE = """
trial: {method: one_shot, dataset: digits, model: tiny, pretrain: {epochs: 1}, finetune: {epochs: 1}}
grid: {density: [0.5]}
search: {finetune.lr: {loguniform: [0.01, 0.1]}}
sampler: random
samples: 2
replicates: {values: {seed: [0, 1]}}
confirm: {seed: [7]}
callbacks:
  - tensorboard
"""

@pytest.mark.usefixtures("ray")
@pytest.mark.filterwarnings("ignore:Exception ignored in. <socket:pytest.PytestUnraisableExceptionWarning")  # Comet's
def test_trials_of_a_point_are_together_and_have_artifacts_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    wanted = ["{name: mlflow, tracking_uri: ./runs, artifacts: [masks, prune, compact]}"] * installed("mlflow")
    wanted += ["{name: wandb, mode: offline, artifacts: masks, tags: [mine]}"] * installed("wandb")
    wanted += ["{name: comet, online: false, artifacts: masks}"] * installed("comet_ml")
    (tmp_path / "small.yaml").write_text(SPACE + "".join(f"  - {one}\n" for one in wanted))
    assert main(["--space", "small.yaml"]) == COMPLETE
    out = capsys.readouterr().out
    assert "failed in" not in out, out
    assert "no artifacts" not in out, out
    table = sweeper.load(tmp_path / "results" / "small").trials
    roles = {row["trial"]: (f"density=0.5 #{row['number']}", row["config.seed"]) for _, row in table.iterrows()}
    assert len(roles) == 5
    logs = tmp_path / "results" / "small" / "logs"
    found = {path.parent.name: path.parent.parent.name for path in logs.glob("tensorboard/*/*/events.out.*")}
    assert found == {trial: point for trial, (point, _) in roles.items()}
    print(out)
