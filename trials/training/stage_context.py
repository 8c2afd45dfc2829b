"""StageContext: data, rows, parallel map and other networks that a stage may use besides its training batches."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from trials.data import Loader
from trials.storage.rows import Rows
from trials.training.net import Batch, Net

ShouldStop = Callable[[], bool]
"""Returns whether the trial has been asked to stop."""

Work = Callable[[Any, Any, ShouldStop], Any]
"""``work(shared, item, should_stop)``: computes one of several independent work items of a stage."""

Map = Callable[[Work, Any, Sequence[Any]], list[Any]]
"""``map(function, shared, items)``: results of ``function(shared, item, should_stop)`` in the items' order."""


@dataclass(frozen=True)
class StageContext:
    """What a stage may use besides its training batches.

    Attributes:
        data: loader of all splits.
        rows: the trial's rows so far; a stage may add to the table ``allocations``.
        map: runs independent work items, possibly in parallel; the results are bitwise the same either way.
        seed: the stage's seed.
        network: returns another trained network, in evaluation mode, by its name in
            :meth:`trials.methods.Method.references`; it is trained first if it does not exist yet.
    """

    data: Loader
    rows: Rows
    map: Map
    seed: int
    network: Callable[[str], Net]

    def look(self, split: str, batch_size: int) -> Iterator[Batch]:
        """Iterate lazily over unaugmented batches: "train" in an order drawn from the seed, others in fixed order."""
        if split != "train":
            return self.data.eval_batches(split, batch_size)
        return self.data.batches(seed=self.seed, epoch=0, stream="observe", batch_size=batch_size, augment=False)
