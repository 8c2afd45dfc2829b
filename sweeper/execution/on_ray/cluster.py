"""Join or start a Ray cluster; what a trial asks of its machines."""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import ray

from sweeper.execution.on_ray.joining import cluster_to_join
from sweeper.execution.on_ray.shipping import are_hidden, extend_python_path, shipment
from sweeper.execution.on_ray.start_options import options_of_start, survive_warnings
from sweeper.execution.on_ray.token_file import make_private_tokens
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
    note: Callable[[str], None] = lambda text: None,
) -> bool:
    """Join the cluster at ``address`` or the one this machine belongs to, or start a new one on this machine.

    The workers of a joined cluster get the environment variables that say how to reach an object store, and copies of
    the ``plugins`` that are listed by path. All workers get what ``runtime_env`` has. ``note`` is told what is done
    otherwise than asked: a cluster of this machine that is gone, a temporary folder that Ray cannot use.

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
    where = cluster_to_join(address, note)
    if where is None:
        with survive_warnings():
            _init("local", storage, plugins, runtime_env, include_dashboard=False, **options_of_start(note))
        return True
    try:
        _init(where, storage, plugins, runtime_env)
    except (ConnectionError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise UserError(f"the Ray cluster at {where} cannot be joined ({reason}): give another --address") from None
    return False


def _init(
    address: str,
    storage: Place | None,
    plugins: Sequence[str],
    runtime_env: Mapping[str, Any] | None,
    **options: Any,
) -> None:
    """Start or join Ray without log output. A cluster joined by its address gets this machine's copy of the code.

    Raises:
        UserError: Ray does not start within its time limit.
    """
    options |= {"address": address, "log_to_driver": False, "logging_level": logging.ERROR, "configure_logging": True}
    try:
        if address == "local" and not are_hidden():
            own = dict(runtime_env or {})
            if "env_vars" in own:
                own["env_vars"] = dict(own["env_vars"])  # Ray adds to it
            ray.init(**({"runtime_env": own} if own else {}), **options)
        else:
            os.environ["RAY_OVERRIDE_JOB_RUNTIME_ENV"] = "1"  # else this conflicts with that of `ray job submit`
            variables = {} if storage is None else environment(storage)
            with shipment(variables, admit(plugins), runtime_env) as sent:
                ray.init(runtime_env=sent, **options)
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


def this_machine() -> dict[str, str]:
    """Ray's id of this machine, its name, and the cards that Ray has given this process."""
    node = ray.get_runtime_context().get_node_id()
    return {"node": node, "machine": socket.gethostname(), "card": os.environ.get("CUDA_VISIBLE_DEVICES", "")}


def elsewhere(avoid: Sequence[str], pieces: int) -> dict[str, Any]:
    """Options of a placement group of ``pieces`` bundles none of which may lie on the machines ``avoid`` (node ids)."""
    if not avoid:
        return {}
    return {"bundle_label_selector": [{"ray.io/node-id": f"!in({','.join(avoid)})"} for _ in range(pieces)]}
