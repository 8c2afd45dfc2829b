"""How a run waits for its machines' answers before trials run. Without Ray."""

from __future__ import annotations

import time
from typing import Any

import pytest

from sweeper.execution.on_ray import requirements
from sweeper.execution.on_ray.requirements import PROBE_S, Waiting
from sweeper.execution.on_ray.worker_environment import LOOK_S, SAID_S

MACHINES = {
    name: {"NodeManagerHostname": name, "NodeManagerAddress": f"10.0.0.{number}"} for number, name in enumerate("abc")
}


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Seconds so far; machine ``a`` answers at once, ``c`` after 100 s, ``b`` never."""
    now = [0.0]

    def wait(asked: list[str], num_returns: int, timeout: float) -> tuple[list[str], list[str]]:
        now[0] += timeout
        ready = [name for name in asked if name == "a" or (name == "c" and now[0] >= 100)]
        return ready, [name for name in asked if name not in ready]

    monkeypatch.setattr(requirements.ray, "wait", wait)
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    return now


@pytest.mark.parametrize(("asked", "said", "seconds"), [("a", 0, LOOK_S), ("ac", 1, 100), ("abc", 1, PROBE_S)])
def test_machines_that_do_not_answer_are_named_once(clock: list[float], asked: str, said: int, seconds: float) -> None:
    notes: list[str] = []
    Waiting(notes.append).wait(list(asked), [MACHINES[name] for name in asked])
    assert len(notes) == said
    assert abs(clock[0] - seconds) <= 1
    for note in notes:
        assert [name in note for name in ("b (10.0.0.1)", "c (10.0.0.2)")] == ["b" in asked, True]
        assert "a (10.0.0.0)" not in note
        assert f"{SAID_S:.0f} s ago" in note


def test_a_run_that_is_to_stop_waits_no_longer(clock: list[float], monkeypatch: pytest.MonkeyPatch) -> None:
    def shared(where: Any, waiting: Waiting) -> None:
        waiting.wait(["b"], [MACHINES["b"]])

    monkeypatch.setattr(requirements, "require_shared", shared)
    requirements.require_machines("x", [], Waiting(stopping=lambda: clock[0] > 10))  # type: ignore[arg-type]
    assert clock[0] <= 11
