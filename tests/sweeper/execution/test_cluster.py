"""Joining or starting Ray, as far as it can be tested without one."""

from __future__ import annotations

from typing import Any

import pytest

from sweeper.execution.on_ray import cluster
from sweeper.execution.on_ray.shipping import packages
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


@pytest.mark.parametrize("hidden", [False, True])
def test_a_ray_here_is_sent_the_code_only_if_its_workers_would_import_other(
    hidden: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    found: list[Any] = []

    def init(**options: Any) -> Any:
        found.append(options.get("runtime_env"))
        raise ConnectionError("seen")

    monkeypatch.setattr(cluster.ray, "is_initialized", lambda: False)
    monkeypatch.setattr(cluster.ray, "init", init)
    monkeypatch.setattr(cluster, "are_hidden", lambda: hidden)
    monkeypatch.setenv("PYTHONPATH", "")
    monkeypatch.setenv("RAY_OVERRIDE_JOB_RUNTIME_ENV", "")
    with pytest.raises(ConnectionError, match="seen"):
        cluster.connect("local")
    (runtime_env,) = found
    assert (runtime_env and runtime_env["py_modules"]) == (packages() if hidden else None)


def test_what_is_asked_stays_as_it_is_and_a_function_that_cannot_be_sent_is_one_line(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def init(runtime_env: dict[str, Any], **_: Any) -> Any:
        runtime_env["env_vars"]["OF_RAY"] = "x"
        raise cluster.ray.exceptions.RuntimeEnvSetupError("no") from TypeError("cannot\npickle it")

    monkeypatch.setattr(cluster.ray, "is_initialized", lambda: False)
    monkeypatch.setattr(cluster.ray, "init", init)
    monkeypatch.setattr(cluster, "are_hidden", lambda: False)
    monkeypatch.setenv("PYTHONPATH", "")
    asked = {"env_vars": {"A": "b"}, "worker_process_setup_hook": init}
    with pytest.raises(UserError, match=r"^--runtime-env cannot be sent to workers: cannot pickle it$"):
        cluster.connect("local", runtime_env=asked)
    assert asked["env_vars"] == {"A": "b"}
