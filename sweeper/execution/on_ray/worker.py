"""SIGTERM in a worker is a notice that its machine goes away: the trial commits, ends as preempted, and so does the
process, so that nothing more is given to it. A worker whose raylet is gone takes that for a notice too: it would wait
for ever to be listened to, and keep what it holds."""

from __future__ import annotations

import os
import signal
import threading
import time
from types import FrameType
from typing import Any

from ray import tune
from ray.tune import PlacementGroupFactory
from ray.tune.trainable import wrap_function

from sweeper.execution.assigned_trial import run_assigned
from sweeper.execution.on_ray.parallel_tasks import bundles, parallel_map
from sweeper.execution.signals import GRACE_S

ORPHAN_GRACE_S = 10.0
"""How long without a raylet: others wait for what it holds."""

RAYLET_POLL_S = 0.5

_given = False
_busy = False
_watching = False


def notice_given() -> bool:
    """Whether this process has been told that it will end."""
    return _given


def watch_for_notice() -> None:
    """From now on SIGTERM is a notice, and the end while no trial runs. For the main thread."""
    global _watching
    if not _watching:
        _watching = True
        threading.Thread(target=_watch, args=(os.getppid(),), name="notice", daemon=True).start()
    signal.signal(signal.SIGTERM, _on_notice)


def _watch(raylet: int) -> None:
    """End this process some time after a notice, whatever it waits for."""
    global _given
    while not _given and os.getppid() == raylet:
        time.sleep(RAYLET_POLL_S)
    grace_s = GRACE_S if os.getppid() == raylet else ORPHAN_GRACE_S
    _given = True
    time.sleep(grace_s if _busy else 0.0)
    os._exit(143)


def _on_notice(number: int, frame: FrameType | None) -> None:
    global _given
    _given = True
    if not _busy:
        os._exit(143)


def run_until_notice(assignment: dict[str, Any]) -> None:
    """:func:`run_assigned`; if the notice came, what there is was committed, and the process ends here."""
    global _busy
    _busy = True
    run_assigned(assignment, tune.report, notice_given, parallel_map)
    if _given:
        os._exit(143)
    _busy = False


class TrialWorker(wrap_function(run_until_notice)):  # type: ignore[misc]  # Ray is not typed
    """What Tune runs: one assignment after the other in the same process, of those that want the same resources."""

    @classmethod
    def default_resource_request(cls, config: dict[str, Any]) -> PlacementGroupFactory:
        return PlacementGroupFactory(bundles(config["resources"], config["pieces"]))

    def setup(self, config: dict[str, Any]) -> None:
        watch_for_notice()  # here and not where trials run: signals reach the main thread
        super().setup(config)
