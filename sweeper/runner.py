"""The driver: places a plan's trials with Ray Tune until there is nothing left to do, or somebody says stop."""

from __future__ import annotations

import logging
import math
import os
import shutil
import signal
import socket
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sweeper.display import Display
from sweeper.ledger import SweepFolder
from sweeper.plan import Plan
from sweeper.signals import handled, survive_hangup
from sweeper.space import Space
from sweeper.tables import compact
from trials.errors import UserError
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
    "TUNE_MAX_PENDING_TRIALS_PG": "200",  # how many wait is PlanSearcher's business; 1 would start workers one by one
}
for _name, _value in QUIET.items():  # read by Ray when it is imported
    os.environ.setdefault(_name, _value)

import ray  # noqa: E402
from ray import tune  # noqa: E402
from ray.tune.search import Searcher  # noqa: E402

from sweeper.trainable import run_assigned  # noqa: E402

GRACE_S = 60.0
"""How long running trials get, after a signal, to commit what they have."""

ECHO_S = 1.0
"""Signals so soon after the first are the same one: a terminal that closes sends SIGHUP itself and by its shell."""

COMPACT_EVERY_S = 60.0
"""So often the tables are written while the sweep runs, so that --show and load stay quick elsewhere."""

COUNT_EVERY_S = 5.0
"""So often it is asked how many trials the cluster holds: machines come and go."""

ROOT = Path(__file__).resolve().parent.parent


class PlanSearcher(Searcher):  # type: ignore[misc]  # Ray is not typed
    """Adapts a plan to Tune: each suggestion is one attempt at one trial. Keeps nothing that is not in the folder."""

    def __init__(self, plan: Plan, folder: SweepFolder, display: Display, limit: int | None, lease: Lease) -> None:
        super().__init__(metric="trial", mode="max")
        self.plan, self.folder, self.display, self.lease = plan, folder, display, lease
        self.limit = limit
        self._trial_of: dict[str, str] = {}
        self._compacted = time.monotonic()
        self._slots, self._counted = 0, -math.inf

    def __getstate__(self) -> dict[str, Any]:
        """Tune pickles its searcher as it starts; there is nothing in this one that a pickle should hold."""
        return {}

    def set_search_properties(self, *_: Any, **__: Any) -> bool:
        return True

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        if self.lease.lost:
            self.plan.stop()
        if len(self.plan.running) >= self._most_at_once():
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
            "config": _found_from_anywhere(assignment.config),
            "folder": str(self.folder.trial_folder(assignment.trial_id)),
            "stages": str(self.folder.stages),
            "stop": str(stop_file(self.folder)),
            "threads": max(1, int(resources.cpu)),
            "gpu": resources.gpu,
        }

    def _most_at_once(self) -> float:
        """As many as the cluster holds and one that waits, so that no worker does; never more than the limit."""
        if time.monotonic() - self._counted > COUNT_EVERY_S:
            self._slots, self._counted = slots(_resources(self.plan.space)), time.monotonic()
        return min(self._slots + 1, math.inf if self.limit is None else self.limit)

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        if "epoch" in result and trial_id in self._trial_of:
            self.display.row(self._trial_of[trial_id], result)

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        mine = self._trial_of.pop(trial_id, None)
        if mine is None:
            return
        if stop_file(self.folder).exists():  # whoever put it there wants the sweep to end
            self.plan.stop()
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
    scratch = Path(tempfile.mkdtemp(prefix="sweeper-"))
    try:
        with _signals(folder, plan, display) as handle_signals:
            try:
                alone = connect(address)
            except SystemExit:  # Ray's own handler of SIGTERM
                display.note("stopped while Ray started")
                plan.stop()
            handle_signals()
            if plan.stopping:
                return
            _require_room(space, None if alone else display)
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


def _found_from_anywhere(config: dict[str, Any]) -> dict[str, Any]:
    """A worker has a working folder of its own."""
    data_dir = config.get("data_dir")
    return config if data_dir is None else {**config, "data_dir": str(Path(data_dir).expanduser().absolute())}


def _resources(space: Space) -> dict[str, float]:
    wanted = {"CPU": space.resources.cpu, "GPU": space.resources.gpu}
    return {name: amount for name, amount in wanted.items() if amount}


