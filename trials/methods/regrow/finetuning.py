"""Finetuning with AdamW, stopped early where it gets no better; after iterative pruning and after regrowth."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Annotated, Any, Literal

import torch
from pydantic import Field, ValidationInfo, field_validator
from torch import Tensor

from trials.config.recipes import Recipe, one_of
from trials.errors import shown
from trials.methods.base import Stage
from trials.methods.patience import Patience
from trials.training.net import Batch, Net
from trials.training.optimizers import AdamW
from trials.training.stage_context import StageContext
from trials.training.strides import beside

BEFORE = "masks_before_regrowth"
"""Name of the snapshot that holds the masks from before the last regrowth."""


class AdamWRecipe(Recipe):
    """AdamW, 40 epochs at a constant learning rate.

    The network of the epoch with the best validation accuracy counts, unless the trial's ``report`` is ``last``.

    Attributes:
        momentum: beta1, the decay of Adam's first moment.
        weight_decay: decoupled from the gradient, as in AdamW.
        schedule: ``constant``, or ``cosine`` over all steps.
        warmup_share: share of all steps in which the learning rate rises linearly from 0.
        patience: stop after this many epochs without a better one; null never stops early. It only ends the training:
            which epoch counts is decided by ``report``.
    """

    epochs: int = Field(default=40, ge=0)
    lr: float = Field(default=3e-4, gt=0)
    weight_decay: float = Field(default=0.01, ge=0)
    schedule: Annotated[str, one_of(("constant", "cosine"))] = "constant"
    warmup_share: float = Field(default=0.0, ge=0, lt=1)
    patience: int | None = Field(default=None, ge=1)

    @field_validator("warmup_epochs", "warmup_lr", "lr_steps")
    @classmethod
    def _goes_by_steps(cls, value: object, info: ValidationInfo) -> object:
        if value != Recipe.model_fields[str(info.field_name)].default:
            instead = "schedule and lr" if info.field_name == "lr_steps" else "warmup_share"
            raise ValueError(
                f"{info.field_name} is {shown(value)}, but AdamW sets its rate after every step: give {instead} instead"
            )
        return value

    def lr_after(self, progress: float) -> float:
        """The learning rate after the share ``progress`` of all steps, in [0, 1)."""
        if progress < self.warmup_share:
            return self.lr * progress / self.warmup_share
        if self.schedule == "constant":
            return self.lr
        return self.lr * 0.5 * (1 + math.cos(math.pi * (progress - self.warmup_share) / (1 - self.warmup_share)))


class RegrownRecipe(AdamWRecipe):
    """Finetuning after regrowth, with a separate rule for weights that were already kept before it (old weights).

    Attributes:
        regrown: how old weights train: ``all``, like regrown ones; ``frozen``, not at all; ``differential``, at
            ``lr_old``; ``progressive``, frozen for ``frozen_epochs``, differential for ``differential_epochs``, then
            like regrown ones. Applied weight by weight; biases, BN and layers without masks always train.
        lr_old: learning rate of old weights with ``differential``.
        frozen_epochs: with ``progressive``, epochs in which old weights are frozen.
        differential_epochs: with ``progressive``, the epochs at ``lr_old`` after these.
    """

    regrown: Literal["all", "frozen", "differential", "progressive"] = "all"
    lr_old: float = Field(default=1e-5, ge=0)
    frozen_epochs: int = Field(default=50, ge=0)
    differential_epochs: int = Field(default=150, ge=0)

    def phase(self, epoch: int) -> str:
        """How old weights train in an epoch (0-based): all, frozen or differential."""
        if self.regrown != "progressive":
            return self.regrown
        if epoch < self.frozen_epochs:
            return "frozen"
        return "differential" if epoch < self.frozen_epochs + self.differential_epochs else "all"


class Finetune(Stage):
    """Train the kept weights with AdamW, until the last epoch or the end of the patience."""

    captures = True
    recipe: AdamWRecipe

    def __init__(self, name: str, recipe: AdamWRecipe, *, level: int = 0) -> None:
        super().__init__(name, recipe, level=level)
        self.done = 0
        self.patience = Patience(recipe.patience)

    def arrive(self, context: StageContext) -> None:
        super().arrive(context)
        self.all_steps = max(1, self.recipe.epochs * context.data.steps(self.recipe.batch_size))

    def attach(self, net: Net) -> None:
        self.net = net
        recipe = self.recipe
        self.adam = AdamW(net.model.parameters(), lr=recipe.lr, beta1=recipe.momentum, weight_decay=recipe.weight_decay)

    def begin_epoch(self, epoch: int) -> None:
        pass

    def prepare(self) -> bool:
        self.adam.set_lr(self.recipe.lr_after(self.done / self.all_steps))
        self.done += 1
        return True

    def step(self, *batches: Batch) -> tuple[Tensor, Tensor]:
        found = self.net.backward(*batches[0])
        self.net.mask_gradients()
        self.move()
        return found

    def move(self) -> None:
        """Run the optimiser step."""
        self.adam.step()

    def assess(self, net: Net, epoch: int, val_accuracy: float) -> None:
        self.finished = self.patience.ends(epoch, val_accuracy)

    def columns(self) -> dict[str, float]:
        return {"lr": float(self.adam.lr)}

    def state_dict(self) -> dict[str, Any]:
        return {"adam": self.adam.state_dict(), "done": self.done, "best": self.patience.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.adam.load_state_dict(state["adam"])
        self.done = state["done"]
        self.patience.load_state_dict(state["best"])


class FinetuneRegrown(Finetune):
    """Finetuning in which weights kept before the last regrowth may train slower (see :class:`RegrownRecipe`)."""

    recipe: RegrownRecipe

    def __init__(self, name: str, recipe: RegrownRecipe, *, level: int = 0) -> None:
        super().__init__(name, recipe, level=level)

    def attach(self, net: Net) -> None:
        super().attach(net)
        parameters = dict(net.model.named_parameters())
        before = net.snapshots[BEFORE] if self.recipe.regrown != "all" else {}
        self.old = list(before.values())
        self.weights: list[Tensor] = [parameters[name] for name in before]
        self.paces = [beside(weight, torch.ones_like(weight)) for weight in self.weights]
        self.slower = self._was_slower = False

    def begin_epoch(self, epoch: int) -> None:
        phase = self.recipe.phase(epoch)
        self.slower = bool(self.old) and phase != "all"
        if self.slower:
            of_old = 0.0 if phase == "frozen" else self.recipe.lr_old / self.recipe.lr
            for pace, old in zip(self.paces, self.old, strict=True):
                pace.copy_(torch.where(old, of_old, 1.0))

    def prepare(self) -> bool:
        same = super().prepare() and self.slower == self._was_slower
        self._was_slower = self.slower
        return same

    def move(self) -> None:
        if not self.slower:
            super().move()
            return
        moved = [weight.detach().clone() for weight in self.weights]
        super().move()
        with torch.no_grad():  # scales the whole step, including weight decay
            torch._foreach_lerp_(moved, self.weights, self.paces)
            torch._foreach_copy_(self.weights, moved)
