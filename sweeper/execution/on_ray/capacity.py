"""How many trials the cluster holds for a sweep: whole trials, in what other jobs leave of its machines.

A trial asks for a placement group of equal bundles, one for each of its pieces. Ray packs them (strategy PACK): on one
machine if they fit there, otherwise over several. So what counts is how many bundles each machine holds.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import ray
from ray._private.state import available_resources_per_node
from ray.util import placement_group_table

from sweeper.space.options.resources import amounts_text, on_one_card, units_in

Amounts = Mapping[str, float]
"""Amounts of resources by Ray's names."""

_HELD = ("CREATED", "PREPARED", "RESCHEDULING")
"""States of placement groups that hold resources."""


@dataclass(frozen=True)
class Demand:
    """What a trial asks for.

    Attributes:
        each: resources of a bundle.
        pieces: number of bundles.
        avoid: machines (Ray's node ids) on which none of them may lie.
    """

    each: Amounts
    pieces: int = 1
    avoid: tuple[str, ...] = ()

    @classmethod
    def of(cls, message: Mapping[str, Any]) -> Demand:
        """The request of a trial's message for its worker."""
        return cls(message["resources"], message["pieces"], tuple(message["avoid"]))

    def __str__(self) -> str:
        each = amounts_text(self.each)
        return each if self.pieces == 1 else f"{self.pieces} times {each} (one for each piece that runs at once)"


@dataclass(frozen=True)
class Capacity:
    """What the machines of a cluster have, by Ray's node id.

    Attributes:
        total: all that a machine has.
        share: what other jobs leave of it: what is free, and what this sweep holds.
        free: what nobody holds.
    """

    total: Mapping[str, Amounts]
    share: Mapping[str, Amounts] = field(default_factory=dict)
    free: Mapping[str, Amounts] = field(default_factory=dict)

    def has(self, request: Demand) -> bool:
        """Whether the cluster could hold a trial if it held nothing else."""
        return _holds(self.total, request)

    def leaves(self, request: Demand) -> bool:
        """Whether what other jobs leave could hold a trial if this sweep held nothing else."""
        return _holds(self.share, request)

    def machines_for(self, each: Amounts, avoid: Collection[str] = ()) -> dict[str, int]:
        """How many bundles each machine could hold if it held nothing else; without those that hold none."""
        return _bundles(self.total, each, avoid)

    def most(self, names: Iterable[str]) -> dict[str, float]:
        """The most of each of these resources that one machine has."""
        return {name: max((amounts.get(name, 0.0) for amounts in self.total.values()), default=0.0) for name in names}

    def without_place(self, requests: Iterable[tuple[Demand, str | None]]) -> list[int]:
        """Positions of the trials that find no place when all are placed in this order, in what other jobs leave.

        Args:
            requests: what each asks for, and the machine on which it runs, if it does.
        """
        requests = list(requests)
        if len({(_rounded(request.each), request.avoid) for request, _ in requests}) <= 1:
            return self._beyond([request for request, _ in requests])
        left = {node: dict(amounts) for node, amounts in self.share.items()}
        return [i for i, (request, node) in enumerate(requests) if not _place(left, request, node)]

    def _beyond(self, alike: Sequence[Demand]) -> list[int]:
        """As :meth:`without_place`, for trials whose bundles are all alike: these only need to be counted."""
        held = sum(_bundles(self.share, alike[0].each, alike[0].avoid).values()) if alike else 0
        beyond = []
        for i, request in enumerate(alike):
            if request.pieces > held:
                beyond.append(i)
            else:
                held -= request.pieces
        return beyond

    def alone(self, request: Demand) -> Demand:
        """What a trial asks for so that no other trial shares its devices: as much as can exist.

        With GPUs, whole cards; otherwise all cores of a machine, of one that other jobs leave alone if there is one.
        Pieces that cannot be placed at once run one after another, in fewer bundles.
        """
        if request.each.get("GPU"):
            whole = replace(request, each={**request.each, "GPU": max(1.0, request.each["GPU"])})
            held = sum(_bundles(self.share, whole.each, whole.avoid).values())
        else:
            cores = self._cores(request)
            most = max(cores, default=request.each["CPU"])
            whole, held = replace(request, each={**request.each, "CPU": most}), cores.count(most)
        return replace(whole, pieces=min(request.pieces, max(held, 1)))

    def _cores(self, request: Demand) -> list[float]:
        """Cores of each machine that holds a bundle: of those that other jobs leave alone; if there are none, what they
        leave; if they leave none, all."""
        shared = _bundles(self.share, request.each, request.avoid)
        fit = shared or _bundles(self.total, request.each, request.avoid)
        cores = {node: (self.share if shared else self.total)[node]["CPU"] for node in fit}
        return [amount for node, amount in cores.items() if amount == self.total[node]["CPU"]] or list(cores.values())


