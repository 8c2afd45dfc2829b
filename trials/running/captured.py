"""Run the steps of a stage, epoch by epoch: operator by operator, or as a CUDA graph that is replayed.

One replay does a whole step: it cuts the batches out of the images on the device, trains, and adds to the epoch's sums.
The host draws an epoch's order and augmentation, copies them into the tensors that the graph reads, and then only
launches replays. What the host must do between steps belongs in :meth:`trials.methods.Stage.prepare`.

Steps to which batches were copied ran on one H200 (torch 2.11): ten replays gave the bits of ten eager steps
(results/measured/gpu). Cutting batches and adding to the sums within the graph have not run on a GPU yet.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from itertools import repeat

from torch import Tensor

from trials.config.trial_config import TrialConfig
from trials.data.loader import Batch, FixedBatches, Loader
from trials.methods.base import Stage
from trials.sparsity.backward import BackwardPruner
from trials.training import graphs
from trials.training.evaluation import Totals
from trials.training.net import Net

Result = tuple[Tensor, Tensor]
"""What a step returns: the loss, and the number of correct images, as scalars on the device."""


@dataclass(frozen=True)
class Epoch:
    """The batches of one epoch of a stage, from batch ``start`` on; ``streams`` as in :class:`trials.methods.Stage`."""

    data: Loader
    seed: int
    number: int
    streams: tuple[str, ...]
    batch_size: int
    augment: bool
    start: int = 0

    def batches(self) -> Iterator[tuple[Batch, ...]]:
        """Yield a batch of every stream per step; without streams, endless empty tuples."""
        passes = [
            self.data.batches(
                seed=self.seed,
                epoch=self.number,
                stream=stream,
                batch_size=self.batch_size,
                start=self.start,
                augment=self.augment,
            )
            for stream in self.streams
        ]
        yield from zip(*passes, strict=True) if passes else repeat(())

    def fixed(self) -> list[FixedBatches]:
        """What cuts each stream's full batches on the device; empty if the images do not lie there."""
        cutters = [self.data.fixed_batches("train", self.batch_size, augment=self.augment) for _ in self.streams]
        return [cutter for cutter in cutters if cutter is not None]

    def begin(self, cutters: Sequence[FixedBatches]) -> None:
        """Let the cutters begin this epoch."""
        for stream, cutter in zip(self.streams, cutters, strict=True):
            cutter.begin((self.seed, stream, self.number), self.start)


class Eager:
    """Runs a stage's steps operator by operator, and adds to ``totals``. ``pruner``: of the stage's backward passes."""

    def __init__(self, stage: Stage, totals: Totals, pruner: BackwardPruner | None = None) -> None:
        self.stage, self.totals, self.pruner = stage, totals, pruner

    def epoch(self, epoch: Epoch) -> Iterator[None]:
        """Run the steps of an epoch, one per item."""
        for batches in epoch.batches():
            self.step(*batches)
            yield

    def step(self, *batches: Batch) -> None:
        """Run one step on these batches."""
        self._prepare()
        self._run(batches)

    def close(self) -> None:
        """Free what the steps of this stage needed beside the stage itself."""

    def _prepare(self) -> bool:
        """Do the host's work before a step; return whether the step is the same program as the last one."""
        if self.pruner is not None:
            self.pruner.prepare()
        return self.stage.prepare()

    def _run(self, batches: Sequence[Batch]) -> None:
        images = len(batches[0][1]) if batches else 0
        self.totals.add(*self.stage.step(*batches), images)


