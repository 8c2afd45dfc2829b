"""Trials that have ended, and Tune: it forgets them, and takes every death of their processes for one.

Tune would hold each of them, 50 KiB, and look through its lists again and again.
"""

from __future__ import annotations

from typing import Any

from ray.air.execution._internal import RayActorManager
from ray.exceptions import RayActorError, RayError, RayTaskError
from ray.tune.progress_reporter import TrialProgressCallback

ENDED_KEPT = 100
"""Ended trials that stay in Tune's lists; at most twice as many are there at any time, beside those that run."""


def forget_ended(tune_controller: Any) -> None:
    """Drop trials that have ended from Tune's lists, all but the last ENDED_KEPT.

    Tune keeps every trial of a run, with its config, its last results and its state as JSON, and has no call that takes
    one out. Nobody asks for them: what a trial has done lies in its folder. Where another version of Tune keeps them
    elsewhere, they stay there, and cost only memory.
    """
    trials = tune_controller.get_trials()
    if len(trials) <= 2 * ENDED_KEPT:  # looked through once in a while, not for each trial
        return
    held = getattr(tune_controller, "_trial_to_actor", {})
    over = {trial.trial_id: trial for trial in trials if trial.is_finished() and trial not in held}
    gone = dict(list(over.items())[:-ENDED_KEPT])
    trials[:] = [trial for trial in trials if trial.trial_id not in gone]
    for name in ("_stopped_trials", "_failed_trials", "_live_trials", "_trials_to_cache"):
        getattr(tune_controller, name, set()).difference_update(gone.values())
    for trial_id in gone:
        getattr(tune_controller, "_trial_metadata", {}).pop(trial_id, None)


def know_every_death() -> None:
    """Let Tune take every error of Ray for the death of the trial's process.

    Tune knows ``RayActorError`` only. At others, such as the ``OutOfMemoryError`` of Ray's memory monitor, it ends the
    whole run with a traceback.
    """
    failed = RayActorManager._actor_task_failed
    if failed is not _task_failed:
        _of_tune.append(failed)
        RayActorManager._actor_task_failed = _task_failed


def _task_failed(manager: Any, tracked_actor_task: Any, exception: Exception) -> None:
    if isinstance(exception, RayError) and not isinstance(exception, (RayActorError, RayTaskError)):
        exception = RayActorError(error_msg=f"{type(exception).__name__}: {exception}")
    _of_tune[-1](manager, tracked_actor_task, exception)


_of_tune: list[Any] = []


class NoProgress(TrialProgressCallback):  # type: ignore[misc]  # Ray is not typed
    """Takes the place of the callback that Tune adds by itself: it prints nothing, and holds no trial."""

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Do nothing."""

    def log_result(self, trial: Any, result: dict[str, Any], error: bool = False) -> None:
        """Do nothing."""
