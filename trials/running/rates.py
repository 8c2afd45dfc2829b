"""How long an epoch of each of a trial's stages takes on this machine: some of its steps, timed. Nothing is kept."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice

import torch

from trials.config.trial_config import TrialConfig
from trials.data import Loader, load_data
from trials.methods import Stage
from trials.methods.registry import METHODS
from trials.running.captured import Epoch, stepper
from trials.running.environment import device_name
from trials.seeding import derive_seed, generator
from trials.sparsity.backward import BackwardPruner
from trials.training.arithmetic import arithmetic_of
from trials.training.build import build_loader, build_net
from trials.training.device import resolve_device, touch
from trials.training.evaluation import EVAL_BATCH, Totals
from trials.training.net import Net
from trials.training.stage_context import StageContext

STEPS = 20
"""Steps that are timed of each stage."""

_FIRST = 5
"""Steps before them: they are slower, since memory is allocated and, on CUDA, a graph is captured."""

MOST_S = 20.0
"""Seconds after which no further step of a stage is run."""

_EVALUATED = 4
"""Batches whose evaluation is timed."""


@dataclass(frozen=True)
class StageKind:
    """What the time of an epoch of a stage depends on: equal kinds take about equally long on equal devices.

    Attributes:
        data_dir: the folder of data of the user's own, whose number of images only the folder knows; otherwise None.
    """

    method: str
    stage: str
    model: str
    dataset: str
    data_dir: str | None
    image_size: int | None
    val_fraction: float
    batch_size: int
    precision: str
    memory_format: str
    tf32: bool
    deterministic: bool
    compile: bool

    @classmethod
    def of(cls, config: TrialConfig, stage: Stage) -> StageKind:
        """Return the kind of a stage of a trial."""
        return cls(
            method=config.method,
            stage=stage.name,
            model=config.model,
            dataset=config.dataset,
            data_dir=config.data_dir if config.published is None else None,
            image_size=config.image_size,
            val_fraction=config.val_fraction,
            batch_size=stage.recipe.batch_size,
            precision=config.precision,
            memory_format=config.memory_format,
            tf32=config.tf32,
            deterministic=config.deterministic,
            compile=config.compile,
        )


@dataclass(frozen=True)
class MeasuredRate:
    """Seconds of an epoch of a kind of stage, its evaluation included; None, and why, if it has no steps to time."""

    kind: StageKind
    seconds: float | None
    problem: str = ""


def measured_on(config: TrialConfig) -> str:
    """Return the name of the device on which a trial of this config would be measured.

    Raises:
        UserError: this machine has no such device.
    """
    return device_name(resolve_device(config.device))


def measured_rates(config: TrialConfig, threads: int = 1) -> Iterator[MeasuredRate]:
    """Yield the rates of the stages of a trial, and before them of those of the shared trials that it starts from.

    The stages run on one network, one after the other, for :data:`STEPS` steps each. It is not trained before, which
    changes no time.

    Args:
        threads: CPU threads to measure with.

    Raises:
        UserError: this machine lacks the data or the device.
    """
    device, before = resolve_device(config.device), torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        with arithmetic_of(config, device), torch.random.fork_rng(devices=[]):
            yield from _Trial(config, device).rates(config)
    finally:
        torch.set_num_threads(before)


class _Trial:
    """A network and data on which the stages of a trial, and of those that it starts from, are timed."""

    def __init__(self, config: TrialConfig, device: torch.device) -> None:
        raw = load_data(*config.data_key)
        self.device = device
        self.data: Loader = build_loader(config, raw, device)
        self.net: Net = build_net(config, raw, device)
        self.evaluation = self._evaluation()

    def _evaluation(self) -> float:
        """Seconds that an evaluation on the validation images takes."""
        batches = list(islice(self.data.eval_batches("val", EVAL_BATCH), _EVALUATED))
        self.net.model.eval()

        def run() -> None:
            with torch.no_grad():
                for x, y in batches:
                    self.net.loss(x, y)

        run()
        images = sum(len(y) for _, y in batches)
        return self._timed(run) * len(self.data.val_indices) / images

    def _timed(self, run: Callable[[], object]) -> float:
        touch(self.device)
        began = time.perf_counter()
        run()
        touch(self.device)
        return time.perf_counter() - began

    def rates(self, config: TrialConfig) -> Iterator[MeasuredRate]:
        method = METHODS[config.method](config)
        source = method.source()
        if source is not None:
            yield from self.rates(source)
        method.initialised(self.net)
        seen: set[StageKind] = set()
        for stage in method.stages():
            kind = StageKind.of(config, stage)
            if kind in seen:
                continue
            seen.add(kind)
            if not stage.streams:
                yield MeasuredRate(kind, None, "it has no steps of its own")
                continue
            try:
                yield MeasuredRate(kind, self._epoch(config, stage) if stage.epochs > stage.first_epoch else 0.0)
            except Exception as error:  # noqa: BLE001  a stage may need what the whole of another leaves
                yield MeasuredRate(kind, None, f"{type(error).__name__}: {error}".partition("\n")[0])
        for epoch in getattr(config, "snapshots", ()):
            self.net.snapshot(f"epoch-{epoch}")

    def _epoch(self, config: TrialConfig, stage: Stage) -> float:
        """Seconds of an epoch: its steps, and the evaluation that follows."""
        stage.arrive(StageContext(self.data, {}, _no_map, derive_seed(config.seed, stage.key), self._reference))
        stage.observe(self.net)
        stage.enter(self.net)
        stage.attach(self.net)
        stage.begin_epoch(stage.first_epoch)
        self.net.model.train()
        totals = Totals.zero(self.device)
        pruner = BackwardPruner(self.net.model, stage.recipe.backward, lambda layer: self._draws(config, stage, layer))
        steps = stepper(stage, self.net, config, lambda text: None, totals, pruner)
        running = self._steps(config, stage, steps.epoch)
        _take(running, _FIRST)
        done = 0

        def run() -> None:
            nonlocal done
            done = _take(running, STEPS)

        seconds = self._timed(run)
        steps.close()
        pruner.remove()
        stage.finished = True
        stage.end_epoch(self.net, stage.first_epoch)
        in_epoch = -(-self.data.train_size // stage.recipe.batch_size)
        return seconds / max(done, 1) * in_epoch + self.evaluation

    def _draws(self, config: TrialConfig, stage: Stage, layer: str) -> torch.Generator:
        return generator(config.seed, stage.key, "backward", layer, device=self.device)

    def _steps(self, config: TrialConfig, stage: Stage, run: Callable[[Epoch], Iterator[None]]) -> Iterator[None]:
        """Yield after every step, over as many epochs as it takes."""
        number = stage.first_epoch
        while True:
            epoch = Epoch(
                self.data,
                seed=derive_seed(config.seed, stage.key),
                number=number,
                streams=stage.streams,
                batch_size=stage.recipe.batch_size,
                augment=config.augment and stage.augment,
            )
            yield from run(epoch)
            number += 1

    def _reference(self, name: str) -> Net:
        return self.net


def _take(steps: Iterator[None], most: int) -> int:
    """Run at most so many steps, and none that would begin after :data:`MOST_S` seconds; return how many ran."""
    began = time.perf_counter()
    for done, _ in enumerate(steps, start=1):
        if done >= most or time.perf_counter() - began >= MOST_S:
            return done
    return 0


def _no_map(function: object, shared: object, items: object) -> list[object]:
    raise RuntimeError("it runs pieces of work")
