"""What a stage may look at before it begins."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from torch import Tensor

from trials.data import Loader
from trials.training import Batch, Net


@dataclass(frozen=True)
class View:
    """Images, what their pixels mean, and other trained networks.

    Attributes:
        batches: split and batch size to batches that are not augmented: "train" in an order drawn from the trial's
            seed, "val" and "test" in their own. Nothing is read before the first batch is asked for.
        black: what a pixel of 0 is once normalised, [C, 1, 1].
        white: what a pixel of 1 (255) is, [C, 1, 1].
        networks: what the method names in :meth:`trials.methods.Method.references`, in evaluation mode.
    """

    batches: Callable[[str, int], Iterator[Batch]]
    black: Tensor
    white: Tensor
    networks: Mapping[str, Net]

    @classmethod
    def of(cls, data: Loader, seed: int, networks: Mapping[str, Net]) -> View:
        """The view of a stage whose seed is ``seed``."""

        def batches(split: str, batch_size: int) -> Iterator[Batch]:
            if split != "train":
                return data.eval_batches(split, batch_size)
            return data.batches(seed=seed, epoch=0, stream="observe", batch_size=batch_size, augment=False)

        return cls(batches, *data.pixel_range(), networks)
