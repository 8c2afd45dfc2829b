"""What a trial has cost so far: gradient evaluations per training image, and their FLOPs.

``cost`` is what the method spends after its dense start; the dense training that trials share is told apart, in
``dense_cost``. A shared trial that is not dense, such as the sparse network that regrowth starts from, is part of the
method: its cost is included.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from trials.sparsity.accounting import LayerSizes
from trials.training.net import Net


def executed_flops(net: Net, sizes: LayerSizes) -> int:
    """FLOPs of one image through the network as it is executed: smaller if it was cut, dense if it is only masked."""
    return 2 * sizes.macs_of(net.model)


class Cost:
    """Counts what ``net`` and its copies compute.

    Args:
        net, sizes: the network, and the sizes of the dense one.
        images: number of training images.

    Attributes:
        known: False if an older version, which did not count, ran a part of the trial or of what it starts from.
        dense: gradient evaluations of the dense trials that this one starts from or reads; None if unknown, as for the
            network of a file.
    """

    def __init__(self, net: Net, sizes: LayerSizes, images: int) -> None:
        self.net, self.sizes, self.images = net, sizes, images
        self.known = True
        self.dense: int | None = 0
        self.resize()

    def resize(self) -> None:
        """Take the network's current size; to be called once it has changed."""
        self.net.work.forward_flops = executed_flops(self.net, self.sizes)

    def columns(self) -> dict[str, Any]:
        """Columns of a row of ``epochs``, up to now; None where unknown."""
        work = self.net.work
        if not self.known:
            return {"gradient_evaluations": None, "cost": None, "cost_flops": None}
        per_image = work.gradient_evaluations / self.images
        return {"gradient_evaluations": work.gradient_evaluations, "cost": per_image, "cost_flops": work.flops}

    def result(self) -> dict[str, Any]:
        """Columns of the trial's result."""
        return {**self.columns(), "dense_cost": None if self.dense is None else self.dense / self.images}

    def starts_from(self, dense: bool, state: Mapping[str, Any] | None) -> None:
        """Take over what a shared trial has cost; ``state``: its :meth:`state_dict`, None if it was not counted."""
        if dense:
            self.also_dense(state)
        else:
            self.load_state_dict(state)

    def also_dense(self, state: Mapping[str, Any] | None) -> None:
        """Count a dense trial that this one starts from or reads."""
        spent = None if state is None else state["gradient_evaluations"]
        self.dense = None if self.dense is None or spent is None else self.dense + spent

    def state_dict(self) -> dict[str, Any] | None:
        work = self.net.work
        counts = {"gradient_evaluations": work.gradient_evaluations, "flops": work.flops, "dense": self.dense}
        return counts if self.known else None

    def load_state_dict(self, state: Mapping[str, Any] | None) -> None:
        """Restore :meth:`state_dict`."""
        if state is None:
            self.known, self.dense = False, None
            return
        self.net.work.gradient_evaluations, self.net.work.flops = state["gradient_evaluations"], state["flops"]
        self.dense = state["dense"]
