"""Keeps Tune from starting trials on barred machines, and from waiting for a place that never comes.

Trials that are asked for after a machine was barred say where they may run. These two are for those asked for before.
"""

from __future__ import annotations

from typing import Any

import ray
from ray import tune
from ray._private.state import actors
from ray.tune.schedulers import FIFOScheduler, TrialScheduler

from sweeper.execution.on_ray.ended_trials import forget_ended
from sweeper.execution.on_ray.tune_searcher import PlanSearcher
from sweeper.search.sick_machines import Card


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

    def on_trial_complete(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> None:
        forget_ended(tune_controller)

    def on_trial_error(self, tune_controller: Any, trial: Any) -> None:
        """Tell the searcher where the process of a trial died before the trial began, as on a machine where Ray's
        workers cannot start."""
        if trial.trial_id in self.searcher.places.waiting:
            error = trial.get_pickled_error()
            said = [line.strip() for line in str(error).splitlines() if line.strip()] or ["no more is known"]
            card = _where_died(getattr(error, "actor_id", None))
            self.searcher.died_early(trial.trial_id, card, f"{type(error).__name__}: {said[-1]}")
        forget_ended(tune_controller)


def _where_died(actor_id: str | None) -> Card | None:
    """The machine on which an actor was started, if Ray knows, and if the machine is alive."""
    found = actors(actor_id) if actor_id else {}
    node = (found.get("Address") or {}).get("NodeID", "")
    names = {n["NodeID"]: n["NodeManagerHostname"] for n in ray.nodes() if n["Alive"]}
    return Card(node, names[node]) if node in names else None


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
