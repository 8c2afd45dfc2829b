"""The Ray cluster: joined or started, with the room that trials need and a storage that every machine shares."""

from __future__ import annotations

import logging
import math
import os
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import ray

from sweeper.execution.signals import survive_hangup
from sweeper.space.space import Space
from trials.errors import UserError
from trials.storage.place import Place, environment

ROOT = Path(__file__).resolve().parents[3]

NOT_SHIPPED = ["/.git", "/.venv", "/results", "/tests", "**/__pycache__"]
"""What a cluster that is joined does not get, as .gitignore would say it: sweeper/results is not results."""


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
        variables = {} if storage is None else environment(storage)
        options["runtime_env"] = {"working_dir": str(ROOT), "excludes": NOT_SHIPPED, "env_vars": variables}
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


def machines() -> list[dict[str, float]]:
    return [node["Resources"] for node in ray.nodes() if node["Alive"]]


def slots(wanted: Mapping[str, float]) -> int:
    """How many trials the cluster's machines hold at once."""
    return sum(
        min(math.floor(machine.get(name, 0) / amount + 1e-9) for name, amount in wanted.items())
        for machine in machines()
    )


def largest(wanted: Mapping[str, float]) -> dict[str, float]:
    """What of a machine a trial takes that is to be alone: a whole card, or all cores where it has none."""
    if wanted.get("GPU"):
        return {**wanted, "GPU": max(1.0, wanted["GPU"])}
    return {
        name: max((machine.get(name, amount) for machine in machines()), default=amount)
        for name, amount in wanted.items()
    }
