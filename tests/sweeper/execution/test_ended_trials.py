"""Tune forgets trials that have ended: a sweep of very many trials would otherwise fill the driver's memory."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pytest

from sweeper.execution.on_ray.ended_trials import ENDED_KEPT, forget_ended


@dataclass(eq=False)
class Trial:
    """What is asked of a trial of Tune."""

    trial_id: str
    over: bool = True

    def is_finished(self) -> bool:
        return self.over


@dataclass
class Controller:
    """The lists of Tune's controller."""

    trials: list[Any]
    _live_trials: set[Any] = field(default_factory=set)
    _stopped_trials: set[Any] = field(default_factory=set)
    _trial_metadata: dict[str, Any] = field(default_factory=dict)
    _trial_to_actor: dict[Any, Any] = field(default_factory=dict)

    def get_trials(self) -> list[Any]:
        return self.trials


@pytest.mark.fault("many-trials")
def test_what_has_ended_is_forgotten_and_what_runs_is_not() -> None:
    ended = [Trial(f"{number}") for number in range(3 * ENDED_KEPT)]
    running, held = Trial("running", over=False), ended[0]
    there = Controller([running, *ended])
    there._stopped_trials, there._live_trials = set(ended), {running}
    there._trial_metadata = {trial.trial_id: "{}" for trial in (running, *ended)}
    there._trial_to_actor = {held: object()}
    forget_ended(there)
    kept = [running, held, *ended[-ENDED_KEPT:]]
    assert there.trials == kept
    assert there._stopped_trials == set(kept[1:])
    assert there._live_trials == {running}
    assert there._trial_metadata.keys() == {trial.trial_id for trial in kept}
