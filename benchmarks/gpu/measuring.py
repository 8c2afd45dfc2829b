"""Measuring tools: milliseconds of a call, and a call as a CUDA graph."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch

WARM_UP = 3
BLOCKS = 5
MOST_CALLS = 200


class Captured:
    """A call captured as a CUDA graph after a warm-up. Keeps the call, whose tensors the graph uses."""

    def __init__(self, call: Callable[[], object]) -> None:
        self.call = call
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(WARM_UP):
                call()
        torch.cuda.current_stream().wait_stream(stream)
        torch.cuda.synchronize()
        self.graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self.graph):
            call()

    def __call__(self) -> None:
        self.graph.replay()


@dataclass(frozen=True)
class Card:
    """The device that is measured."""

    device: torch.device

    @property
    def is_cuda(self) -> bool:
        """Whether the device is a GPU."""
        return self.device.type == "cuda"

    def wait(self) -> None:
        """Wait until all enqueued work is done."""
        if self.is_cuda:
            torch.cuda.synchronize()

    def timed_ms(self, call: Callable[[], object], times: int = 1) -> float:
        """Return the milliseconds of one call, averaged over ``times`` calls in a row."""
        self.wait()
        start = time.perf_counter()
        for _ in range(times):
            call()
        self.wait()
        return (time.perf_counter() - start) / times * 1e3

    def median_ms(self, call: Callable[[], object], seconds: float = 0.5) -> float:
        """Return the milliseconds of a call, the median of five blocks (``seconds`` in all); on a CPU of one call."""
        for _ in range(WARM_UP if self.is_cuda else 1):
            call()
        one_ms = self.timed_ms(call)
        if not self.is_cuda:
            return round(one_ms, 4)
        calls = min(MOST_CALLS, int(seconds * 1e3 / max(one_ms, 1e-2)))
        blocks = BLOCKS if calls >= BLOCKS else 1
        times = max(1, calls // BLOCKS)
        return round(statistics.median(self.timed_ms(call, times) for _ in range(blocks)), 4)
