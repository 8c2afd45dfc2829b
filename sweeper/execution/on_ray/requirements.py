"""Checks before trials run on a cluster: it has room for one trial, and all its machines share storage and plug-ins."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import ray
from ray.util import accelerators
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from sweeper.execution.live_view import LiveView
from sweeper.execution.on_ray.capacity import Capacity, Demand, count_capacity
from sweeper.execution.on_ray.cluster import resources_of
from sweeper.execution.on_ray.worker_environment import LOOK_S, SAID_S
from sweeper.space.options.resources import ACCELERATOR, amounts_text
from sweeper.space.space import Space
from trials.errors import UserError, listed, nearest_name
from trials.plugins.importing import admit_sent, sent
from trials.storage import files
from trials.storage.leases.lease_store import GUARD, require_locks
from trials.storage.leases.owner import new_token
from trials.storage.place import STORAGE_LAG_S, ObjectPath, Place, place

PROBE_S = 180.0
"""Seconds a machine may take to say whether it reaches the storage; Ray starts a worker process for that."""


def require_room(space: Space, display: LiveView | None) -> None:
    """Check that the cluster has room for one trial.

    With a ``display``, missing room is only noted there, since a cluster may still start machines.

    Raises:
        UserError: there is no room, and ``display`` is None.
    """
    request = Demand(resources_of(space), space.most_pieces())
    capacity = count_capacity()
    if capacity.has(request):
        return
    text = f"resources are {amounts_text(request.each)}, {_lacking(capacity, request)}"
    if display is None:
        raise UserError(f"{text}: set resources to less")
    display.note(f"{text}: waiting for more machines")


def _lacking(capacity: Capacity, request: Demand) -> str:
    """What a cluster lacks for a request that it cannot hold."""
    found = sum(capacity.machines_for(request.each).values())
    if found:
        return (
            f"and a trial runs {request.pieces} pieces at once, each with as much, but there is room for {found} "
            f"({amounts_text(capacity.most(request.each))} is the most on one machine)"
        )
    kind = next((name for name in request.each if name.startswith(ACCELERATOR)), None)
    if kind is not None and not capacity.machines_for({kind: request.each[kind]}):
        return f"but no machine has such a card{_kinds(capacity, kind.removeprefix(ACCELERATOR))}"
    most = capacity.most(request.each)
    if all(most[name] >= amount for name, amount in request.each.items()):
        return "but no machine has all of that; one each has as much"
    return f"but no machine has more than {amounts_text(most)}"


def _kinds(capacity: Capacity, asked: str) -> str:
    """The kinds of card that a cluster has, and whether Ray knows the one that was asked for."""
    there = {name.removeprefix(ACCELERATOR) for of in capacity.total.values() for name in of if ACCELERATOR in name}
    known = {value for name, value in vars(accelerators).items() if name.isupper() and isinstance(value, str)}
    unknown = "" if asked in known else f"; Ray knows no {asked}{nearest_name(asked, sorted(known | there))}"
    return f" (there are {', '.join(sorted(there)) or 'none that Ray can tell apart'}{unknown})"


class _Stopped(Exception):
    """The run is to stop: answers are not waited for."""


@dataclass(frozen=True)
class Waiting:
    """How a run waits for its machines' answers.

    Attributes:
        note: is told once, after SAID_S, which machines have not answered.
        stopping: whether the run was asked to stop.
    """

    note: Callable[[str], None] = lambda text: None
    stopping: Callable[[], bool] = lambda: False

    def wait(self, asked: Sequence[Any], machines: Sequence[Mapping[str, Any]]) -> None:
        """Wait for the answers of these machines, at most PROBE_S.

        Raises:
            _Stopped: the run is to stop.
        """
        began, said = time.monotonic(), False
        while left := ray.wait(asked, num_returns=len(asked), timeout=LOOK_S)[1]:
            waited = time.monotonic() - began
            if self.stopping():
                raise _Stopped
            if waited >= PROBE_S:
                return
            if waited >= SAID_S and not said:
                names = [_name(node) for node, answer in zip(machines, asked, strict=True) if answer in left]
                self.note(f"no answer yet from {listed(names)}, asked for storage and plug-ins {waited:.0f} s ago")
                said = True


def require_machines(where: Place, plugins: Sequence[str], waiting: Waiting) -> None:
    """Check that every machine shares the storage and has the plug-ins; return at once if the run is to stop.

    Raises:
        UserError: a machine does not; the message names it.
    """
    with suppress(_Stopped):
        require_shared(where, waiting)
        require_plugins(plugins, waiting)


def require_shared(where: Place, waiting: Waiting | None = None) -> None:
    """Check that every machine can write and lock in the storage and read there what others wrote.

    Raises:
        UserError: a machine cannot; the message names it.
    """
    machines = [node for node in ray.nodes() if node["Alive"]]
    if len(machines) == 1 and machines[0]["NodeID"] == ray.get_runtime_context().get_node_id():
        return  # this machine, which has just written there
    probes = _new_folder(where)
    names = [node["NodeID"] for node in machines]
    try:
        files.make_folder(probes)
        (probes / "driver").write_bytes(b"driver")
        writers = [(node, _write_probe, [node["NodeID"]]) for node in machines]
        there = _ask_shared(where, writers, str(probes), waiting)
        last = [node["NodeID"] for node in there]
        readers = [(node, _read_probes, ["driver", last[i - 1]]) for i, node in enumerate(there)]
        for node in _ask_shared(where, readers, str(probes), waiting):
            reason = _read(probes, [node["NodeID"]])
            if reason:
                raise _not_shared(where, node, f"what it writes there is not seen from here: {reason}")
    finally:
        for name in ("driver", GUARD, *names):
            with suppress(OSError):
                (probes / name).unlink(missing_ok=True)
        with suppress(OSError):  # of a machine that answers although the run has stopped: it is a leftover then
            probes.rmdir()


def _new_folder(where: Place) -> Place:
    """A folder for probes: on a path a temporary one, which the next run removes if this driver is killed."""
    if isinstance(where, ObjectPath):
        return where / f"probe-{uuid.uuid4().hex[:8]}"
    return files.temporary_of(where / "probe", new_token())


def require_plugins(plugins: Sequence[str], waiting: Waiting | None = None) -> None:
    """Check that every machine has the driver's plug-ins, with the same source.

    Raises:
        UserError: a machine lacks one, or has another version; the message names it.
    """
    if not plugins:
        return
    machines = [node for node in ray.nodes() if node["Alive"]]
    for node, reason in _ask_all([(node, _admit_probe, [sent(plugins)]) for node in machines], waiting):
        if reason is not None:
            raise UserError(f"on {_name(node)}, {reason}")


def _admit_probe(described: list[dict[str, str]]) -> str | None:
    """Task: find the plug-ins that the driver has described; returns what is wrong, or None."""
    try:
        admit_sent(described)
    except UserError as error:
        return str(error)
    return None


def _ask_shared(
    where: Place,
    questions: Sequence[tuple[Mapping[str, Any], Any, list[str]]],
    folder: str,
    waiting: Waiting | None,
) -> list[Mapping[str, Any]]:
    """Run a task with the probe folder on each machine and return the machines that succeeded.

    Machines that have died meanwhile are left out: they get no trials.

    Raises:
        UserError: a task failed, or did not answer in time, on a machine that is alive.
    """
    answered = []
    for node, reason in _ask_all([(node, task, [folder, names]) for node, task, names in questions], waiting):
        if reason is not None:
            raise _not_shared(where, node, reason)
        answered.append(node)
    return answered


def _ask_all(
    questions: Sequence[tuple[Mapping[str, Any], Any, list[Any]]], waiting: Waiting | None
) -> Iterator[tuple[Mapping[str, Any], str | None]]:
    """Run a task with its arguments on each machine; yield each that is alive, and what went wrong, or None.

    A task returns what went wrong, or None.
    """
    asked = []
    for node, task, arguments in questions:
        there = NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
        remote = ray.remote(num_cpus=0, max_retries=0)(task)
        asked.append(remote.options(scheduling_strategy=there).remote(*arguments))
    (waiting or Waiting()).wait(asked, [node for node, _, _ in questions])
    for (node, _, _), answer in zip(questions, asked, strict=True):
        try:
            reason = ray.get(answer, timeout=0)
        except ray.exceptions.GetTimeoutError:
            reason = f"it did not answer within {PROBE_S:g} s"
        except ray.exceptions.RayError as error:
            reason = " ".join(str(error).split())
        if reason is None or _is_alive(node):
            yield node, reason


def _is_alive(node: Mapping[str, Any]) -> bool:
    return any(other["NodeID"] == node["NodeID"] and other["Alive"] for other in ray.nodes())


def _name(node: Mapping[str, Any]) -> str:
    return f"{node['NodeManagerHostname']} ({node['NodeManagerAddress']})"


def _not_shared(where: Place, node: Mapping[str, Any], reason: str) -> UserError:
    return UserError(
        f"--storage is {str(where.parent)!r}, but must be shared by all machines, and {_name(node)} does not: "
        f"{reason}; give a path that all of them can write, or s3://BUCKET/PREFIX"
    )


def _write_probe(folder: str, names: list[str]) -> str | None:
    """Task: write a file named after the machine into the probe folder, which must be visible there, and lock one."""
    probes = place(folder)
    reason = _read(probes, ["driver"])
    if reason:
        return reason
    try:
        (probes / names[0]).write_bytes(names[0].encode())
        require_locks(probes)
    except OSError as error:
        return f"it cannot write there: {error}"
    except UserError as error:
        return str(error)
    return None


def _read_probes(folder: str, names: list[str]) -> str | None:
    return _read(place(folder), names)


def _read(probes: Place, names: Sequence[str]) -> str | None:
    """What is wrong with files that must contain their own names; None once they do, within the storage's lag."""
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
