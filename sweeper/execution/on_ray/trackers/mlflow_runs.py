"""MLflow: a run for each trial, which goes on when the sweep is resumed, and one request for each row."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ray.air.integrations.mlflow import MLflowLoggerCallback
from ray.tune.utils import flatten_dict

from sweeper.execution.on_ray.trackers.followed import Followed, numbers_in

RUN, CELL, TRIAL, SWEEP = "sweeper.run", "sweeper.cell", "sweeper.trial", "sweeper.sweep"
"""Tags of a run."""

MOST_PARAMS = 100
"""Parameters that one request may hold (MLflow's limit)."""

_STATUS = {"TERMINATED": "FINISHED", "ERROR": "FAILED", "PAUSED": "KILLED"}


class MLflowRuns(MLflowLoggerCallback):  # type: ignore[misc]  # Ray is not typed
    """Ray's callback, with its options; the experiment is the sweep by default.

    Ray's own begins a run for each attempt, and asks the server twice for each figure.
    """

    @classmethod
    def of_sweep(cls, sweep: str, folder: Path, options: Mapping[str, Any]) -> MLflowRuns:
        """Make it for a sweep."""
        named = {"MLFLOW_EXPERIMENT_NAME", "MLFLOW_EXPERIMENT_ID"} & os.environ.keys()
        uri = str(options.get("tracking_uri") or "")
        if uri and ("://" not in uri or uri.startswith("file:")):  # MLflow 3 wants to hear twice that it shall be files
            os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")
        found = cls(**{**({} if named else {"experiment_name": sweep}), **options})
        found._sweep = sweep
        return found

    def setup(self, *args: Any, **kwargs: Any) -> None:
        import mlflow

        super().setup(*args, **kwargs)
        self._client = mlflow.MlflowClient(mlflow.get_tracking_uri(), mlflow.get_registry_uri())
        self._runs: dict[str, str] = {}

    def log_trial_start(self, trial: Followed) -> None:
        if trial.resumed and self._found(trial):
            return
        own = {RUN: trial.run_id, CELL: trial.cell, TRIAL: trial.trial_id, SWEEP: self._sweep}
        tags = {**self.tags, "trial_name": str(trial), **own}
        begun = self._client.create_run(self.mlflow_util.experiment_id, tags=tags, run_name=str(trial))
        self._runs[trial.trial_id] = begun.info.run_id
        if not self.log_params_on_trial_end:
            self._log_params(trial)

    def _found(self, trial: Followed) -> bool:
        """Let the run go on that an earlier run of the sweep has begun; whether there is one."""
        found = self._client.search_runs([self.mlflow_util.experiment_id], f"tags.`{RUN}` = '{trial.run_id}'")
        for run in found:
            self._runs[trial.trial_id] = run.info.run_id
            self._client.update_run(run.info.run_id, status="RUNNING")
            trial.rows = max(trial.rows, int(run.data.metrics.get("training_iteration", 0)))
        return bool(found)

    def _log_params(self, trial: Followed) -> None:
        from mlflow.entities import Param

        params = [Param(key, str(value)) for key, value in flatten_dict(trial.config).items()]
        for first in range(0, len(params), MOST_PARAMS):
            self._client.log_batch(self._runs[trial.trial_id], params=params[first : first + MOST_PARAMS])

    def log_trial_result(self, iteration: int, trial: Followed, result: dict[str, Any]) -> None:
        from mlflow.entities import Metric

        now, step = int(time.time() * 1000), result["training_iteration"]
        rest = {key: value for key, value in result.items() if key not in ("config", "done")}
        metrics = [Metric(key, value, now, step) for key, value in numbers_in(flatten_dict(rest)).items()]
        self._client.log_batch(self._runs[trial.trial_id], metrics=metrics)

    def log_trial_end(self, trial: Followed, failed: bool = False) -> None:
        run = self._runs.pop(trial.trial_id)
        if self.should_save_artifact and Path(trial.local_path).is_dir():
            self._client.log_artifacts(run, trial.local_path)
        if self.log_params_on_trial_end:
            self._runs[trial.trial_id] = run
            self._log_params(trial)
            del self._runs[trial.trial_id]
        self._client.set_terminated(run, status=_STATUS[trial.status])
