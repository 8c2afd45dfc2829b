"""Comet: an experiment for each trial, which goes on when the sweep is resumed."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ray.air.integrations.comet import CometLoggerCallback

from sweeper.execution.on_ray.trackers.followed import Followed


class CometRuns(CometLoggerCallback):  # type: ignore[misc]  # Ray is not typed
    """Ray's callback, with its options; the project is the sweep by default."""

    @classmethod
    def of_sweep(cls, sweep: str, folder: Path, options: Mapping[str, Any]) -> CometRuns:
        """Make it for a sweep."""
        os.environ.setdefault("COMET_LOGGING_CONSOLE", "ERROR")  # else a page for each trial
        given: dict[str, Any] = {"tags": [sweep], "display_summary_level": 0, **options}
        if "COMET_PROJECT_NAME" not in os.environ:
            given = {"project_name": sweep, **given}
        if not given.get("online", True):
            given = {"offline_directory": str(folder), **given}
        found = cls(**given)
        found._to_other.append("cell")
        return found

    def log_trial_start(self, trial: Followed) -> None:
        self._trial_experiments[trial] = self._experiment(trial)
        super().log_trial_start(trial)
        experiment = self._trial_experiments[trial]
        experiment.add_tags([trial.group, *trial.tags])
        experiment.log_others({"point": trial.point.name, "role": trial.point.role, "group": trial.group})

    def attach(self, trial: Followed, folder: Path, sizes: Mapping[str, int]) -> None:
        """Log files as a model of the experiment; Comet reads them until the experiment ends."""
        trial.init_local_path()
        kept = self._kept(trial)
        shutil.copytree(folder, kept, dirs_exist_ok=True)
        experiment = self._trial_experiments[trial]
        experiment.log_model(str(trial), str(kept))
        experiment.log_other("artifacts", json.dumps(dict(sizes)))

    def log_trial_end(self, trial: Followed, failed: bool = False) -> None:
        super().log_trial_end(trial, failed)
        shutil.rmtree(self._kept(trial), ignore_errors=True)

    def _kept(self, trial: Followed) -> Path:
        return Path(trial.local_path) / "artifacts"

    def _experiment(self, trial: Followed) -> Any:
        import comet_ml
        from comet_ml.config import set_global_experiment

        first, again = (
            (comet_ml.Experiment, comet_ml.ExistingExperiment)
            if self.online
            else (comet_ml.OfflineExperiment, comet_ml.ExistingOfflineExperiment)
        )
        if trial.rows:
            made = again(previous_experiment=trial.run_id, **self.experiment_kwargs)
        else:
            made = first(experiment_key=trial.run_id, **self.experiment_kwargs)
        set_global_experiment(None)  # else the next trial's experiment ends this one
        return made