class Captured(Eager):
    """Runs a stage's steps, most of them by replaying a graph. Must be rebuilt when the stage is attached again.

    The steps on full batches are captured after :data:`~trials.training.graphs.WARM_UP` eager ones; smaller ones, such
    as an epoch's last, run eagerly. A graph keeps the memory of one step's activations; without that much memory all
    steps run eagerly, and ``warn`` is called once. Where :meth:`~trials.methods.Stage.prepare` says that the coming
    step is another program, that one is captured in turn.
    """

    def __init__(
        self,
        stage: Stage,
        net: Net,
        totals: Totals,
        graph: graphs.Graph,
        warn: Callable[[str], None] = lambda text: None,
        pruner: BackwardPruner | None = None,
    ) -> None:
        super().__init__(stage, totals, pruner)
        self.net, self.graph, self.warn = net, graph, warn
        self.cutters: list[FixedBatches] = []
        self.inputs: list[Batch] = []
        self.program: graphs.Program | None = None
        self._other = False  # whether a step since the last capture was another program
        self._full = 0  # images of a full batch, once known
        self._images = 0

    def epoch(self, epoch: Epoch) -> Iterator[None]:
        self._full = epoch.batch_size
        self.cutters = self.cutters or epoch.fixed()
        if not self.cutters:
            yield from super().epoch(epoch)
            return
        epoch.begin(self.cutters)
        full = self.cutters[0].count
        for _ in range(epoch.start, full):
            self._advance(self._cut_and_step, self._full)
            yield
        rest = [batch for cutter in self.cutters if (batch := cutter.rest()) is not None]
        if rest and epoch.start <= full:
            super().step(*rest)
            yield

    def step(self, *batches: Batch) -> None:
        self._full = self._full or len(batches[0][1])
        if len(batches[0][1]) != self._full:
            super().step(*batches)
            return
        if not self.inputs:
            self.inputs = [(x.clone(), y.clone()) for x, y in batches]
        for kept, batch in zip(self.inputs, batches, strict=True):
            for to, tensor in zip(kept, batch, strict=True):
                to.copy_(tensor)
        self._advance(partial(self._sum, self.inputs), len(batches[0][1]))

    def close(self) -> None:
        if self.program is not None:
            self.program.close()
        self.program = None

    def _prepare(self) -> bool:
        self._other |= not super()._prepare()
        return not self._other

    def _cut_and_step(self) -> None:
        self._sum([cutter.cut() for cutter in self.cutters])

    def _sum(self, batches: Sequence[Batch]) -> None:
        """Run a step and add to the sums on the device; nothing that the host counts."""
        self.totals.add_on_device(*self.stage.step(*batches), len(batches[0][1]))

    def _advance(self, function: Callable[[], None], images: int) -> None:
        """Run one step of ``images`` images, by a replay if possible, and count on the host what a replay does not."""
        self._prepare()
        if self.program is None:
            self.program = self._program(function, self.graph)
        elif self._other:
            self.program.close()
            graph = new_graph(self.net, self.pruner)
            assert graph is not None
            self.program = self._program(function, graph)
        self._other = False
        if self.program.run():
            self.net.work.add(self._images)
        self.totals.count += images

    def _program(self, function: Callable[[], None], graph: graphs.Graph) -> graphs.Program:
        def counted() -> None:
            before = self.net.work.gradient_evaluations
            function()
            self._images = self.net.work.gradient_evaluations - before

        name = f"a step of stage {self.stage.name}"
        return graphs.Program(counted, graph, name, recording=self._recorded, warn=self.warn)

    @contextmanager
    def _recorded(self) -> Iterator[None]:
        """Within it, a step is recorded: what the host counts of its passes is not counted."""
        with self.net.recorded(), nullcontext() if self.pruner is None else self.pruner.uncounted():
            yield


def stepper(
    stage: Stage,
    net: Net,
    config: TrialConfig,
    warn: Callable[[str], None] = lambda text: None,
    totals: Totals | None = None,
    pruner: BackwardPruner | None = None,
) -> Eager:
    """Return what runs a stage's steps, for a stage that is attached and has loaded its state.

    Call it again whenever the stage is attached again. Steps run eagerly if the config turns off ``capture``, if the
    stage or the ``pruner`` of its backward passes does not support it, if it has no batches, and on devices other than
    CUDA. ``totals``: the sums to which steps add.
    """
    totals = totals or Totals.zero(net.device)
    fixed = stage.recipe.backward is None or (pruner is not None and pruner.captures(len(stage.streams)))
    if not config.capture or not stage.captures or not stage.streams or not fixed:
        return Eager(stage, totals, pruner)
    graph = new_graph(net, pruner)
    return Eager(stage, totals, pruner) if graph is None else Captured(stage, net, totals, graph, warn, pruner)


def new_graph(net: Net, pruner: BackwardPruner | None) -> graphs.Graph | None:
    """A graph for steps of ``net``, which knows what the pruner draws from; None where nothing is captured."""
    return graphs.graph_for(net.device, () if pruner is None else tuple(pruner.generators.values()))
