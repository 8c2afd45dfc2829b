"""Count the gradient evaluations of a network: images that went through a forward and a backward pass."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

PASSES = 3
"""FLOPs of a forward and a backward pass, in forward passes: the backward pass computes dL/dx and dL/dw."""


@dataclass
class WorkDone:
    """What a network and its copies have computed so far, counted on the host where passes are run.

    A forward pass without a backward pass counts nothing: evaluation, SSIM, BN's statistics, the oracle's candidates.

    Attributes:
        gradient_evaluations: images times forward-backward passes.
        flops: their FLOPs, ``PASSES`` times those of a forward pass.
        forward_flops: FLOPs of one image through the network as it is now: masked weights are multiplied and count,
            rows that were cut out do not.
    """

    gradient_evaluations: int = 0
    flops: int = 0
    forward_flops: int = 0

    def add(self, images: int) -> None:
        """Count a forward and a backward pass of so many images."""
        self.gradient_evaluations += images
        self.flops += PASSES * self.forward_flops * images

    @contextmanager
    def held(self, hold: bool) -> Iterator[None]:
        """Within it, count nothing if ``hold``: for passes that are run again on resume, but were counted before."""
        before = self.gradient_evaluations, self.flops
        try:
            yield
        finally:
            if hold:
                self.gradient_evaluations, self.flops = before
