"""What a stage works with beside the batches of its epochs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from trials.data import Loader
from trials.storage.rows import Rows
from trials.training.net import Batch, Net

ShouldStop = Callable[[], bool]
"""Whether a trial is asked to end."""

Work = Callable[[Any, Any, ShouldStop], Any]
"""``work(shared, item, should_stop)``: one of several independent pieces of a stage."""

Map = Callable[[Work, Any, Sequence[Any]], list[Any]]
"""``map(function, shared, items)``: ``function(shared, item, should_stop)`` of every item, in the items' order."""


@dataclass(frozen=True)
class StageContext:
    """What a stage may work with.

    Attributes:
        data: all splits.
        rows: the trial's rows so far; a stage may add to the table ``allocations``.
        map: runs independent pieces of work, perhaps side by side; the results are the same bits either way.
        seed: of the stage.
        network: another trained network, in evaluation mode, by its name in
            :meth:`trials.methods.Method.references`; trained first, if nobody has.
    """

    data: Loader
    rows: Rows
    map: Map
    seed: int
    network: Callable[[str], Net]

    def look(self, split: str, batch_size: int) -> Iterator[Batch]:
        """Batches that are not augmented: of "train" in an order drawn from the seed, of "val" and "test" in their own.

        Nothing is read before the first is asked for.
        """
        if split != "train":
            return self.data.eval_batches(split, batch_size)
        return self.data.batches(seed=self.seed, epoch=0, stream="observe", batch_size=batch_size, augment=False)
