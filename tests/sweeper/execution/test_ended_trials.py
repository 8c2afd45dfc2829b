"""Tune forgets trials that have ended: a sweep of very many trials would otherwise fill the driver's memory."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pytest
from ray.air.execution._internal import RayActorManager
from ray.exceptions import ActorDiedError, OutOfMemoryError, RayActorError, RayError, TaskCancelledError

from sweeper.execution.on_ray.ended_trials import ENDED_KEPT, forget_ended, know_every_death


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


@pytest.mark.fault("memory-monitor")
@pytest.mark.parametrize("error", [OutOfMemoryError("low on memory"), TaskCancelledError(), ActorDiedError()])
def test_every_error_of_ray_is_a_death_to_tune(error: RayError) -> None:
    """Tune itself ends the run with a RuntimeError at those that it does not know."""
    know_every_death()
    know_every_death()
    manager, said = RayActorManager(resource_manager=object()), list[Exception]()

    class Actor:
        actor_id = 1
        _on_error = staticmethod(lambda actor, error: said.append(error))

    class Task:
        _tracked_actor, _on_error = Actor(), None

    manager._cleanup_actor = lambda tracked_actor: None
    manager._actor_task_failed(tracked_actor_task=Task(), exception=error)
    (found,) = said
    assert isinstance(found, RayActorError)
    assert str(error) in str(found)


def test_what_is_no_error_of_ray_is_none_to_tune() -> None:
    know_every_death()
    with pytest.raises(RuntimeError, match="unexpected"):
        RayActorManager(resource_manager=object())._actor_task_failed(
            tracked_actor_task=type("Task", (), {"_tracked_actor": None}), exception=ValueError("of Tune")
        )
