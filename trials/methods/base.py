"""Base classes of pruning methods (config, starting network, stages) and of their stages. trials/running/ runs them."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from trials.config.recipes import OpenRecipe, Recipe
from trials.config.trial_config import TrialConfig
from trials.data_header import DataHeader
from trials.errors import UserError
from trials.methods.asked import AskedShare
from trials.methods.budgets import LeftLayer
from trials.methods.patience import Patience
from trials.methods.planned import PlannedDensity, planned_by_asking
from trials.seeding import generator
from trials.training.net import Batch, Net
from trials.training.optimizers import Sgd
from trials.training.stage_context import StageContext


class Stage(ABC):
    """A phase of a trial: how it changes the network on entry, what it trains, and what one step does.

    A trial calls ``observe`` and ``enter`` once, ``attach`` in every process that runs the stage (followed by
    ``load_state_dict`` if the stage has already begun), ``begin_epoch`` once or several times before an epoch, and
    ``prepare`` and ``step`` for every batch.

    Attributes:
        name: name in the rows: pretrain, prune, finetune, train.
        level: round of an iterative method; 0 for other methods.
        epochs: number of epochs; infinity for a stage that sets ``finished`` itself.
        streams: names of independently shuffled passes over the training images. A step gets one batch per stream.
            Without streams a step gets no batch, and an epoch lasts until the stage is ``finished``.
        augment: whether training images are augmented where the config allows it.
        training_mode: whether ``step`` runs the model in training mode, where BN needs more than one value per channel.
        finished: whether the stage ends now, possibly within an epoch. Read after every step and after every
            ``assess``, so reading it must not wait for the device.
        captures: whether ``step`` may be captured once and replayed (:mod:`trials.running.captured`). Such a step runs
            the same operations on the same tensors every time, does not wait for the device, draws no random numbers
            and keeps no counters on the host. It writes its results into tensors that already exist.
        changes_network: whether ``enter`` changes what the network computes; if so, a row with epoch 0 reports the
            changed network.
    """

    streams: ClassVar[tuple[str, ...]] = ("train",)
    augment: ClassVar[bool] = True
    training_mode: ClassVar[bool] = True
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
        """Name of the stage within its trial; seeds its random numbers."""
        return f"{self.name}-{self.level}"

    def arrive(self, context: StageContext) -> None:
        """Store ``context``, which gives the stage data and rows. Called before any other method."""
        self.context = context

    def observe(self, net: Net) -> None:  # noqa: B027  most stages need no images before they begin
        """Read images or other networks from the context, e.g. to compute gradients for scores.

        Called once, right before ``enter``. Must not change the network. Does nothing by default."""

    @property
    def planned_epochs(self) -> int:
        """Guaranteed number of epochs; 0 for stages that decide when to stop."""
        return int(self.epochs) - self.first_epoch if math.isfinite(self.epochs) else 0

    def enter(self, net: Net) -> None:  # noqa: B027  not every stage has something to do here
        """Change the network. Called once per trial; does nothing by default."""

    @abstractmethod
    def attach(self, net: Net) -> None:
        """Build the optimisers and the method's own tensors for ``net``."""

    @abstractmethod
    def begin_epoch(self, epoch: int) -> None:
        """Set what depends on the epoch (0-based), such as learning rates.

        May be called several times for one epoch (for the row of epoch 0, and on resume), so it must not count.
        """

    def prepare(self) -> bool:
        """Do the host's work before a step, e.g. per-step learning rates and counters. Does nothing by default.

        It may rewrite tensors that the step reads, masks among them. Returns whether the coming step runs the same
        operations on the same tensors as the last one; if not, a captured step is captured anew."""
        return True

    @abstractmethod
    def step(self, *batches: Batch) -> tuple[Tensor, Tensor]:
        """Run one step. Return the loss and the number of correct images in the first batch, scalars on the device."""

    def end_epoch(self, net: Net, epoch: int) -> None:  # noqa: B027  nor here
        """Called after the last step of an epoch (0-based) or of the stage. Does nothing by default."""

    def assess(self, net: Net, epoch: int, val_accuracy: float) -> None:  # noqa: B027  nor here
        """Called with the validation accuracy after each epoch (1-based); may set ``finished``; nothing by default."""

    @property
    def selects(self) -> bool:
        """Whether the stage by itself ends with its best epoch, if the config's ``report`` says nothing else."""
        return False

    def columns(self) -> dict[str, float]:
        """Columns that the stage adds to its rows, such as current hyperparameters; their values as JSON has them."""
        return {}

    def layer_columns(self) -> Mapping[str, Mapping[str, float]]:
        """Columns that the stage adds to the per-layer rows, by weight name."""
        return {}

    @abstractmethod
    def state_dict(self) -> dict[str, Any]:
        """All state outside the network that the next step depends on, as tensors, numbers and strings."""

    @abstractmethod
    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore :meth:`state_dict`. Called after :meth:`attach`."""


class TrainStage(Stage):
    """SGD on all parameters under the network's masks: masked weights stay exactly zero.

    A recipe with a ``patience`` (:class:`~trials.config.recipes.PretrainRecipe`) ends it early, with the best epoch's
    network, but not before all snapshots are taken.
    """

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
        self.patience = Patience(getattr(recipe, "patience", None))

    def attach(self, net: Net) -> None:
        self.net = net
        self.sgd = Sgd.of(self.recipe, net.model.parameters())

    def begin_epoch(self, epoch: int) -> None:
        self.sgd.set_lr(self.schedule(epoch))

    def step(self, *batches: Batch) -> tuple[Tensor, Tensor]:
        found = self.net.backward(*batches[0])
        self.net.mask_gradients()
        self.sgd.step()
        return found

    def end_epoch(self, net: Net, epoch: int) -> None:
        if epoch + 1 in self.snapshot_epochs:
            net.snapshot(f"epoch-{epoch + 1}")

    def assess(self, net: Net, epoch: int, val_accuracy: float) -> None:
        over = self.patience.ends(epoch, val_accuracy)
        self.finished = over and epoch >= max(self.snapshot_epochs, default=0)

    @property
    def selects(self) -> bool:
        return self.patience.epochs is not None

    def columns(self) -> dict[str, float]:
        return {"lr": float(self.sgd.lr)}

    def state_dict(self) -> dict[str, Any]:
        return {"sgd": self.sgd.state_dict(), **({"patience": self.patience.state_dict()} if self.selects else {})}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.sgd.load_state_dict(state["sgd"])
        if self.selects:
            self.patience.load_state_dict(state["patience"])


class Method(ABC):
    """A published pruning method: a config and the sequence of stages that it runs.

    Attributes:
        stoppable: names of the stages in which a search may stop a trial, because their accuracy predicts its result.
        reports: columns of the last row that are part of the result, beside those of every trial; no config's fields.
        mutable: hyperparameters, by dotted path, that may change between epochs of the first stage, as in population
            based training. A stage built with a new value, attached and given the old stage's ``state_dict`` must use
            the new value in its next step.
        takes_masks: whether the method goes on from the mask of a file that it starts from (``source_net``).
        takes_compact: whether the method runs on a compact network that it starts from.
        prunes: names of the patterns that the method prunes by, if the type of its config's field does not say them.
    """

    Config: ClassVar[type[TrialConfig]]
    stoppable: ClassVar[tuple[str, ...]] = ()
    reports: ClassVar[tuple[str, ...]] = ()
    mutable: ClassVar[frozenset[str]] = frozenset()
    takes_masks: ClassVar[bool] = False
    takes_compact: ClassVar[bool] = False
    prunes: ClassVar[tuple[str, ...]] = ()

    def __init__(self, config: Any) -> None:
        self.config = config

    def source(self) -> TrialConfig | None:
        """The trial whose final network this one starts from; None to start from initialisation."""
        return None

    def references(self) -> Mapping[str, TrialConfig]:
        """Dense trials whose trained networks the stages read (:attr:`StageContext.network`), by name.

        They are shared trials, as a source is. Empty by default."""
        return {}

    def check(self, model: nn.Module, data: DataHeader) -> None:  # noqa: B027  some methods prune any model
        """Check that the method can run on this model and data, before anything is trained.

        ``model`` is the built model on the meta device: it has shapes, but no values. Called through
        :func:`trials.methods.preconditions.require_runnable`, also for the trials that this one starts from.

        Raises:
            UserError: it cannot; the message names all layers that stand in the way, and the way out."""

    def check_start(self, density: float | None, *, compact: bool) -> None:
        """Check that the method can start from a file's network (``source_net``) and would not drop its mask.

        Args:
            density: of the network's mask; None without a mask.
            compact: whether the network is smaller than the model.

        Raises:
            UserError: it cannot; the message names the way out."""
        method, file = self.config.method, f"source_net is {self.config.source_net!r}, which"
        if density is not None and not self.takes_masks:
            has = "holds a compact network with a mask of what could not be cut" if compact else "has a mask"
            starts = ways = "dense weights"
            if compact and self.takes_compact:
                starts = "dense weights or a compact network without a mask,"
                ways = "dense weights, a compact network without a mask (couple: true makes one)"
            raise UserError(
                f"{file} {has} (density {density:.4g}), but {method} starts from {starts} and would drop it: give "
                f"{ways}, or a method that goes on from a mask (finetune, imp, one_shot, prune_iterative)"
            )
        if compact and not self.takes_compact:
            raise UserError(
                f"{file} holds a compact network, but {method} needs the whole model: give weights of that, or a "
                "method that runs on a compact network (adaptive_sparsity, bip, finetune, hydra, imp, one_shot, "
                "prune_iterative)"
            )

    def check_left(self, layers: Sequence[LeftLayer]) -> None:  # noqa: B027  most methods count no budgets
        """Check what the budgets leave of the network that a file gives (``source_net``); ``check`` has passed.

        Called only where a file gives the network: ``check`` then leaves the budgets to this.

        Args:
            layers: of that network, in the model's order, with their own shapes and what its mask keeps.

        Raises:
            UserError: the method cannot prune it as asked; the message names all layers in the way, and the way out."""

    def check_network(self, model: nn.Module) -> None:  # noqa: B027  most budgets are of single layers
        """As :meth:`check_left`, for what the network's connections decide.

        Args:
            model: that network on the meta device, as small as the file's.

        Raises:
            UserError: the method cannot prune it as asked."""

    def check_trials(self, model: nn.Module) -> None:  # noqa: B027  most methods name no other trials
        """Check that the finished trials whose folders the config names fit ``model``, on the meta device.

        Depends on the config's method, model, pattern or unit, and on these folders only.

        Raises:
            UserError: one of them does not; the message names the way out."""

    def asked(self, model: nn.Module, stage: Stage) -> tuple[AskedShare, ...]:
        """What is asked of the network while ``stage`` trains it; nothing by default.

        ``model`` is the dense model, or the compact one that the trial started from. Trials whose network differs are
        marked (:mod:`trials.running.degenerate`)."""
        return ()

    def planned_density(self, stage: Stage) -> PlannedDensity | None:
        """What decides the density while ``stage`` trains, for pruners (:mod:`.planned`); None if it is not known."""
        return planned_by_asking(self.config, lambda model: self.asked(model, stage))

    def initialised(self, net: Net) -> None:  # noqa: B027  most methods have nothing to do here
        """Called with the freshly built network, before the source is loaded. Does nothing by default.

        It has its initial values if the trial starts from them, or if :attr:`reads_initial_values`; else they are NaN.
        """

    @property
    def reads_initial_values(self) -> bool:
        """Whether :meth:`initialised` reads the network's values, also in a trial that starts from another network."""
        return type(self).initialised is not Method.initialised

    @abstractmethod
    def stages(self) -> Iterator[Stage]:
        """The stages in order; every call yields the same sequence."""


def generator_for(config: TrialConfig, *purpose: int | str) -> torch.Generator:
    """The CPU random generator for one purpose of a trial, derived from the trial's seed."""
    return generator(config.seed, *purpose)


def mutable_of(recipe: str) -> frozenset[str]:
    """Dotted paths of the fields of a recipe that may change between epochs."""
    return frozenset(f"{recipe}.{name}" for name in ("lr", "momentum", "weight_decay", "batch_size", "schedule"))
