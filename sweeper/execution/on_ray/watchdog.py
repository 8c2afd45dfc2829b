"""A Tune callback that kills the processes of trials that give no sign of life."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import ray
from ray import tune

from sweeper.execution.on_ray.tune_searcher import PlanSearcher

WATCH_EVERY_S = 1.0
"""Seconds between two checks."""


class Watchdog(tune.Callback):  # type: ignore[misc]  # Ray is not typed
    """Kills the processes of silent trials: those that are frozen or run code that never returns.

    ``handle`` is called once Tune has set its handler of SIGUSR1, to set the run's own again.
    """

    def __init__(self, searcher: PlanSearcher, handle: Callable[[], None] = lambda: None) -> None:
        self.searcher = searcher
        self._handle: Callable[[], None] | None = handle
        self._running: dict[str, Any] = {}
        self._looked = time.monotonic()

    def __getstate__(self) -> dict[str, Any]:
        return {}

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **_: Any) -> None:
        self._running[trial.trial_id] = trial

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **_: Any) -> None:
        self._running.pop(trial.trial_id, None)

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **_: Any) -> None:
        self._running.pop(trial.trial_id, None)

    def on_step_begin(self, iteration: int, trials: list[Any], **_: Any) -> None:
        if self._handle is not None:
            self._handle()
            self._handle = None
        if time.monotonic() - self._looked < WATCH_EVERY_S:
            return
        self._looked = time.monotonic()
        for trial_id in self.searcher.silent():
            trial = self._running.pop(trial_id, None)
            actor = trial.temporary_state.ray_actor if trial is not None else None
            if actor is not None:
                ray.kill(actor)
