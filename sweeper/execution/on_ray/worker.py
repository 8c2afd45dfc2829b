"""The Ray worker that runs trials, and its reaction to the loss of its machine or of its device.

SIGTERM, or a batch system's warning, is a notice that the machine goes away: the trial commits and ends as preempted,
and then the process exits, so that it gets no further trial. A worker whose raylet has died treats that as the same
notice; otherwise it would hang and keep its resources. After a CUDA error that kills every further call of its process,
the process exits too.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from types import FrameType
from typing import Any

import ray
from ray import tune
from ray.tune import PlacementGroupFactory
from ray.tune.trainable import wrap_function
from ray.util import get_current_placement_group

from sweeper.execution.assigned_trial import run_assigned
from sweeper.execution.on_ray.cluster import elsewhere, this_machine
from sweeper.execution.on_ray.parallel_tasks import bundles, parallel_map
from sweeper.execution.signals import GRACE_S
from trials.system.stop_signals import BATCH_WARNINGS

ORPHAN_GRACE_S = 10.0
"""Seconds a trial has to commit after its raylet died; short, because others wait for its resources."""

RAYLET_POLL_S = 0.5

TAKEN_S = 2.0
"""Seconds that a driver has, after a notice, to take a trial's message: it may have ended, too."""

_given = False
_busy = False
_ended = False
_unheard = False
_sender = ThreadPoolExecutor(1, "sender")
_watching = False


def notice_given() -> bool:
    """Whether this process has been told to end."""
    return _given


def watch_for_notice() -> None:
    """Treat SIGTERM and batch systems' warnings as a notice from now on; while no trial runs, it ends the process.

    Call in the main thread.
    """
    global _watching
    if not _watching:
        _watching = True
        threading.Thread(target=_watch, args=(os.getppid(),), name="notice", daemon=True).start()
    for number in (signal.SIGTERM, *BATCH_WARNINGS):
        signal.signal(number, _on_notice)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGALRM])  # the driver holds it back, and trials may use it


def _watch(raylet: int) -> None:
    """End this process a grace period after a notice or the raylet's death, even if the trial hangs."""
    global _given
    while not _given and os.getppid() == raylet:
        time.sleep(RAYLET_POLL_S)
    grace_s = GRACE_S if os.getppid() == raylet else ORPHAN_GRACE_S
    _given = True
    end = time.monotonic() + grace_s
    while _busy and time.monotonic() < end:
        if _ended:
            end = min(end, time.monotonic() + TAKEN_S)
        time.sleep(RAYLET_POLL_S / 5)
    os._exit(143)


def _on_notice(number: int, frame: FrameType | None) -> None:
    global _given
    _given = True
    if not _busy:
        os._exit(143)


def run_until_notice(assignment: dict[str, Any]) -> None:
    """Run an assignment. After a notice, or if the process is unusable, its end is committed and it exits."""
    global _busy
    _busy = True
    usable = run_assigned(assignment, _report, notice_given, parallel_map, {**this_machine(), **_group()})
    if _given or not usable:
        os._exit(143)
    _busy = False


def _report(message: dict[str, Any]) -> None:
    """Send a message to the driver, and wait until it was taken; after a notice at most TAKEN_S.

    Tune's own call never returns if the driver has ended as well; the trial could then not commit.
    """
    global _ended, _unheard
    _ended = "status" in message  # its end is committed
    if _unheard:
        return
    sent = _sender.submit(tune.report, message)
    waited = 0.0
    while True:
        try:
            sent.result(RAYLET_POLL_S)
            return
        except TimeoutError:
            waited = waited + RAYLET_POLL_S if _given else 0.0
            if waited >= TAKEN_S:
                _unheard = True
                return


def _group() -> dict[str, str]:
    """Ray's id of the placement group in which this process runs, if it does."""
    group = get_current_placement_group() if ray.is_initialized() else None
    return {} if group is None else {"group": group.id.hex()}


class TrialWorker(wrap_function(run_until_notice)):  # type: ignore[misc]  # Ray is not typed
    """The Tune trainable: runs assignments with equal resources one after another in the same process."""

    @classmethod
    def default_resource_request(cls, config: dict[str, Any]) -> PlacementGroupFactory:
        wanted = bundles(config["resources"], config["pieces"])
        return PlacementGroupFactory(wanted, **elsewhere(config.get("avoid", ()), len(wanted)))

    def setup(self, config: dict[str, Any]) -> None:
        watch_for_notice()  # here, because signals reach the main thread, and trials run in another
        super().setup(config)
