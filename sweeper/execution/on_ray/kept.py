"""The Ray of a process that runs several sweeps: it starts once, and one that the process has joined itself is used."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any

import ray
import ray.util.client

from sweeper.execution.on_ray.cluster import connect
from trials.errors import UserError
from trials.plugins.importing import sent
from trials.storage.place import Place, environment

START_S = 60.0
"""Seconds to wait for the end of a Ray whose start was interrupted."""

CODE_SAID_S = 20.0
"""Seconds after which it is said what a run waits for."""

CODE_S = 180.0
"""Seconds that a worker may take to import this package; Ray starts a process for that."""


@dataclass(frozen=True)
class _Kept:
    """What :func:`connected` was asked for, and what it has found.

    Attributes:
        asked: the address, the variables for the storage and the runtime environment.
        plugins: what was sent of users' code, with digests.
        alone: whether the Ray was started here, for this process alone.
        session: its name, by which it is told from one that the process starts itself later.
    """

    asked: tuple[str | None, Mapping[str, str], Mapping[str, Any]]
    plugins: list[dict[str, str]]
    alone: bool
    session: str


_kept: _Kept | None = None
_deciding = threading.RLock()
"""Held while the process's Ray is chosen: several threads may run sweeps."""

_unwanted: threading.Thread | None = None
"""The thread of a call that was interrupted while its Ray started: that Ray ends as soon as it has."""

_with_code: set[str] = set()


def connected(
    address: str | None,
    storage: Place | None = None,
    plugins: Sequence[str] = (),
    runtime_env: Mapping[str, Any] | None = None,
    note: Callable[[str], None] = lambda text: None,
) -> bool:
    """Join or start a Ray as :func:`.cluster.connect` does, unless the process has one.

    What an earlier call has started or joined is used again if the same is asked for, and left otherwise. What
    the process itself has joined (``ray.init``) is used as it is, and never left.

    Returns:
        Whether the Ray was started here, for this process alone.

    Raises:
        UserError: as ``connect``; or the process itself has joined another Ray than ``address``, or one whose workers
            cannot import this package; or a ``runtime_env`` is asked of it.
    """
    global _kept
    asked = (
        address or os.environ.get("RAY_ADDRESS"),
        {} if storage is None else environment(storage),
        runtime_env or {},
    )
    with _deciding:
        if _unwanted is not None:
            _unwanted.join(START_S)
        _refuse_client()
        if ray.is_initialized():
            kept = _current()
            if kept is None:
                _require_usable(address, runtime_env, note)
                return False
            # workers of a Ray that was started here use the code where it lies; those of others have been sent copies
            if kept.asked == asked and (kept.alone or kept.plugins == sent(plugins)):
                return kept.alone
            disconnect()
        alone = _connect_for_good(address, storage, plugins, runtime_env, note)
        _kept = _Kept(asked, sent(plugins), alone, _session())
        return alone


def _connect_for_good(
    address: str | None,
    storage: Place | None,
    plugins: Sequence[str],
    runtime_env: Mapping[str, Any] | None,
    note: Callable[[str], None],
) -> bool:
    """Connect in a thread that lives as long as the process.

    Ray's processes ask Linux to be killed with their parent (PR_SET_PDEATHSIG), and that means the thread that has
    started them.
    """
    global _unwanted
    answer: Future[bool] = Future()
    answered, unwanted = threading.Lock(), threading.Event()

    def keep() -> None:
        try:
            alone = connect(address, storage, plugins, runtime_env, note)
        except BaseException as error:  # noqa: BLE001  raised where it was asked for
            answer.set_exception(error)
            return
        with answered:
            if not unwanted.is_set():
                answer.set_result(alone)
        if unwanted.is_set():
            ray.shutdown()
        else:
            threading.Event().wait()

    starting = threading.Thread(target=keep, name="ray", daemon=True)
    starting.start()
    try:
        return answer.result()
    except KeyboardInterrupt:  # a second signal: what is still starting ends as soon as it has started
        with answered:
            unwanted.set()
            _unwanted = starting
            if answer.done() and answer.exception() is None:
                ray.shutdown()
        raise


def disconnect() -> bool:
    """Leave the Ray that :func:`connected` has started or joined; one that was started here ends, with its trials.

    Returns whether the process has none afterwards: one that it has joined itself stays.
    """
    if _current() is not None:
        ray.shutdown()
    return not ray.is_initialized()


def joined() -> bool:
    """Whether the process has a Ray that was not started by :func:`connected` for it alone."""
    kept = _current()
    return ray.is_initialized() and (kept is None or not kept.alone)


def _current() -> _Kept | None:
    """What was kept, if that is still the process's Ray."""
    return _kept if _kept is not None and ray.is_initialized() and _kept.session == _session() else None


def _session() -> str:
    return str(ray.get_runtime_context().get_session_name())


def _require_usable(address: str | None, runtime_env: Mapping[str, Any] | None, note: Callable[[str], None]) -> None:
    here = ray.get_runtime_context().gcs_address
    if runtime_env:
        raise UserError(
            f"--runtime-env has {', '.join(runtime_env)}, but this process has joined the Ray at {here} itself, whose "
            "workers keep what they have: give it to ray.init(runtime_env=...), or call ray.shutdown() before"
        )
    if address not in (None, "auto", here):
        raise UserError(
            f"--address is {address!r}, but this process has joined the Ray at {here}: leave --address out to use that "
            "one, or call ray.shutdown() before"
        )
    if _session() in _with_code:
        return
    try:
        asked = ray.remote(num_cpus=0, max_retries=0)(_has_code).remote()
        if not ray.wait([asked], timeout=CODE_SAID_S)[0]:
            note(f"no worker of the Ray at {here} has answered yet whether it can import sweeper: at most {CODE_S:g} s")
        ray.get(asked, timeout=CODE_S)
    except ray.exceptions.RayError as error:
        reason = str(error).strip().rpartition("\n")[2] or type(error).__name__
        raise UserError(
            f"the workers of the Ray at {here}, which this process has joined, cannot import sweeper ({reason}): "
            "install it there, start Ray with runtime_env={'py_modules': [...]}, or call ray.shutdown() before: then "
            "one is started that can"
        ) from None
    _with_code.add(_session())


def _refuse_client() -> None:
    if ray.util.client.ray.is_connected():
        raise UserError(
            "this process has joined a cluster through Ray Client (ray://), but a sweep's driver must be a process of "
            "the cluster: call ray.shutdown(), then give --address HOST:6379 on one of its machines, or use ray job "
            "submit (docs/cluster.md)"
        )


def _has_code() -> bool:
    """Task: pickled by reference, it runs only where this module can be imported."""
    return True
