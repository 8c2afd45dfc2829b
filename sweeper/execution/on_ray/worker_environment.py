"""Makes the workers' runtime environment on every machine before a trial runs, so that what fails is said in a line."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Any
from unittest.mock import patch

import ray
from ray._private.state import state
from ray.core.generated import gcs_pb2
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from sweeper.execution.on_ray.kept import disconnect
from sweeper.runtime_env import INSTALLERS, OPTION
from trials.errors import UserError, listed, one_line, shown

LIMIT_S = 600
"""Seconds that Ray gives an environment by default (``config: {setup_timeout_seconds: ...}``)."""

WORKER_S = 120
"""Seconds that a worker may take to start in it."""

SAID_S = 60
"""Seconds of waiting after which it is said which machines have no worker yet."""

LOOK_S = 0.25
"""Seconds between two looks whether the run is to stop."""


def require_environment(
    runtime_env: Mapping[str, Any] | None, note: Callable[[str], None], stopping: Callable[[], bool]
) -> None:
    """Make the environment on every machine that is there now; others make it when they join.

    Args:
        runtime_env: as :func:`sweeper.runtime_env.read_runtime_env` returns it.
        note: is told that packages are installed, which may take minutes, and which machines are waited for.
        stopping: whether the run was asked to stop; then this returns, and leaves Ray.

    Raises:
        UserError: a machine cannot make it; the message has what the installer or the worker said last.
    """
    if not runtime_env:
        return
    made = [name for name in INSTALLERS if name in runtime_env]
    if made:
        note(f"{OPTION}: {made[0]} makes the workers' environment; the first time, this takes a while")
    machines = [node for node in ray.nodes() if node["Alive"]]
    task = ray.remote(num_cpus=0, max_retries=0)(_nothing)
    asked = [
        task.options(scheduling_strategy=NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)).remote()
        for node in machines
    ]
    with _without_errors_of_workers():
        _require_started(machines, asked, runtime_env, note, stopping)


def _require_started(
    machines: Sequence[Mapping[str, Any]],
    asked: Sequence[Any],
    runtime_env: Mapping[str, Any],
    note: Callable[[str], None],
    stopping: Callable[[], bool],
) -> None:
    """Wait for the task of each machine, and raise what one of them cannot do."""
    seconds = _seconds(runtime_env)
    if not _have_started(machines, asked, seconds, _waits_for(runtime_env), note, stopping):
        disconnect()  # its workers are still being started
        return
    for node, answer in zip(machines, asked, strict=True):
        try:
            ray.get(answer, timeout=0)
        except (ray.exceptions.RayError, ray.exceptions.GetTimeoutError) as error:
            if any(other["NodeID"] == node["NodeID"] and other["Alive"] for other in ray.nodes()):
                of_worker = _printed(node["NodeID"]) if isinstance(error, ray.exceptions.WorkerCrashedError) else ""
                said = _last_words(of_worker or error, seconds, _waits_for(runtime_env))
                disconnect()  # Ray would not try the same again for a while
                raise UserError(f"{OPTION} cannot be made on {_name(node)}: {said}") from None


@contextmanager
def _without_errors_of_workers() -> Iterator[None]:
    """Do not let Ray print the tracebacks of workers that cannot start: a line says why (:func:`_printed`)."""
    with patch.object(ray._private.worker, "print_to_stdstream", lambda *_, **__: None):
        yield


def _have_started(
    machines: Sequence[Mapping[str, Any]],
    asked: Sequence[Any],
    seconds: float | None,
    awaited: str,
    note: Callable[[str], None],
    stopping: Callable[[], bool],
) -> bool:
    """Wait for the tasks, at most so many seconds; return False once the run is to stop."""
    began, said = time.monotonic(), False
    while not stopping():
        waiting = ray.wait(asked, num_returns=len(asked), timeout=LOOK_S)[1]
        waited = time.monotonic() - began
        if not waiting or (seconds is not None and waited >= seconds):
            return not stopping()
        if waited >= SAID_S and not said:
            names = [_name(node) for node, answer in zip(machines, asked, strict=True) if answer in waiting]
            longest = "without a limit" if seconds is None else f"at most {seconds} s"
            note(f"{OPTION}: no worker has started yet on {listed(names)}; waiting for {awaited}, {longest}")
            said = True
    return False


def _seconds(runtime_env: Mapping[str, Any]) -> float | None:
    """How long to wait for a worker on each machine; None: without a limit."""
    if not _installs(runtime_env):
        return WORKER_S
    limit = runtime_env.get("config", {}).get("setup_timeout_seconds", LIMIT_S)
    return None if limit == -1 else limit + WORKER_S


def _installs(runtime_env: Mapping[str, Any]) -> bool:
    """Whether making it may take longer than the start of a worker; ``py_executable: uv run`` installs packages."""
    return any(name in runtime_env for name in INSTALLERS) or " " in runtime_env.get("py_executable", "")


def _waits_for(runtime_env: Mapping[str, Any]) -> str:
    """What a worker's start waits for."""
    made = [name for name in INSTALLERS if name in runtime_env]
    if made:
        return f"{made[0]} to install its packages"
    if "py_executable" in runtime_env:
        return f"py_executable {shown(runtime_env['py_executable'])} to run"
    return f"a worker with {', '.join(runtime_env)}"


def _name(node: Mapping[str, Any]) -> str:
    return f"{node['NodeManagerHostname']} ({node['NodeManagerAddress']})"


def _nothing() -> None:
    """Task: a worker has started."""


def _printed(node: str) -> str:
    """What the last worker that died on a machine has printed of why, if Ray's head knows it; else empty."""
    with suppress(Exception):  # no part of Ray's interface
        table = map(gcs_pb2.WorkerTableData.FromString, state._connect_and_get_accessor().get_worker_table())
        dead = [
            worker
            for worker in table
            if not worker.is_alive and worker.exit_detail and worker.worker_address.node_id.hex() == node
        ]
        return str(max(dead, key=lambda worker: worker.end_time_ms).exit_detail)
    return ""


def _last_words(error: Exception | str, seconds: float | None, awaited: str) -> str:
    """The line of a long message that says why: the installer's last error, else the last line with words."""
    if isinstance(error, ray.exceptions.GetTimeoutError):
        longer = "" if seconds == WORKER_S else "; config: {setup_timeout_seconds: N} gives it longer"
        return f"no worker has started in it within {seconds} s (waiting for {awaited}){longer}"
    lines = [line.strip() for line in str(error).splitlines() if re.search(r"\w", line)]
    said = [line for line in lines if re.match(r"(ERROR|error|×|.*Error:)", line)]
    return one_line((said or lines or [type(error).__name__])[-1])
