"""The Ray cluster: joined or started, with the room that trials need and a storage that every machine shares."""

from __future__ import annotations

import logging
import math
import os
import socket
import time
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from sweeper.execution.live_view import Display
from sweeper.execution.signals import survive_hangup
from sweeper.space.space import Space
from trials.errors import UserError
from trials.storage.place import Place, environment, place

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
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy  # noqa: E402

ROOT = Path(__file__).resolve().parents[3]

STORAGE_LAG_S = 10.0
"""How long what one machine has written may be invisible to another: NFS keeps what it saw for some seconds."""

PROBE_S = 180.0
"""How long a machine may take to say whether it reaches the storage: a worker process is started for it."""


def resources_of(space: Space) -> dict[str, float]:
    wanted = {"CPU": space.resources.cpu, "GPU": space.resources.gpu}
    return {name: amount for name, amount in wanted.items() if amount}


def connect(address: str | None, storage: Place | None = None) -> bool:
    """Join the cluster at ``address``, the one this machine belongs to, or a new one on this machine.

    What of the environment says how an object store is reached is handed to the workers of a cluster that is joined.

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
                joined = _init(address, storage)
            else:
                joined = _init(address, storage, include_dashboard=False)
                if address is None and not _is_mine(joined):  # now that it is known: with the code for its workers
                    ray.shutdown()
                    joined = _init(joined["address"], storage)
    except (ConnectionError, ValueError) as error:
        address = address or os.environ.get("RAY_ADDRESS")
        if address in (None, "local"):
            raise
        reason = " ".join(str(error).split())
        raise UserError(f"--address is {address!r}, but no Ray cluster can be joined there ({reason})") from None
    return _is_mine(joined)


def _init(address: str | None, storage: Place | None, **options: Any) -> dict[str, Any]:
    """Start or join Ray, quietly; a cluster that is joined by its address gets the packages as they are here."""
    if address not in (None, "local"):
        excludes = [".git", ".venv", "results", "**/__pycache__", "tests"]
        variables = {} if storage is None else environment(storage)
        options["runtime_env"] = {"working_dir": str(ROOT), "excludes": excludes, "env_vars": variables}
        os.environ["RAY_OVERRIDE_JOB_RUNTIME_ENV"] = "1"  # `ray job submit` has set a working_dir too: that it unpacked
    try:
        context = ray.init(
            address=address, log_to_driver=False, logging_level=logging.ERROR, configure_logging=True, **options
        )
    except Exception as error:  # of no type of its own
        if "timed out during startup" not in str(error):
            raise
        raise UserError("Ray did not start within its 30 s: this machine is too busy; give the command again") from None
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


def largest(wanted: Mapping[str, float]) -> dict[str, float]:
    """What of a machine a trial takes that is to be alone: a whole card, or all cores where it has none."""
    if wanted.get("GPU"):
        return {**wanted, "GPU": max(1.0, wanted["GPU"])}
    return {
        name: max((machine.get(name, amount) for machine in _machines()), default=amount)
        for name, amount in wanted.items()
    }


def require_room(space: Space, display: Display | None) -> None:
    """A machine must have what a trial wants; a cluster, which may start one yet, is only told of.

    Raises:
        UserError: there is none, and no ``display`` to tell it.
    """
    wanted = resources_of(space)
    pieces = space.most_pieces()
    found = slots(wanted)
    if found >= pieces:
        return
    asked = f"resources are {', '.join(f'{n} {a:g}' for n, a in wanted.items())}"
    if found:
        text = f"{asked}, and a trial has {pieces} pieces in flight, each with as much, but there is room for {found}"
    else:
        machines = _machines()
        largest = ", ".join(f"{name} {max(machine.get(name, 0) for machine in machines):g}" for name in wanted)
        text = f"{asked}, but no machine has more than {largest}"
    if display is None:
        raise UserError(f"{text}: set resources to less")
    display.note(f"{text}: waiting for one that has")


def require_shared(where: Place) -> None:
    """Every machine must be able to write to the storage, and to read there what this and another one wrote.

    Raises:
        UserError: one cannot; it names the machine.
    """
    machines = [node for node in ray.nodes() if node["Alive"]]
    if len(machines) == 1 and machines[0]["NodeID"] == ray.get_runtime_context().get_node_id():
        return  # this one, which has just written there
    probes = where / f"probe-{uuid.uuid4().hex[:8]}"
    probes.mkdir(parents=True, exist_ok=True)
    (probes / "driver").write_bytes(b"driver")
    names = [node["NodeID"] for node in machines]
    try:
        there = _ask_all(where, [(node, _write_probe, [node["NodeID"]]) for node in machines], str(probes))
        last = [node["NodeID"] for node in there]
        readers = [(node, _read_probes, ["driver", last[i - 1]]) for i, node in enumerate(there)]
        for node in _ask_all(where, readers, str(probes)):
            reason = _read(probes, [node["NodeID"]])
            if reason:
                raise _not_shared(where, node, f"what it writes there is not seen from here: {reason}")
    finally:
        for name in ("driver", *names):
            (probes / name).unlink(missing_ok=True)
        probes.rmdir()


def _ask_all(
    where: Place, questions: Sequence[tuple[Mapping[str, Any], Any, list[str]]], folder: str
) -> list[Mapping[str, Any]]:
    """A task on each machine, which says what went wrong, if anything did. The machines that have answered: one that
    has died meanwhile gets no trials, and is not asked."""
    asked = []
    for node, task, names in questions:
        there = NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
        remote = ray.remote(num_cpus=0, max_retries=0)(task)
        asked.append(remote.options(scheduling_strategy=there).remote(folder, names))
    ray.wait(asked, num_returns=len(asked), timeout=PROBE_S)
    answered = []
    for (node, _, _), answer in zip(questions, asked, strict=True):
        try:
            reason = ray.get(answer, timeout=0)
        except ray.exceptions.GetTimeoutError:
            reason = f"it did not answer within {PROBE_S:g} s"
        except ray.exceptions.RayError as error:
            reason = " ".join(str(error).split())
        if reason is None:
            answered.append(node)
        elif _is_alive(node):
            raise _not_shared(where, node, reason)
    return answered


def _is_alive(node: Mapping[str, Any]) -> bool:
    return any(other["NodeID"] == node["NodeID"] and other["Alive"] for other in ray.nodes())


def _not_shared(where: Place, node: Mapping[str, Any], reason: str) -> UserError:
    machine = f"{node['NodeManagerHostname']} ({node['NodeManagerAddress']})"
    return UserError(
        f"--storage is {str(where.parent)!r}, but must be shared by all machines, and {machine} does not: {reason}; "
        "give a path that all of them can write, or s3://BUCKET/PREFIX"
    )


def _write_probe(folder: str, names: list[str]) -> str | None:
    """On a machine: write a file named after it, into a folder that must be there."""
    probes = place(folder)
    reason = _read(probes, ["driver"])
    if reason:
        return reason
    try:
        (probes / names[0]).write_bytes(names[0].encode())
    except OSError as error:
        return f"it cannot write there: {error}"
    return None


def _read_probes(folder: str, names: list[str]) -> str | None:
    return _read(place(folder), names)


def _read(probes: Place, names: Sequence[str]) -> str | None:
    """What is wrong with files that must hold their own names; None when they do, soon."""
    end = time.monotonic() + STORAGE_LAG_S
    for name in names:
        while True:
            try:
                found = (probes / name).read_bytes()
                reason = None if found == name.encode() else f"{probes / name} reads {found[:40]!r}"
            except OSError as error:
                reason = f"it does not see what another machine has written there: {error}"
            if reason is None:
                break
            if time.monotonic() > end:
                return reason
            time.sleep(0.2)
    return None
