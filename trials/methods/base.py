"""What a method is made of: a config, the network it starts from, and stages. Trials run them; see trials/trial.py."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

from trials.config import Recipe, TrialConfig
from trials.seeding import generator
from trials.training import Batch, Net, Sgd


class Stage(ABC):
    """One stretch of training under one rule: what changes on entry, what is trained, and what one step is.

    A trial calls ``enter`` once in the trial's life, ``attach`` whenever a process takes the stage up (then
    ``load_state_dict``, if it was begun before), ``begin_epoch`` before every epoch and ``step`` for every batch.

    Attributes:
        name: as it stands in the rows: pretrain, prune, finetune, train.
        level: the round of an iterative method; 0 elsewhere.
        epochs: how many epochs the stage trains.
        streams: one independently shuffled pass over the training images each; a step gets one batch of each.
        changes_network: ``enter`` changes what the network computes; then a row with epoch 0 says what it did.
    """

    streams: ClassVar[tuple[str, ...]] = ("train",)
    changes_network: bool = False

    def __init__(self, name: str, recipe: Recipe, *, level: int = 0, first_epoch: int = 0) -> None:
        self.name = name
        self.level = level
        self.recipe = recipe
        self.first_epoch = first_epoch
        self.epochs = recipe.epochs + recipe.warmup_epochs
        self.schedule = recipe.lr_schedule()

    @property
    def key(self) -> str:
        """Names the stage within its trial; its random numbers are derived from it."""
        return f"{self.name}-{self.level}"

    def enter(self, net: Net) -> None:  # noqa: B027  not every stage has something to do here
        """Change the network, once. Nothing by default."""

    @abstractmethod
    def attach(self, net: Net) -> None:
        """Take hold of the network: build optimisers and the method's own tensors."""

    @abstractmethod
    def begin_epoch(self, epoch: int) -> None:
        """Set what depends on the epoch (0-based)."""

    @abstractmethod
    def step(self, *batches: Batch) -> tuple[Tensor, Tensor]:
        """One step: the loss (a scalar on the device) and how many images of the first batch were right."""

    def end_epoch(self, net: Net, epoch: int) -> None:  # noqa: B027  nor here
        """After the last step of an epoch (0-based). Nothing by default."""

    def columns(self) -> dict[str, float]:
        """What the stage adds to its rows: current hyperparameters."""
        return {}

    @abstractmethod
    def state_dict(self) -> dict[str, Any]:
        """Everything beside the network that the next step depends on, as tensors, numbers and strings."""

    @abstractmethod
    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from :meth:`state_dict`, after :meth:`attach`."""


class TrainStage(Stage):
    """Plain SGD on all parameters. Where the network has masks, what they switch off stays exactly zero."""

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
    """A published way to prune, as the stages it goes through."""

    Config: ClassVar[type[TrialConfig]]

    def __init__(self, config: Any) -> None:
        self.config = config

    def source(self) -> TrialConfig | None:
        """The trial whose resulting network this one starts from; None starts from initialisation."""
        return None

    def initialised(self, net: Net) -> None:  # noqa: B027  most methods have nothing to do here
        """Called with the network as its seed initialises it, before the source is loaded. Nothing by default."""

    @abstractmethod
    def stages(self) -> Iterator[Stage]:
        """The stages, in order; the same ones whenever it is called."""


def generator_for(config: TrialConfig, *purpose: int | str) -> torch.Generator:
    """The CPU generator for one purpose of one trial."""
    return generator(config.seed, *purpose)
