"""Which of a sweep's trials have a place on the cluster, which wait for one, and why; how much a trial asks for."""

from __future__ import annotations

import math
import time
import weakref
from collections.abc import Callable, Mapping
from functools import cached_property
from typing import Any

from sweeper.execution.on_ray.capacity import Amounts, Capacity, Demand, count_capacity
from sweeper.execution.on_ray.cluster import resources_of
from sweeper.search.assignment import Assignment
from sweeper.search.sick_machines import SickMachines
from sweeper.space.options.resources import amounts_text
from sweeper.space.space import Space

COUNT_EVERY_S = 5.0
"""Seconds between two counts of what the cluster holds; machines join and leave, and so do other jobs."""

SAY_AFTER_S = 60.0
"""Seconds that a trial may wait for a place before the sweep says why."""

_counting: weakref.WeakSet[Places] = weakref.WeakSet()
"""Those of all sweeps that this process runs at the same time: to Ray, they are one job."""


class Places:
    """Follows the trials that were handed to Tune, from then until they end.

    Attributes:
        waiting: by Tune's id, the messages of trials that no worker has taken yet.

    Args:
        note: shows the user a line.
    """

    def __init__(self, space: Space, sick: SickMachines, note: Callable[[str], None]) -> None:
        self.space, self.sick, self.note = space, sick, note
        self.waiting: dict[str, dict[str, Any]] = {}
        self._since: dict[str, float] = {}
        self._room_since: dict[str, float] = {}  # waiting trials that could have begun, as far as can be counted
        self._alone: dict[str, Demand] = {}  # waiting trials that ran out of memory, and what they asked for before
        self._running: dict[str, tuple[Demand, str | None]] = {}
        self._asked: list[Amounts] = []  # every kind of bundle
        self._groups = set[str]()  # placement groups that this sweep's workers have named
        self._said: dict[tuple[object, ...], tuple[object, ...]] = {}  # by kind of request
        self._known, self._counted, self._looked = Capacity({}), -math.inf, 0.0
        sick.with_room = lambda: self.capacity.machines_for(resources_of(space))
        _counting.add(self)

    @property
    def capacity(self) -> Capacity:
        """What the cluster holds, counted anew every COUNT_EVERY_S."""
        if time.monotonic() - self._counted > COUNT_EVERY_S:
            foreign = {group for other in _counting if other is not self for group in other._groups}
            self._known = count_capacity(self._asked, foreign)
            self._counted = time.monotonic()
        return self._known

    def count_again(self) -> None:
        """Count at the next question, whenever the last time was."""
        self._counted = -math.inf

    def request(self, assignment: Assignment) -> tuple[Demand, bool]:
        """What an assigned trial asks for, and whether it then shares its devices with no other trial."""
        asked = Demand(resources_of(self.space), assignment.config.parallel_pieces, tuple(assignment.avoid))
        alone = self.capacity.alone(asked)
        return (alone, True) if assignment.alone else (asked, alone.each == asked.each)

    def asked(self, trial_id: str, message: dict[str, Any], assignment: Assignment) -> None:
        """A trial was handed to Tune."""
        self.waiting[trial_id] = message
        self._since[trial_id] = time.monotonic()
        if assignment.alone:
            pieces = assignment.config.parallel_pieces
            self._alone[trial_id] = Demand(resources_of(self.space), pieces, tuple(assignment.avoid))
        if message["resources"] not in self._asked:
            self._asked.append(message["resources"])
            self.count_again()

    def began(self, trial_id: str, said: Mapping[str, Any]) -> None:
        """A worker has sent a message: its trial has a place."""
        if said.get("group"):
            self._groups.add(said["group"])
        message = self.waiting.get(trial_id)
        if message is not None:
            self.gone(trial_id)
            request = Demand.of(message)
            self._running[trial_id] = request, said.get("node")
            self._said.pop(_kind(request), None)

    def where(self, trial_id: str) -> str | None:
        """The machine (Ray's node id) of a trial that runs; None of one that has not begun, or if it is unknown."""
        return self._running.get(trial_id, (None, None))[1]

    def running(self, node: str | None = None) -> int:
        """How many trials run, on a machine if one is given."""
        return sum(node is None or where == node for _, where in self._running.values())

    def gone(self, trial_id: str) -> None:
        """A trial has ended, or was taken back."""
        for known in (self.waiting, self._since, self._room_since, self._alone, self._running):
            known.pop(trial_id, None)

    def is_full(self) -> bool:
        """Whether a trial waits that has no place, so that the plan hands out no further one.

        Trials that wait for another machine than that on which their device died do not count, nor do those that ran
        out of memory if what other jobs leave is too small for them: others can run meanwhile.
        """
        ids = list(self.waiting)
        running = list(self._running.values())
        waiting: list[tuple[Demand, str | None]] = [(self._now(name), None) for name in ids]
        found = self.capacity.without_place([*running, *waiting])
        return any(self._holds_up(ids[i - len(running)]) for i in found if i >= len(running))

    def _holds_up(self, trial_id: str) -> bool:
        if not self.sick.barred.keys() >= set(self.waiting[trial_id]["avoid"]):
            return False
        if trial_id not in self._alone:
            return True
        return self.capacity.leaves(self._now(trial_id)) and not self._has_had_room(trial_id)

    def _now(self, trial_id: str) -> Demand:
        """What a waiting trial asks for; machines that were barred meanwhile refuse it."""
        request = Demand.of(self.waiting[trial_id])
        return Demand(request.each, request.pieces, tuple(sorted({*request.avoid, *self.sick.barred})))

    def only_barred(self) -> bool:
        """Whether only barred machines could hold a trial, even the smallest."""
        barred = tuple(self.sick.barred)
        if not barred:
            return False
        each = resources_of(self.space)
        smallest, left = Demand(each, self._fewest_pieces), Demand(each, self._fewest_pieces, barred)
        return self.capacity.has(smallest) and not self.capacity.has(left)

    @cached_property
    def _fewest_pieces(self) -> int:
        space = self.space
        return min(config.parallel_pieces for cell in space.cells() for config in space.corner_configs(cell))

    def may_come(self, trial_id: str) -> bool:
        """Whether a trial waits for what may come: room on machines it may use, or a machine that is large enough."""
        request = self._now(trial_id)
        return self.capacity.has(request) or not self.capacity.has(Demand(request.each, request.pieces))

    def too_much(self) -> bool:
        """Whether a trial that ran out of memory has waited SAY_AFTER_S for more than it would ask for by now."""
        for trial_id, before in self._alone.items():
            now = self.capacity.alone(Demand(before.each, before.pieces, self._now(trial_id).avoid))
            late = time.monotonic() - self._since[trial_id] > SAY_AFTER_S
            if late and not self.capacity.leaves(self._now(trial_id)) and self.capacity.leaves(now):
                return True
        return False

    def say_waiting(self) -> None:
        """Say of each kind of request that has waited SAY_AFTER_S what it asks for, what there is and what is missing:
        once, and again when that changes or when such a trial waits again."""
        self._look_for_room()
        for trial_id, since in self._since.items():
            if time.monotonic() - since <= SAY_AFTER_S:
                continue
            message, reason = self.waiting[trial_id], self._missing(trial_id)
            request = Demand.of(message)
            there = self.capacity.total
            state = (reason, *sorted(amounts_text(_wanted(amounts, request.each)) for amounts in there.values()))
            if reason is None or self._said.get(_kind(request)) == state:
                continue
            self._said[_kind(request)] = state
            self.note(
                f"{message['trial']} has waited {SAY_AFTER_S:.0f} s for a place: it asks for {request}; "
                f"{_there(self.capacity, request.each)}: {reason}"
            )

    def _has_had_room(self, trial_id: str) -> bool:
        """Whether a waiting trial has had a place for SAY_AFTER_S, as far as can be counted from here."""
        since = self._room_since.get(trial_id)
        return since is not None and time.monotonic() - since > SAY_AFTER_S

    def _look_for_room(self) -> None:
        """Note since when each waiting trial has had a place beside those that run; after each count of the cluster."""
        capacity = self.capacity
        if self._looked == self._counted:
            return
        self._looked = self._counted
        running, found = list(self._running.values()), dict[tuple[object, ...], bool]()
        for trial_id in self.waiting:
            request = self._now(trial_id)
            kind = _kind(request)
            if kind not in found:
                found[kind] = not capacity.without_place([*running, (request, None)])
            if found[kind]:
                self._room_since.setdefault(trial_id, time.monotonic())
            else:
                self._room_since.pop(trial_id, None)

    def _missing(self, trial_id: str) -> str | None:
        """Why a trial still waits; None if it waits its turn behind others of this sweep."""
        request = self._now(trial_id)
        capacity, anywhere = self.capacity, Demand(request.each, request.pieces)
        if not capacity.has(anywhere):
            return (
                "no machine has that; it waits for machines to join, as a cluster with an autoscaler may start them; "
                "otherwise stop, and set resources to less"
                if not capacity.machines_for(request.each)
                else "the machines together have less; it waits for more to join; otherwise stop, and set resources or "
                "the pieces that run at once to less"
            )
        if not capacity.has(request):
            names = {self.sick.name_of(node) for node in request.avoid if node in capacity.total}
            return f"the machines that have it may not run this trial ({', '.join(sorted(names))}); it waits for others"
        if not capacity.leaves(request):
            return "other jobs of the cluster hold the rest; it waits for them to end"
        if self._has_had_room(trial_id):
            return "there is room, but Ray has not started its process yet; ray status says more"
        return "trials of this sweep hold the rest; it is the next to run" if trial_id in self._alone else None


def _kind(request: Demand) -> tuple[object, ...]:
    return (*sorted(request.each.items()), request.pieces, *request.avoid)


def _wanted(amounts: Amounts, each: Amounts) -> dict[str, float]:
    return {name: amounts.get(name, 0.0) for name in each}


def _there(capacity: Capacity, each: Amounts) -> str:
    """What the cluster has, and what is free, of the resources that a trial asks for."""
    machines = len(capacity.total)
    if not machines:
        return "the cluster has no machines"
    total, free = (
        {name: sum(amounts.get(name, 0.0) for amounts in of.values()) for name in each}
        for of in (capacity.total, capacity.free)
    )
    where = "1 machine has" if machines == 1 else f"{machines} machines have"
    return f"{where} {amounts_text(total)}, of which {amounts_text(free)} {'is' if machines == 1 else 'are'} free"
