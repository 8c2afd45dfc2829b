"""Keeps Tune from starting trials on barred machines, and from waiting for a place that never comes.

Trials that are asked for after a machine was barred say where they may run. These two are for those asked for before.
"""

from __future__ import annotations

from typing import Any

from ray import tune
from ray.tune.schedulers import FIFOScheduler, TrialScheduler

from sweeper.execution.on_ray.tune_searcher import PlanSearcher


class Gate(FIFOScheduler):  # type: ignore[misc]  # Ray is not typed
    """Ends a trial at its first message, before it begins, if it was placed on a machine that is barred by now."""

    def __init__(self, searcher: PlanSearcher) -> None:
        super().__init__()
        self.searcher = searcher

    def __getstate__(self) -> dict[str, Any]:
        return {}

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        refused = self.searcher.refuses(trial.trial_id, result)
        return str(TrialScheduler.STOP if refused else TrialScheduler.CONTINUE)


class WhenStuck(tune.Stopper):  # type: ignore[misc]  # Ray is not typed
    """Ends Tune's run when nothing runs and nothing that waits can be placed."""

    def __init__(self, searcher: PlanSearcher) -> None:
        self.searcher = searcher

    def __getstate__(self) -> dict[str, Any]:
        return {}

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        return False

    def stop_all(self) -> bool:
        return bool(self.searcher.stuck())