def connect(address: str | None) -> bool:
    """Join the cluster at ``address``, the one this machine belongs to, or a new one on this machine.

    Returns whether it is a new one, of this process alone.
    """
    if ray.is_initialized():
        return False
    logging.getLogger("ray").setLevel(logging.ERROR)
    logging.getLogger("ray.tune.tune").setLevel(logging.CRITICAL)  # "Trials did not complete": the display has said so
    # Processes of a Ray that starts here inherit it; Ray itself passes only the script's and the working folder on.
    os.environ["PYTHONPATH"] = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    _require_answer(address)
    try:
        with survive_hangup():
            if address not in (None, "local"):
                joined = _init(address)
            else:
                joined = _init(address, include_dashboard=False)
                if address is None and not _is_mine(joined):  # now that it is known: with the code for its workers
                    ray.shutdown()
                    joined = _init(joined["address"])
    except (ConnectionError, ValueError) as error:
        address = address or os.environ.get("RAY_ADDRESS")
        if address in (None, "local"):
            raise
        reason = " ".join(str(error).split())
        raise UserError(f"--address is {address!r}, but no Ray cluster can be joined there ({reason})") from None
    return _is_mine(joined)


def _init(address: str | None, **options: Any) -> dict[str, Any]:
    """Start or join Ray, quietly; a cluster that is joined by its address gets the packages as they are here."""
    if address not in (None, "local"):
        excludes = [".git", ".venv", "results", "**/__pycache__", "tests"]
        options["runtime_env"] = {"working_dir": str(ROOT), "excludes": excludes}
    context = ray.init(
        address=address, log_to_driver=False, logging_level=logging.ERROR, configure_logging=True, **options
    )
    return dict(context.address_info)


def _is_mine(cluster: Mapping[str, Any]) -> bool:
    """Whether this process started it: Ray names a session by its starter."""
    return str(cluster["session_dir"]).endswith(f"_{os.getpid()}")


def _require_answer(address: str | None) -> None:
    """Ask before Ray does, who would ask for more than a minute."""
    address = os.environ.get("RAY_ADDRESS") or address if address in (None, "auto") else address
    host, _, port = (address or "").rpartition(":")
    if not (host and port.isdigit()) or "/" in host:
        return
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=10).close()
    except (OSError, OverflowError) as error:
        raise UserError(f"--address is {address!r}, but nothing answers there ({error}): give another") from None


def _machines() -> list[dict[str, float]]:
    return [node["Resources"] for node in ray.nodes() if node["Alive"]]


def slots(wanted: Mapping[str, float]) -> int:
    """How many trials the cluster's machines hold at once."""
    return sum(
        min(math.floor(machine.get(name, 0) / amount + 1e-9) for name, amount in wanted.items())
        for machine in _machines()
    )


def _require_room(space: Space, display: Display | None) -> None:
    """A machine must have what a trial wants; a cluster, which may start one yet, is only told of.

    Raises:
        UserError: there is none, and no ``display`` to tell it.
    """
    wanted = _resources(space)
    if slots(wanted):
        return
    machines = _machines()
    largest = ", ".join(f"{name} {max(machine.get(name, 0) for machine in machines):g}" for name in wanted)
    text = f"resources are {', '.join(f'{n} {a:g}' for n, a in wanted.items())}, but no machine has more than {largest}"
    if display is None:
        raise UserError(f"{text}: set resources to less")
    display.note(f"{text}: waiting for one that has")


@contextmanager
def _signals(folder: SweepFolder, plan: Plan, display: Display) -> Iterator[Callable[[], None]]:
    """A signal lets running trials commit and end; another one, not just its echo, leaves at once."""
    first: float | None = None
    timer = threading.Timer(GRACE_S, _leave)
    timer.daemon = True

    def stop(number: signal.Signals) -> None:
        nonlocal first
        if first is not None:
            if time.monotonic() - first > ECHO_S:
                _leave()
            return
        first = time.monotonic()
        plan.stop()
        stop_file(folder).touch()
        timer.start()
        display.note(f"{number.name}: running trials commit and end; once more leaves at once")

    with handled(stop) as again:
        try:
            yield again
        finally:
            timer.cancel()


def _leave() -> None:
    os._exit(130)
