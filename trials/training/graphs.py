"""Run a function on the device as a CUDA graph: captured once, then replayed with one launch.

A replay repeats the captured operations on the same memory; only its contents differ. So everything that a captured
function reads and writes lies in tensors that keep their addresses, and what the function does on the host happens
once, when it is captured.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, nullcontext
from functools import cache, cached_property
from typing import Protocol

import torch

WARM_UP = 3
"""Eager runs of a training step before its capture: optimisers allocate their state, and libraries initialise."""


_capture_failed = threading.Event()


def has_failed_capture() -> bool:
    """Whether a capture of this process failed. What torch and CUDA had begun for it may not have been ended, so that
    another trial should run in another process. Not yet run on a GPU."""
    return _capture_failed.is_set()


class Graph(Protocol):
    """Records a function and replays it."""

    def warm_up(self, function: Callable[[], None]) -> None:
        """Run a function eagerly, on the stream that the capture will use."""

    def capture(self, function: Callable[[], None]) -> None:
        """Record a function without executing its operations."""

    def replay(self) -> None:
        """Execute the recorded operations."""

    def reset(self) -> None:
        """Forget what was recorded and free its memory. It may record again."""


class CudaGraph:
    """A CUDA graph, captured on another stream than the caller's as torch requires, and synchronised with that.

    ``generators``: on the device, from which the function draws, beside torch's default one.
    """

    def __init__(self, device: torch.device, generators: Iterable[torch.Generator] = ()) -> None:
        self._device, self._generators = device, tuple(generators)

    @property
    def _stream(self) -> torch.cuda.Stream:
        return _capture_stream(self._device)

    @cached_property
    def _graph(self) -> torch.cuda.CUDAGraph:
        graph = torch.cuda.CUDAGraph()
        for generator in self._generators:
            graph.register_generator_state(generator)
        return graph

    def warm_up(self, function: Callable[[], None]) -> None:
        outer = torch.cuda.current_stream(self._stream.device)
        self._stream.wait_stream(outer)
        with torch.cuda.stream(self._stream):
            function()
        outer.wait_stream(self._stream)

    def capture(self, function: Callable[[], None]) -> None:
        # thread_local: other threads of this process may use the device during the capture
        try:
            with torch.cuda.graph(self._graph, stream=self._stream, capture_error_mode="thread_local"):
                function()
        except BaseException:
            _capture_failed.set()
            raise

    def replay(self) -> None:
        self._graph.replay()

    def reset(self) -> None:
        graph: torch.cuda.CUDAGraph | None = self.__dict__.pop("_graph", None)
        if graph is not None:
            graph.reset()


@cache
def _capture_stream(device: torch.device) -> torch.cuda.Stream:
    """Return the one stream for all captures of this process. Libraries keep a workspace for every stream they see."""
    return torch.cuda.Stream(device)  # type: ignore[no-untyped-call]


def graph_for(device: torch.device, generators: Iterable[torch.Generator] = ()) -> Graph | None:
    """Return a graph that records functions on a device; None for devices other than CUDA."""
    return CudaGraph(device, generators) if device.type == "cuda" else None


class Program:
    """Runs a function again and again: the first times eagerly, then by replaying a graph of it.

    Attributes:
        name: what is run, for messages.
        fits: False once there was no memory to capture it; it then runs eagerly, and ``warn`` has been called.
        captured: whether it is replayed.
    """

    def __init__(
        self,
        function: Callable[[], None],
        graph: Graph,
        name: str,
        *,
        warm_up: int = WARM_UP,
        recording: Callable[[], AbstractContextManager[None]] = nullcontext,
        warn: Callable[[str], None] = lambda text: None,
    ) -> None:
        self.function, self.graph, self.name = function, graph, name
        self.recording, self.warn = recording, warn
        self.fits, self.captured = True, False
        self._eager_left = warm_up

    def run(self) -> bool:
        """Run the function once; return whether by a replay, in which nothing of it happens on the host.

        ``recording`` is entered around the function where it is captured.

        Raises:
            RuntimeError: the function cannot be captured.
        """
        if not self.captured and self.fits and not self._eager_left:
            self._capture()
        if self.captured:
            self.graph.replay()
            return True
        if self.fits:
            self._eager_left -= 1
            self.graph.warm_up(self.function)
        else:
            self.function()
        return False

    def close(self) -> None:
        """Free the memory of what was captured, at once.

        The function mostly refers to its program's owner, so that Python would free both only when it collects cycles.
        """
        self.graph.reset()
        self.captured = False

    def _capture(self) -> None:
        try:
            self.graph.capture(self._recorded)
            self.captured = True
        except RuntimeError as error:
            # ending a capture that ran out of memory may raise an error of its own over the first
            if isinstance(error, torch.OutOfMemoryError) or isinstance(error.__context__, torch.OutOfMemoryError):
                self.fits = False
                self.graph.reset()  # what was allocated before memory ran out would be missing from now on
                self.warn(f"no memory to capture {self.name} as a CUDA graph: it runs operator by operator")
                return
            raise RuntimeError(
                f"{self.name} cannot be captured as a CUDA graph ({error}): it must not wait for the device; set "
                "capture: false in the trial's config to run it operator by operator"
            ) from error

    def _recorded(self) -> None:
        with self.recording():
            self.function()
