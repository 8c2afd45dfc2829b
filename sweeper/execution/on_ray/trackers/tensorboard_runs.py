"""TensorBoard: event files in a folder for each trial; what a killed run has written twice, or half, is hidden."""

from __future__ import annotations

from ray.tune.logger import TBXLoggerCallback

from sweeper.execution.on_ray.trackers.followed import Followed


class TensorBoardRuns(TBXLoggerCallback):  # type: ignore[misc]  # Ray is not typed
    """Ray's callback. A resumed trial's file says from which step on it replaces those before (``purge_step``)."""

    def log_trial_start(self, trial: Followed) -> None:
        trial.init_local_path()
        again = {"purge_step": trial.rows + 1} if trial.resumed else {}
        self._trial_writer[trial] = self._summary_writer_cls(trial.local_path, flush_secs=30, **again)
        self._trial_result[trial] = {}
