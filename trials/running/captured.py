"""A stage's step as one CUDA graph: captured once, then replayed, so that the host launches one thing, not hundreds.

Not yet run on a GPU. A replay does the same operations on the same memory as the captured step did; all that differs
is what lies there. So batches are copied to where the captured step read its own, and a stage that says ``captures``
keeps what it carries from step to step in tensors that stay. What the host does between steps is in
:meth:`trials.methods.Stage.prepare`, which runs before each of them, captured or not.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

import torch
from torch import Tensor, nn

from trials.config.trial_config import TrialConfig
from trials.data.loader import Batch
from trials.methods.base import Stage
from trials.training.net import Net

WARM_UP = 3
"""Steps on batches of one size that run eagerly first: in them optimisers make their moments, and libraries settle."""

Result = tuple[Tensor, Tensor]
"""What a step returns: the loss, and how many images were right."""

_RANDOM = (nn.modules.dropout._DropoutNd, nn.RReLU)


class Graph(Protocol):
    """What records a step and does it again."""

    def warm_up(self, step: Callable[[], Result]) -> Result:
        """Run a step as it is, where the captured one will run."""

    def capture(self, step: Callable[[], Result]) -> Result:
        """Record a step without doing it; the tensors that every :meth:`replay` leaves its result in."""

    def replay(self) -> None:
        """Do the recorded step."""


class CudaGraph:
    """A step as a CUDA graph, on a stream of its own as torch asks for, in order with the stream of the caller."""

    def __init__(self, device: torch.device) -> None:
        self._graph = torch.cuda.CUDAGraph()
        self._stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]

    def warm_up(self, step: Callable[[], Result]) -> Result:
        outer = torch.cuda.current_stream(self._stream.device)
        self._stream.wait_stream(outer)
        with torch.cuda.stream(self._stream):
            result = step()
        outer.wait_stream(self._stream)
        return result

    def capture(self, step: Callable[[], Result]) -> Result:
        # other threads of this process may use the device meanwhile
        with torch.cuda.graph(self._graph, stream=self._stream, capture_error_mode="thread_local"):
            return step()

    def replay(self) -> None:
        self._graph.replay()


class Eager:
    """Runs a stage's steps operator by operator."""

    def __init__(self, stage: Stage) -> None:
        self.stage = stage

    def step(self, *batches: Batch) -> Result:
        self.stage.prepare()
        return self.stage.step(*batches)


class Captured:
    """Runs a stage's steps, most of them from a graph. Valid as long as the stage is attached as it is now.

    The first size of batches that has come ``WARM_UP`` times is captured; others, such as the rest that ends an epoch,
    stay eager.
    """

    def __init__(self, stage: Stage, graph: Graph) -> None:
        self.stage, self.graph = stage, graph
        self._seen: dict[tuple[torch.Size, ...], int] = {}
        self._captured: tuple[torch.Size, ...] | None = None
        self._inputs: list[Batch] = []
        self._result: Result | None = None

    def step(self, *batches: Batch) -> Result:
        """Loss and hits of one step. They hold until the next one."""
        self.stage.prepare()
        sizes = tuple(tensor.shape for batch in batches for tensor in batch)
        if self._captured is None:
            seen = self._seen.get(sizes, 0)
            self._seen[sizes] = seen + 1
            if seen < WARM_UP:
                return self.graph.warm_up(lambda: self.stage.step(*batches))
            self._capture(batches)
            self._captured = sizes
        elif sizes != self._captured:
            return self.stage.step(*batches)
        for kept, batch in zip(self._inputs, batches, strict=True):
            for to, tensor in zip(kept, batch, strict=True):
                to.copy_(tensor)
        self.graph.replay()
        assert self._result is not None
        return self._result

    def _capture(self, batches: Sequence[Batch]) -> None:
        self._inputs = [(x.clone(), y.clone()) for x, y in batches]
        try:
            self._result = self.graph.capture(lambda: self.stage.step(*self._inputs))
        except torch.OutOfMemoryError:
            raise
        except RuntimeError as error:
            raise RuntimeError(
                f"a step of stage {self.stage.name} must wait for nothing to be captured as a CUDA graph, but torch "
                f"says: {error}; set capture: false in the trial's config to run it operator by operator"
            ) from error


def stepper(stage: Stage, net: Net, config: TrialConfig) -> Eager | Captured:
    """What runs the steps of a stage that is attached and has loaded its state. Make another once it is attached anew.

    Eager where the config says so or compiles, where the stage does not let itself be captured, prunes its backward
    passes or trains layers that draw random numbers, and everywhere but on CUDA.
    """
    draws = any(isinstance(module, _RANDOM) for module in net.model.modules())
    asks = config.capture and not config.compile
    if not asks or draws or not stage.captures or stage.recipe.backward is not None:
        return Eager(stage)
    graph = graph_for(net.device)
    return Eager(stage) if graph is None else Captured(stage, graph)


def graph_for(device: torch.device) -> Graph | None:
    """A graph that records steps on a device; None where there are none."""
    return CudaGraph(device) if device.type == "cuda" else None