def count_capacity(asked: Collection[Amounts] = (), foreign: Collection[str] = ()) -> Capacity:
    """Ask Ray what the machines that are alive have, and what is free of it.

    This sweep holds the placement groups of this process's job whose bundles it has ``asked`` for, but for the
    ``foreign`` ones, of other sweeps that the process runs.
    """
    total: dict[str, Amounts] = {node["NodeID"]: node["Resources"] for node in ray.nodes() if node["Alive"]}
    available = available_resources_per_node()
    mine = _held_by(ray.get_runtime_context().get_job_id(), {_rounded(each) for each in asked}, foreign)
    share: dict[str, Amounts] = {}
    free: dict[str, Amounts] = {}
    for node, amounts in total.items():
        there = available.get(node, {})
        free[node] = {name: there.get(name, 0.0) for name in amounts}
        ours = {name: round(there.get(name, 0.0) + mine[node].get(name, 0.0), 4) for name in amounts}
        share[node] = {name: min(amount, ours[name]) for name, amount in amounts.items()}
    return Capacity(total, share, free)


def _held_by(job: str, asked: set[frozenset[tuple[str, float]]], foreign: Collection[str]) -> Mapping[str, Amounts]:
    """What the placement groups of a job hold of each machine. The id of a group ends in that of its job."""
    held: defaultdict[str, dict[str, float]] = defaultdict(dict)
    for name, group in placement_group_table().items():
        if group["state"] not in _HELD or not name.endswith(job) or name in foreign:
            continue
        if any(_rounded(bundle) not in asked for bundle in group["bundles"].values()):
            continue
        for index, node in group["bundles_to_node_id"].items():
            for resource, amount in group["bundles"][index].items():
                held[node][resource] = held[node].get(resource, 0.0) + amount
    return held


def _rounded(amounts: Amounts) -> frozenset[tuple[str, float]]:
    """Amounts as Ray counts them, which can be compared."""
    return frozenset((name, round(amount, 4)) for name, amount in amounts.items())


def _bundles(machines: Mapping[str, Amounts], each: Amounts, avoid: Collection[str] = ()) -> dict[str, int]:
    """How many bundles each machine holds; without those that hold none."""
    held = {node: _times(amounts, each) for node, amounts in machines.items() if node not in avoid}
    return {node: bundles for node, bundles in held.items() if bundles}


def _times(amounts: Amounts, each: Amounts) -> int:
    return min(max(0, units_in(name, amounts.get(name, 0), amount)) for name, amount in each.items())


def _holds(machines: Mapping[str, Amounts], request: Demand) -> bool:
    return sum(_bundles(machines, request.each, request.avoid).values()) >= request.pieces


def _place(left: dict[str, dict[str, float]], request: Demand, where: str | None) -> bool:
    """Take a trial's bundles from what is left, on the machine ``where`` first; False and nothing taken if they do not
    fit. A machine that holds all is preferred, the one with least room; otherwise as few as possible are used."""
    if request.pieces == 1 and where in left and _times(left[where], request.each):
        return _take(left[where], request.each, 1)
    room = _bundles(left, request.each, request.avoid if where is None else ())
    if sum(room.values()) < request.pieces:
        return False
    wanted = request.pieces
    for node in _in_order(room, wanted, where):
        taken = min(room[node], wanted)
        _take(left[node], request.each, taken)
        wanted -= taken
        if not wanted:
            break
    return True


def _take(left: dict[str, float], each: Amounts, bundles: int) -> bool:
    for name, amount in each.items():
        per_card = on_one_card(name, amount)
        left[name] -= bundles / per_card if per_card else bundles * amount
    return True


def _in_order(room: Mapping[str, int], wanted: int, where: str | None) -> Sequence[str]:
    def rank(node: str) -> tuple[bool, bool, int]:
        holds_all = room[node] >= wanted
        return node != where, not holds_all, room[node] if holds_all else -room[node]

    return sorted(room, key=rank)
