"""Pieces of one trial side by side: Ray tasks in the trial's own placement group, which has a bundle for each.

A trial whose config says ``parallel_pieces`` = n gets n bundles of the resources that a trial has. The first is the
trial's; it works in it on a flight's first piece, while the others run the rest.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import ray

from trials.training.stage_context import Map, ShouldStop, Work


def bundles(resources: Mapping[str, float], pieces: int) -> list[dict[str, float]]:
    """The bundles of a trial with so many pieces at once."""
    return [dict(resources) for _ in range(max(pieces, 1))]


def parallel_map(resources: Mapping[str, float], should_stop: ShouldStop) -> Map:
    """A trial's ``map``: the first piece here, the others as Ray tasks; results in the pieces' order.

    What the pieces share is put into the object store once, however many flights follow. Whatever becomes of one piece,
    no other still runs when it is over.
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
            put.update(shared=shared, reference=ray.put(shared))
        task = ray.remote(_piece).options(num_cpus=resources.get("CPU", 0), num_gpus=resources.get("GPU", 0))
        return [task.remote(work, put["reference"], item, should_stop) for item in items]

    return run


def _piece(work: Work, shared: Any, item: Any, should_stop: ShouldStop) -> Any:
    return work(shared, item, should_stop)


def _results(running: Sequence[Any]) -> list[Any]:
    return list(ray.get(list(running))) if running else []


def _wait(running: Sequence[Any]) -> None:
    """Until none runs any more: they end by themselves, soon if the trial is asked to stop.

    ``ray.cancel`` would be shorter, but a task that is on its way to its worker when it is cancelled takes the process
    that cancels it down with it (seen with Ray 2.60: "Tried to complete task that was not pending").
    """
    if running:
        ray.wait(list(running), num_returns=len(running), fetch_local=False)
