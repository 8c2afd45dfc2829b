"""Run a stage's steps as a CUDA graph: captured once, then replayed, so the CPU launches one graph, not many kernels.

Ran on one H200 (torch 2.11): ten replays give the bits of ten eager steps for dense, masked, BiP, HYDRA, adaptive and
AdamW steps (results/measured/gpu). A replay repeats the captured operations on the same memory; only its contents
differ. Therefore batches are copied into the captured step's input tensors, and a stage with ``captures`` keeps its
state between steps in persistent tensors. WorkDone of the CPU between steps belongs in
:meth:`trials.methods.Stage.prepare`, which runs before every step, captured or not.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

import torch
from torch import Tensor, nn

from trials.config.trial_config import TrialConfig
from trials.data.loader import Batch
from trials.methods.base import Stage
from trials.sparsity.backward import BackwardPruner
from trials.training.net import Net
from trials.training.work import WorkDone

WARM_UP = 3
"""Eager steps per batch size before the capture, in which optimisers allocate their state and libraries initialise."""

Result = tuple[Tensor, Tensor]
"""What a step returns: the loss, and the number of correct images, as scalars on the device."""

_RANDOM = (nn.modules.dropout._DropoutNd, nn.RReLU)


class Graph(Protocol):
    """Records a step and replays it."""

    def warm_up(self, step: Callable[[], Result]) -> Result:
        """Run a step eagerly, on the stream that the capture will use."""

    def capture(self, step: Callable[[], Result]) -> Result:
        """Record a step without executing it; return the tensors into which every :meth:`replay` writes its result."""

    def replay(self) -> None:
        """Execute the recorded step."""


class CudaGraph:
    """A step as a CUDA graph, on its own stream as torch requires, synchronised with the caller's stream."""

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
        # thread_local: other threads of this process may use the device during the capture
        with torch.cuda.graph(self._graph, stream=self._stream, capture_error_mode="thread_local"):
            return step()

    def replay(self) -> None:
        self._graph.replay()


class Eager:
    """Runs a stage's steps operator by operator."""

    def __init__(self, stage: Stage, pruner: BackwardPruner | None = None) -> None:
        self.stage, self.pruner = stage, pruner

    def step(self, *batches: Batch) -> Result:
        _prepare(self.stage, self.pruner)
        return self.stage.step(*batches)


class Captured:
    """Runs a stage's steps, most of them by replaying a graph. Must be rebuilt when the stage is attached again.

    The first batch size seen more than ``WARM_UP`` times is captured; other sizes, such as an epoch's last batch, run
    eagerly. A graph keeps the memory of one step's activations; without that much memory all steps run eagerly, and
    ``warn`` is called once. ``work`` counts the gradient evaluations of the step's network; a replay counts those of
    the captured step.
    """

    def __init__(
        self,
        stage: Stage,
        graph: Graph,
        warn: Callable[[str], None] = lambda text: None,
        work: WorkDone | None = None,
        pruner: BackwardPruner | None = None,
    ) -> None:
        self.stage, self.graph, self.warn, self.pruner = stage, graph, warn, pruner
        self.work = work or WorkDone()
        self._images = 0
        self._fits = True
        self._seen: dict[tuple[torch.Size, ...], int] = {}
        self._captured: tuple[torch.Size, ...] | None = None
        self._inputs: list[Batch] = []
        self._result: Result | None = None

    def step(self, *batches: Batch) -> Result:
        """Run one step; the returned loss and number of correct images are overwritten by the next step."""
        _prepare(self.stage, self.pruner)
        sizes = tuple(tensor.shape for batch in batches for tensor in batch)
        if self._captured is None and self._fits:
            seen = self._seen.get(sizes, 0)
            self._seen[sizes] = seen + 1
            if seen < WARM_UP:
                return self.graph.warm_up(lambda: self.stage.step(*batches))
            self._capture(batches)
            self._captured = sizes if self._fits else None
        if sizes != self._captured:
            return self.stage.step(*batches)
        for kept, batch in zip(self._inputs, batches, strict=True):
            for to, tensor in zip(kept, batch, strict=True):
                to.copy_(tensor)
        self.graph.replay()
        self.work.add(self._images)
        assert self._result is not None
        return self._result

    def _capture(self, batches: Sequence[Batch]) -> None:
        self._inputs = [(x.clone(), y.clone()) for x, y in batches]
        before = self.work.gradient_evaluations
        try:
            with self.work.held(True):  # it computes nothing yet
                self._result = self.graph.capture(lambda: self.stage.step(*self._inputs))
                self._images = self.work.gradient_evaluations - before
        except RuntimeError as error:
            # ending a capture that ran out of memory may raise an error of its own over the first
            if isinstance(error, torch.OutOfMemoryError) or isinstance(error.__context__, torch.OutOfMemoryError):
                self._fits, self._inputs, self._result = False, [], None
                self.warn(f"no memory to capture stage {self.stage.name} as a CUDA graph: its steps run eagerly")
                return
            raise RuntimeError(
                f"a step of stage {self.stage.name} cannot be captured as a CUDA graph ({error}): it must not wait for "
                "the device; set capture: false in the trial's config to run it operator by operator"
            ) from error


def _prepare(stage: Stage, pruner: BackwardPruner | None) -> None:
    """Do the host's work before a step."""
    stage.prepare()
    if pruner is not None:
        pruner.prepare()


def stepper(
    stage: Stage,
    net: Net,
    config: TrialConfig,
    warn: Callable[[str], None] = lambda text: None,
    pruner: BackwardPruner | None = None,
) -> Eager | Captured:
    """Return the runner of a stage's steps, for a stage that is attached and has loaded its state.

    Call it again whenever the stage is attached again. The runner is eager if the config turns off ``capture`` or turns
    on ``compile``, if the stage or the ``pruner`` of its backward passes does not support capture, if layers draw random
    numbers, and on devices other than CUDA.
    """
    draws = any(isinstance(module, _RANDOM) for module in net.model.modules())
    asks = config.capture and not config.compile
    regular = stage.captures and (
        stage.recipe.backward is None if pruner is None else pruner.captures(len(stage.streams))
    )
    graph = graph_for(net.device) if asks and regular and not draws else None
    return Eager(stage, pruner) if graph is None else Captured(stage, graph, warn, net.work, pruner)


def graph_for(device: torch.device) -> Graph | None:
    """Return a graph that records steps on a device; None for devices other than CUDA."""
    return CudaGraph(device) if device.type == "cuda" else None
