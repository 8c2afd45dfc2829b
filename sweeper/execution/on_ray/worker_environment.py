"""Makes the workers' runtime environment on every machine before a trial runs, so that what fails is said in a line."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from sweeper.execution.on_ray.kept import disconnect
from sweeper.runtime_env import INSTALLERS, OPTION
from trials.errors import UserError, one_line

LIMIT_S = 600
"""Seconds that Ray gives an environment by default (``config: {setup_timeout_seconds: ...}``)."""

WORKER_S = 120
"""Seconds that a worker may take to start in it."""


def require_environment(runtime_env: Mapping[str, Any] | None, note: Callable[[str], None]) -> None:
    """Make the environment on every machine that is there now; others make it when they join.

    Args:
        runtime_env: as :func:`sweeper.runtime_env.read_runtime_env` returns it.
        note: is told that packages are installed, which may take minutes.

    Raises:
        UserError: a machine cannot make it; the message has what the installer said last.
    """
    if not runtime_env:
        return
    made = [name for name in INSTALLERS if name in runtime_env]
    if made:
        note(f"{OPTION}: {made[0]} makes the workers' environment; the first time, this takes a while")
    limit = runtime_env.get("config", {}).get("setup_timeout_seconds", LIMIT_S)
    machines = [node for node in ray.nodes() if node["Alive"]]
    task = ray.remote(num_cpus=0, max_retries=0)(_nothing)
    asked = [
        task.options(scheduling_strategy=NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)).remote()
        for node in machines
    ]
    ray.wait(asked, num_returns=len(asked), timeout=None if limit == -1 else limit + WORKER_S)
    for node, answer in zip(machines, asked, strict=True):
        try:
            ray.get(answer, timeout=0)
        except (ray.exceptions.RayError, ray.exceptions.GetTimeoutError) as error:
            if any(other["NodeID"] == node["NodeID"] and other["Alive"] for other in ray.nodes()):
                where = f"{node['NodeManagerHostname']} ({node['NodeManagerAddress']})"
                disconnect()  # Ray would not try the same again for a while
                raise UserError(f"{OPTION} cannot be made on {where}: {_last_words(error)}") from None


def _nothing() -> None:
    """Task: a worker has started."""


def _last_words(error: Exception) -> str:
    """The line of a long message that says why: the installer's last error, else the last line with words."""
    if isinstance(error, ray.exceptions.GetTimeoutError):
        return "no worker has started in it in time; config: {setup_timeout_seconds: N} gives it longer"
    lines = [line.strip() for line in str(error).splitlines() if re.search(r"\w", line)]
    said = [line for line in lines if re.match(r"(ERROR|error|×|.*Error:)", line)]
    return one_line((said or lines or [type(error).__name__])[-1])
