"""Keeps Tune from holding every trial that has ended: 50 KiB each, and its lists are looked through again and again."""

from __future__ import annotations

from typing import Any

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


class NoProgress(TrialProgressCallback):  # type: ignore[misc]  # Ray is not typed
    """Takes the place of the callback that Tune adds by itself: it prints nothing, and holds no trial."""

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Do nothing."""

    def log_result(self, trial: Any, result: dict[str, Any], error: bool = False) -> None:
        """Do nothing."""
