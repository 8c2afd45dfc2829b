"""Run pieces of one trial at once: Ray tasks in the trial's own placement group, which has one bundle per piece.

A trial whose config says ``parallel_pieces`` = n gets n bundles, each with the resources of a trial. The trial itself
runs in the first bundle and computes the first piece there, while tasks in the other bundles compute the rest.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping, Sequence
from typing import Any

import ray

from sweeper.execution.on_ray.cluster import this_machine
from trials.errors import DeadDevice
from trials.plugins.carrying import Carried
from trials.training.device import is_dead
from trials.training.stage_context import Map, ShouldStop, Work

END_S = 1.0
"""Seconds after which a process whose device is dead ends, so that the error of its piece reaches the trial first."""

_ending = threading.Event()


def bundles(resources: Mapping[str, float], pieces: int) -> list[dict[str, float]]:
    """Bundles of the placement group of a trial that runs ``pieces`` pieces at once."""
    return [dict(resources) for _ in range(max(pieces, 1))]


def parallel_map(resources: Mapping[str, float], should_stop: ShouldStop) -> Map:
    """A trial's ``map``: the first piece runs in this process, the others as Ray tasks; results in the pieces' order.

    What the pieces share is put into the object store once and reused by later calls. A call returns or raises only
    when none of its pieces runs any more.
    """
    put: dict[str, Any] = {}

    def run(work: Work, shared: Any, items: Sequence[Any]) -> list[Any]:
        first, *others = items
        running = _launch(work, shared, others) if others else []
        try:
            return [work(shared, first, should_stop), *_results(running)]
        finally:
            _wait(running)

    def _launch(work: Work, shared: Any, items: Sequence[Any]) -> list[Any]:
        if put.get("shared") is not shared:
            put.update(shared=shared, reference=ray.put(Carried(shared)))
        task = ray.remote(_piece).options(**_options(resources))
        return [task.remote(Carried(work), put["reference"], Carried(item), should_stop) for item in items]

    return run


def _options(resources: Mapping[str, float]) -> dict[str, Any]:
    """What a task asks for that takes all of a bundle, so that Ray runs one piece in each."""
    named = {"CPU": "num_cpus", "GPU": "num_gpus", "memory": "memory"}
    own = {option: resources.get(name, 0) for name, option in named.items()}
    return {**own, "resources": {name: amount for name, amount in resources.items() if name not in named}}


def _piece(work: Carried, shared: Carried, item: Carried, should_stop: ShouldStop) -> Any:
    """Task: compute a piece. If the device dies, its process ends once the error is on its way to the trial.

    Raises:
        DeadDevice: the piece failed, and the device no longer answers in this process.
    """
    if _ending.is_set():
        os._exit(1)  # Ray runs the task in another process
    try:
        return work.content(shared.content, item.content, should_stop)
    except Exception as error:
        if not is_dead():
            raise
        _ending.set()
        timer = threading.Timer(END_S, os._exit, [1])
        timer.daemon = True
        timer.start()
        here = this_machine()
        said = f"{type(error).__name__}: {error}"
        raise DeadDevice(f"a piece of it on {here['machine']} lost its device after {said}", where=here) from None


def _results(running: Sequence[Any]) -> list[Any]:
    return list(ray.get(list(running))) if running else []


def _wait(running: Sequence[Any]) -> None:
    """Wait until no piece runs. Pieces end by themselves, and soon if the trial is asked to stop.

    ``ray.cancel`` would be faster, but it crashes the calling process if the task is just on its way to its worker
    (seen with Ray 2.60: "Tried to complete task that was not pending").
    """
    if running:
        ray.wait(list(running), num_returns=len(running), fetch_local=False)
