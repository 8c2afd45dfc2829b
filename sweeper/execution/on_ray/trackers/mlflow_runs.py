"""MLflow: a run for each trial, which goes on when the sweep is resumed, and one request for each row."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ray.air.integrations.mlflow import MLflowLoggerCallback
from ray.tune.utils import flatten_dict

from sweeper.execution.on_ray.trackers.followed import Followed, numbers_in

RUN, CELL, TRIAL, SWEEP = "sweeper.run", "sweeper.cell", "sweeper.trial", "sweeper.sweep"
POINT, ROLE, GROUP, SIZES = "sweeper.point", "sweeper.role", "sweeper.group", "sweeper.artifacts"
"""Tags of a run; the run of a point has GROUP_OF in place of GROUP and TRIAL."""

GROUP_OF, PARENT = "sweeper.group_of", "mlflow.parentRunId"

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
        self._parents: dict[str, str] = {}

    def log_trial_start(self, trial: Followed) -> None:
        if trial.resumed and self._found(trial):
            return
        of_point = {CELL: trial.cell, SWEEP: self._sweep, POINT: trial.point.name}
        own = {RUN: trial.run_id, TRIAL: trial.trial_id, ROLE: trial.point.role, GROUP: _group(trial), **of_point}
        facts = {name: str(trial.config[name]) for name in ("method", "density") if name in trial.config}
        parent = {PARENT: self._parent(trial, of_point)} if trial.point.is_shared else {}
        tags = {**self.tags, "trial_name": str(trial), **facts, **own, **parent}
        begun = self._client.create_run(self.mlflow_util.experiment_id, tags=tags, run_name=str(trial))
        self._runs[trial.trial_id] = begun.info.run_id
        if not self.log_params_on_trial_end:
            self._log_params(trial)

    def _parent(self, trial: Followed, tags: Mapping[str, str]) -> str:
        """The run of a trial's point, of which the runs of its trials are children; made for the first that needs it.

        A trial that had a run before its point was known to have others, as one that is confirmed, becomes a child.
        """
        if trial.group not in self._parents:
            experiment = [self.mlflow_util.experiment_id]
            found = self._client.search_runs(experiment, f"tags.`{GROUP_OF}` = '{_group(trial)}'")
            if found:
                self._parents[trial.group] = found[0].info.run_id
            else:
                own = {**self.tags, **tags, GROUP_OF: _group(trial)}
                made = self._client.create_run(experiment[0], tags=own, run_name=trial.point.name)
                self._parents[trial.group] = made.info.run_id
                values = {
                    path.replace(".", "/"): value for path, value in trial.point.values.items()
                }  # as in its trials
                self._log_values(made.info.run_id, values)
                self._client.set_terminated(made.info.run_id)
            for run in self._client.search_runs(experiment, f"tags.`{GROUP}` = '{_group(trial)}'"):
                if PARENT not in run.data.tags:
                    self._client.set_tag(run.info.run_id, PARENT, self._parents[trial.group])
        return self._parents[trial.group]

    def _found(self, trial: Followed) -> bool:
        """Let the run go on that an earlier run of the sweep has begun; whether there is one."""
        found = self._client.search_runs([self.mlflow_util.experiment_id], f"tags.`{RUN}` = '{trial.run_id}'")
        for run in found:
            self._runs[trial.trial_id] = run.info.run_id
            self._client.update_run(run.info.run_id, status="RUNNING")
            trial.rows = max(trial.rows, int(run.data.metrics.get("training_iteration", 0)))
        return bool(found)

    def _log_params(self, trial: Followed) -> None:
        self._log_values(self._runs[trial.trial_id], flatten_dict(trial.config))

    def _log_values(self, run: str, values: Mapping[str, Any]) -> None:
        from mlflow.entities import Param

        params = [Param(key, str(value)) for key, value in values.items()]
        for first in range(0, len(params), MOST_PARAMS):
            self._client.log_batch(run, params=params[first : first + MOST_PARAMS])

    def attach(self, trial: Followed, folder: Path, sizes: Mapping[str, int]) -> None:
        """Upload files to the run; a tag says their sizes."""
        run = self._runs[trial.trial_id]
        self._client.log_artifacts(run, str(folder))
        self._client.set_tag(run, SIZES, json.dumps(dict(sizes)))

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


def _group(trial: Followed) -> str:
    """The name of its group, without the quote that a filter of MLflow has no way to write."""
    return trial.group.replace("'", "_")
