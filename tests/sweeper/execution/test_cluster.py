"""Joining or starting Ray, as far as it can be tested without one."""

from __future__ import annotations

from typing import Any

import pytest

from sweeper.execution.on_ray import cluster
from trials.errors import UserError


@pytest.mark.parametrize(
    ("said", "kind", "message"),
    [
        ("The current node timed out during startup. This could happen because", UserError, "too busy; give the comm"),
        ("something else", RuntimeError, "something else"),
    ],
)
def test_a_machine_too_busy_to_start_ray_is_reported(
    monkeypatch: pytest.MonkeyPatch, said: str, kind: type[Exception], message: str
) -> None:
    def fail(**_: Any) -> None:
        raise RuntimeError(said)

    monkeypatch.setattr(cluster.ray, "is_initialized", lambda: False)
    monkeypatch.setattr(cluster.ray, "init", fail)
    monkeypatch.setenv("PYTHONPATH", "")
    with pytest.raises(kind, match=message):
        cluster.connect("local")
