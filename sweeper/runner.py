"""The driver: places a plan's trials with Ray Tune until there is nothing left to do, or somebody says stop."""

from __future__ import annotations

import logging
import os
import shutil
import signal
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

from sweeper.display import Display
from sweeper.ledger import SweepFolder
from sweeper.plan import Plan
from sweeper.space import Space
from sweeper.tables import compact
from trials.lease import Lease

QUIET = {
    "RAY_AIR_NEW_OUTPUT": "0",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_DEDUP_LOGS": "0",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_PRINT_ALL_TRIAL_ERRORS": "0",
    "TUNE_WARN_THRESHOLD_S": "600",
    "TUNE_RESULT_BUFFER_LENGTH": "1",
    "TUNE_GLOBAL_CHECKPOINT_S": "1000000000",  # Tune's own snapshots are not used: the folder is
    "TUNE_DISABLE_SIGINT_HANDLER": "1",
    "TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S": "0",
}
for _name, _value in QUIET.items():  # read by Ray when it is imported
    os.environ.setdefault(_name, _value)

import ray  # noqa: E402
from ray import tune  # noqa: E402
from ray.tune.search import Searcher  # noqa: E402

from sweeper.trainable import run_assigned  # noqa: E402

GRACE_S = 60.0
"""How long running trials get, after a signal, to commit what they have."""

COMPACT_EVERY_S = 60.0
"""So often the tables are written while the sweep runs, so that --show and load stay quick elsewhere."""

ROOT = Path(__file__).resolve().parent.parent


class PlanSearcher(Searcher):  # type: ignore[misc]  # Ray is not typed
    """Adapts a plan to Tune: each suggestion is one attempt at one trial. Keeps nothing that is not in the folder."""

    def __init__(self, plan: Plan, folder: SweepFolder, display: Display, limit: int | None, lease: Lease) -> None:
        super().__init__(metric="trial", mode="max")
        self.plan, self.folder, self.display, self.lease = plan, folder, display, lease
        self.limit = limit
        self._trial_of: dict[str, str] = {}
        self._compacted = time.monotonic()

    def __getstate__(self) -> dict[str, Any]:
        """Tune pickles its searcher as it starts; there is nothing in this one that a pickle should hold."""
        return {}

    def set_search_properties(self, *_: Any, **__: Any) -> bool:
        return True

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        if self.lease.lost:
            self.plan.stop()
        if self.limit is not None and len(self.plan.running) >= self.limit:
            return None
        assignment = self.plan.next()
        while self.plan.told:
            known = self.plan.told.popleft()
            self.display.ended(known.trial_id, known.cell, known.status, known.value, already=True)
        if assignment is None:
            return Searcher.FINISHED if self.plan.complete or self.plan.stopping else None
        self._trial_of[trial_id] = assignment.trial_id
        self.display.started(assignment.trial_id, assignment.cell)
        resources = self.plan.space.resources
        return {
            "trial": assignment.trial_id,
            "config": assignment.config,
            "folder": str(self.folder.trial_folder(assignment.trial_id)),
            "stages": str(self.folder.stages),
            "stop": str(stop_file(self.folder)),
            "threads": max(1, int(resources.cpu)),
            "gpu": resources.gpu,
        }

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        if "epoch" in result and trial_id in self._trial_of:
            self.display.row(self._trial_of[trial_id], result)

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        mine = self._trial_of.pop(trial_id, None)
        if mine is None:
            return
        endings = self.plan.ended(mine)
        for ending in endings:
            self.display.ended(mine, ending.cell, ending.status, ending.value, already=False)
        ending = endings[0]
        if ending.error is not None:
            self.display.note(f"{mine} ({ending.cell}) failed: {ending.error}{'; tried again' if ending.again else ''}")
        elif ending.status == "died" and not self.plan.stopping:
            self.display.note(f"{mine} ({ending.cell}): its process died; it goes on from its last commit")
        elif ending.empty_layers:
            self.display.note(f"{mine} ({ending.cell}): {ending.empty_layers} layers have no weights left")
        if time.monotonic() - self._compacted > COMPACT_EVERY_S:
            compact(self.folder)
            self._compacted = time.monotonic()

    def save(self, checkpoint_path: str) -> None:
        Path(checkpoint_path).write_text("{}")

    def restore(self, checkpoint_path: str) -> None:
        pass


def stop_file(folder: SweepFolder) -> Path:
    """While it is there, running trials commit what they have and end."""
    return folder.path / "stop"


def run_plan(
    space: Space,
    folder: SweepFolder,
    plan: Plan,
    display: Display,
    lease: Lease,
    *,
    address: str | None = None,
    limit: int | None = None,
) -> None:
    """Run everything the plan has left. Returns when it is complete, or when a signal ended it (``plan.stopping``)."""
    stop_file(folder).unlink(missing_ok=True)
    connect(address)
    scratch = Path(tempfile.mkdtemp(prefix="sweeper-"))
    try:
        with _signals(folder, plan, display):
            tune.Tuner(
                tune.with_resources(run_assigned, _resources(space)),
                tune_config=tune.TuneConfig(
                    search_alg=PlanSearcher(plan, folder, display, limit, lease), num_samples=-1, reuse_actors=True
                ),
                run_config=tune.RunConfig(
                    name=folder.path.name,
                    storage_path=str(scratch),
                    verbose=0,
                    failure_config=tune.FailureConfig(max_failures=0),
                ),
            ).fit()
    finally:
        stop_file(folder).unlink(missing_ok=True)
        shutil.rmtree(scratch, ignore_errors=True)


def _resources(space: Space) -> dict[str, float]:
    wanted = {"CPU": space.resources.cpu, "GPU": space.resources.gpu}
    return {name: amount for name, amount in wanted.items() if amount}


def connect(address: str | None) -> None:
    """Join the cluster at ``address``, the one this machine belongs to, or a new one on this machine."""
    if ray.is_initialized():
        return
    logging.getLogger("ray").setLevel(logging.ERROR)
    options: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR, "configure_logging": True}
    if address not in (None, "local"):
        excludes = [".git", ".venv", "results", "**/__pycache__", "tests"]
        options["runtime_env"] = {"working_dir": str(ROOT), "excludes": excludes}
    else:
        options["include_dashboard"] = False
    ray.init(address=address, **options)


@contextmanager
def _signals(folder: SweepFolder, plan: Plan, display: Display) -> Iterator[None]:
    """SIGINT, SIGTERM and SIGHUP let running trials commit and end; a second one leaves at once."""

    def leave(*_: Any) -> None:
        os._exit(130)

    def stop(number: int, frame: FrameType | None) -> None:
        if plan.stopping:
            leave()
        plan.stop()
        stop_file(folder).touch()
        timer = threading.Timer(GRACE_S, leave)
        timer.daemon = True
        timer.start()
        display.note(f"{signal.Signals(number).name}: running trials commit and end; once more leaves at once")

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    watched = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = {number: signal.signal(number, stop) for number in watched}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
