"""Join or start a Ray cluster; what a trial asks of its machines."""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Mapping, Sequence
from typing import Any

import ray

from sweeper.execution.on_ray.shipping import are_hidden, extend_python_path, shipment
from sweeper.execution.on_ray.token_file import make_private_tokens
from sweeper.execution.signals import survive_hangup
from sweeper.runtime_env import OPTION
from sweeper.space.space import Space
from trials.errors import UserError, one_line
from trials.plugins.importing import admit
from trials.storage.place import Place, environment


def resources_of(space: Space) -> dict[str, float]:
    """Ray resources that one piece of a trial takes, without those that are 0."""
    return space.resources.of_ray()


def connect(
    address: str | None,
    storage: Place | None = None,
    plugins: Sequence[str] = (),
    runtime_env: Mapping[str, Any] | None = None,
) -> bool:
    """Join the cluster at ``address`` or the one this machine belongs to, or start a new one on this machine.

    The workers of a joined cluster get the environment variables that say how to reach an object store, and copies of
    the ``plugins`` that are listed by path. All workers get what ``runtime_env`` has.

    Returns whether the cluster is new and used by this process alone.

    Raises:
        UserError: no cluster can be joined at ``address``, or Ray does not start in time.
    """
    if ray.is_initialized():
        return False
    logging.getLogger("ray").setLevel(logging.ERROR)
    logging.getLogger("ray.tune.tune").setLevel(logging.CRITICAL)  # "Trials did not complete": the display has shown it
    extend_python_path()  # processes of a Ray that is started here inherit it
    make_private_tokens()
    _require_answer(address)
    try:
        with survive_hangup():
            if address not in (None, "local"):
                joined = _init(address, storage, plugins, runtime_env)
            else:
                own = runtime_env if address == "local" else None  # what may be joined gets it below
                joined = _init(address, storage, plugins, own, include_dashboard=False)
                # An existing cluster is joined again by its address, so that its workers get the code.
                if address is None and _is_mine(joined) and runtime_env:
                    ray.shutdown()
                    joined = _init("local", storage, plugins, runtime_env, include_dashboard=False)
                elif address is None and not _is_mine(joined):
                    ray.shutdown()
                    joined = _init(joined["address"], storage, plugins, runtime_env)
    except (ConnectionError, ValueError) as error:
        address = address or os.environ.get("RAY_ADDRESS")
        if address in (None, "local"):
            raise
        reason = " ".join(str(error).split())
        raise UserError(f"--address is {address!r}, but no Ray cluster can be joined there ({reason})") from None
    return _is_mine(joined)


def _init(
    address: str | None,
    storage: Place | None,
    plugins: Sequence[str],
    runtime_env: Mapping[str, Any] | None,
    **options: Any,
) -> dict[str, Any]:
    """Start or join Ray without log output. A cluster joined by its address gets this machine's copy of the code.

    Raises:
        UserError: Ray does not start within its time limit.
    """
    options |= {"address": address, "log_to_driver": False, "logging_level": logging.ERROR, "configure_logging": True}
    try:
        if address in (None, "local") and not are_hidden():
            own = dict(runtime_env or {})
            if "env_vars" in own:
                own["env_vars"] = dict(own["env_vars"])  # Ray adds to it
            context = ray.init(**({"runtime_env": own} if own else {}), **options)
        else:
            os.environ["RAY_OVERRIDE_JOB_RUNTIME_ENV"] = "1"  # else this conflicts with that of `ray job submit`
            variables = {} if storage is None else environment(storage)
            with shipment(variables, admit(plugins), runtime_env) as sent:
                context = ray.init(runtime_env=sent, **options)
    except ray.exceptions.RuntimeEnvSetupError as error:
        ray.shutdown()
        first: BaseException = error
        while first.__cause__ is not None:
            first = first.__cause__
        reason = one_line(" ".join(str(first).split()))
        raise UserError(f"{OPTION} cannot be sent to workers: {reason}") from None
    except Exception as error:  # Ray has no type for this error
        if "timed out during startup" not in str(error):
            raise
        raise UserError("Ray did not start within its 30 s: this machine is too busy; give the command again") from None
    return dict(context.address_info)


def _is_mine(cluster: Mapping[str, Any]) -> bool:
    """Whether this process started the cluster: the name of a Ray session ends in its starter's process id."""
    return str(cluster["session_dir"]).endswith(f"_{os.getpid()}")


def _require_answer(address: str | None) -> None:
    """Check that something listens at ``address``; Ray itself would try for more than a minute.

    Raises:
        UserError: nothing answers there within 10 s.
    """
    address = os.environ.get("RAY_ADDRESS") or address if address in (None, "auto") else address
    host, _, port = (address or "").rpartition(":")
    if not (host and port.isdigit()) or "/" in host:
        return
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=10).close()
    except (OSError, OverflowError) as error:
        raise UserError(f"--address is {address!r}, but nothing answers there ({error}): give another") from None


def this_machine() -> dict[str, str]:
    """Ray's id of this machine, its name, and the cards that Ray has given this process."""
    node = ray.get_runtime_context().get_node_id()
    return {"node": node, "machine": socket.gethostname(), "card": os.environ.get("CUDA_VISIBLE_DEVICES", "")}


def elsewhere(avoid: Sequence[str], pieces: int) -> dict[str, Any]:
    """Options of a placement group of ``pieces`` bundles none of which may lie on the machines ``avoid`` (node ids)."""
    if not avoid:
        return {}
    return {"bundle_label_selector": [{"ray.io/node-id": f"!in({','.join(avoid)})"} for _ in range(pieces)]}
