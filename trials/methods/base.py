"""What a method is made of: a config, the network it starts from, and stages. trials/running/ runs them."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

from trials.config.recipes import OpenRecipe, Recipe
from trials.config.trial_config import TrialConfig
from trials.seeding import generator
from trials.training.net import Batch, Net
from trials.training.optimizers import Sgd
from trials.training.stage_context import StageContext


class Stage(ABC):
    """One stretch of training under one rule: what changes on entry, what is trained, and what one step is.

    A trial calls ``observe`` and ``enter`` once in the trial's life, ``attach`` whenever a process takes the stage up
    (then ``load_state_dict``, if it was begun before), ``begin_epoch`` before every epoch, ``prepare`` and ``step`` for
    every batch.

    Attributes:
        name: as it stands in the rows: pretrain, prune, finetune, train.
        level: the round of an iterative method; 0 elsewhere.
        epochs: how many epochs the stage trains; infinity for a stage that says itself when it is ``finished``.
        streams: one independently shuffled pass over the training images each; a step gets one batch of each. Where
            there are none, a step gets none, and an epoch lasts until the stage is ``finished``.
        augment: training images come augmented, if the config says so; False: as they are.
        finished: the stage ends here, also within an epoch; asked, without waiting for the device, after every step
            and, once more, when an epoch has been assessed.
        captures: ``step`` may be captured once and replayed (:mod:`trials.running.captured`): it does the same
            operations on the same tensors every time, waits for no device, draws no random numbers and counts nothing
            on the host. What it leaves for the next step or for others, it writes into tensors that were there before.
        changes_network: ``enter`` changes what the network computes; then a row with epoch 0 says what it did.
    """

    streams: ClassVar[tuple[str, ...]] = ("train",)
    augment: ClassVar[bool] = True
    captures: bool = False
    changes_network: bool = False
    finished: bool = False

    def __init__(self, name: str, recipe: OpenRecipe, *, level: int = 0, first_epoch: int = 0) -> None:
        self.name = name
        self.level = level
        self.recipe = recipe
        self.first_epoch = first_epoch
        self.epochs = recipe.all_epochs
        self.schedule = recipe.lr_schedule()

    @property
    def key(self) -> str:
        """Names the stage within its trial; its random numbers are derived from it."""
        return f"{self.name}-{self.level}"

    def arrive(self, context: StageContext) -> None:
        """Called before anything else with what the stage works with, which is kept as ``context``."""
        self.context = context

    def observe(self, net: Net) -> None:  # noqa: B027  most stages need no images before they begin
        """Look at the context's images or other networks once, right before ``enter``, e.g. for gradients of scores.

        It must not change the network. By default it does nothing."""

    @property
    def planned_epochs(self) -> int:
        """How many epochs it is sure to train: none if it says itself when it is finished."""
        return int(self.epochs) - self.first_epoch if math.isfinite(self.epochs) else 0

    def enter(self, net: Net) -> None:  # noqa: B027  not every stage has something to do here
        """Change the network, once. Nothing by default."""

    @abstractmethod
    def attach(self, net: Net) -> None:
        """Take hold of the network: build optimisers and the method's own tensors."""

    @abstractmethod
    def begin_epoch(self, epoch: int) -> None:
        """Set what depends on the epoch (0-based)."""

    def prepare(self) -> None:  # noqa: B027  most stages change nothing from step to step
        """What the host does before every step: rates that follow the steps, counters. Nothing by default."""

    @abstractmethod
    def step(self, *batches: Batch) -> tuple[Tensor, Tensor]:
        """One step: the loss (a scalar on the device) and how many images of the first batch were right."""

    def end_epoch(self, net: Net, epoch: int) -> None:  # noqa: B027  nor here
        """After the last step of an epoch (0-based), or of the stage. Nothing by default."""

    def assess(self, net: Net, epoch: int, val_accuracy: float) -> None:  # noqa: B027  nor here
        """Told how an epoch (1-based) went; may make the stage ``finished``. Nothing by default."""

    def leave(self, net: Net) -> bool:
        """The last chance to change the network; whether it did."""
        return False

    def columns(self) -> dict[str, float]:
        """What the stage adds to its rows: current hyperparameters."""
        return {}

    def layer_columns(self) -> Mapping[str, Mapping[str, float]]:
        """What the stage adds to the layers' rows, by the weight's name."""
        return {}

    @abstractmethod
    def state_dict(self) -> dict[str, Any]:
        """Everything beside the network that the next step depends on, as tensors, numbers and strings."""

    @abstractmethod
    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from :meth:`state_dict`, after :meth:`attach`."""


class TrainStage(Stage):
    """Plain SGD on all parameters. Where the network has masks, what they switch off stays exactly zero."""

    captures = True

    def __init__(
        self,
        name: str,
        recipe: Recipe,
        *,
        level: int = 0,
        first_epoch: int = 0,
        snapshot_epochs: Sequence[int] = (),
    ) -> None:
        super().__init__(name, recipe, level=level, first_epoch=first_epoch)
        self.snapshot_epochs = frozenset(snapshot_epochs)

    def attach(self, net: Net) -> None:
        self.net = net
        self.sgd = Sgd.of(self.recipe, net.model.parameters())
        parameters = dict(net.model.named_parameters())
        self.masked = [(parameters[name], multiplier) for name, multiplier in net.multipliers().items()]

    def begin_epoch(self, epoch: int) -> None:
        self.sgd.set_lr(self.schedule(epoch))

    def step(self, *batches: Batch) -> tuple[Tensor, Tensor]:
        loss, correct = self.net.loss(*batches[0])
        self.sgd.zero_grad()
        torch.autograd.backward(loss)
        for parameter, multiplier in self.masked:
            assert parameter.grad is not None
            parameter.grad.mul_(multiplier)
        self.sgd.step()
        return loss.detach(), correct

    def end_epoch(self, net: Net, epoch: int) -> None:
        if epoch + 1 in self.snapshot_epochs:
            net.snapshot(f"epoch-{epoch + 1}")

    def columns(self) -> dict[str, float]:
        return {"lr": float(self.sgd.lr)}

    def state_dict(self) -> dict[str, Any]:
        return {"sgd": self.sgd.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.sgd.load_state_dict(state["sgd"])


class Method(ABC):
    """A published way to prune, as the stages it goes through.

    Attributes:
        stoppable: names of the stages whose epochs tell what the trial will come to: in them a search may stop it.
        reports: numbers in the last row of its trials, beside those that every trial reports; part of the result.
        mutable: hyperparameters, by dotted path, that may change between epochs of the first stage, as population
            based training does. Whoever names one promises that a stage built with another value, attached and given
            the old one's ``state_dict``, uses the new value in its next step.
    """

    Config: ClassVar[type[TrialConfig]]
    stoppable: ClassVar[tuple[str, ...]] = ()
    reports: ClassVar[tuple[str, ...]] = ()
    mutable: ClassVar[frozenset[str]] = frozenset()

    def __init__(self, config: Any) -> None:
        self.config = config

    def source(self) -> TrialConfig | None:
        """The trial whose resulting network this one starts from; None starts from initialisation."""
        return None

    def references(self) -> Mapping[str, TrialConfig]:
        """Other trained networks that a stage looks at (:attr:`StageContext.network`), by name, as the dense
        trials that train them: shared like a source. None by default."""
        return {}

    def initialised(self, net: Net) -> None:  # noqa: B027  most methods have nothing to do here
        """Called with the network as its seed initialises it, before the source is loaded. Nothing by default."""

    @abstractmethod
    def stages(self) -> Iterator[Stage]:
        """The stages, in order; the same ones whenever it is called."""


def generator_for(config: TrialConfig, *purpose: int | str) -> torch.Generator:
    """The CPU generator for one purpose of one trial."""
    return generator(config.seed, *purpose)


def mutable_of(recipe: str) -> frozenset[str]:
    """What of a recipe may change between epochs."""
    return frozenset(f"{recipe}.{name}" for name in ("lr", "momentum", "weight_decay", "batch_size", "schedule"))
