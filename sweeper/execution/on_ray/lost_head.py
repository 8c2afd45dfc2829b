"""What a run does when its cluster's head ends with it, as when a batch system signals every process of a job at once.

Ray's own calls then wait for a minute, and end the process. The trials commit in their folders without the head.
"""

from __future__ import annotations

import signal
import socket
import threading
import time
from collections.abc import Callable, Iterable
from contextlib import suppress

import ray

from trials.errors import DamagedFile
from trials.storage.trial_folder import TrialFolder

LOOK_EVERY_S = 0.5
GONE_AFTER = 3
"""So many looks in a row at which nobody listens at the head's address."""

COMMIT_S = 10.0
"""Seconds that running trials have to commit, once the head is gone."""

LEAVE_S = 3.0
"""Seconds that the main thread has to leave Ray's calls, and then Ray has to end."""


class HeadGoneError(BaseException):
    """The head of the cluster is gone while the run stops. No part of a run may take it for an error of its own."""


def head_address() -> tuple[str, int] | None:
    """Host and port of the head of the cluster that this process has joined or started."""
    if not ray.is_initialized():
        return None
    host, _, port = ray.get_runtime_context().gcs_address.rpartition(":")
    return host.strip("[]"), int(port)


def watch_head(
    head: tuple[str, int],
    running: Callable[[], Iterable[TrialFolder]],
    over: threading.Event,
    give_up: Callable[[], None],
) -> None:
    """Call ``give_up`` once the head is gone and no trial runs any more, or too long; return when ``over`` is set."""
    missed = 0
    while missed < GONE_AFTER:
        if over.wait(LOOK_EVERY_S):
            return
        missed = 0 if _listens(head) else missed + 1
    end = time.monotonic() + COMMIT_S
    while time.monotonic() < end and any(map(_runs, running())):
        if over.wait(LOOK_EVERY_S):
            return
    if not over.is_set():
        give_up()


def _listens(head: tuple[str, int]) -> bool:
    try:
        socket.create_connection(head, timeout=LOOK_EVERY_S).close()
    except TimeoutError:  # it is busy
        return True
    except OSError:
        return False
    return True


def _runs(trial: TrialFolder) -> bool:
    with suppress(OSError, DamagedFile):
        state = trial.state()
        return state is not None and state.status == "running"
    return True


def interrupt_main() -> None:
    """Have the main thread handle a signal, from another thread."""
    main = threading.main_thread().ident
    if main is not None:
        signal.pthread_kill(main, signal.SIGINT)


def leave_ray() -> bool:
    """End the Ray of this process although its head is gone; returns whether that was possible in time."""
    ending = threading.Thread(target=ray.shutdown, daemon=True)
    ending.start()
    ending.join(LEAVE_S)
    return not ending.is_alive()
