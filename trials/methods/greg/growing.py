"""The prune phase of GReg: regularisation that grows on some groups until they hardly count (Wang et al. 2021,
https://arxiv.org/abs/2012.09243; the published code, spec greg, sections 6 to 8).

Every iteration t:

    if t is a multiple of the update interval: update lambda        GReg-1 and GReg-2 say how
    theta <- SGD(theta, dL/dtheta + lambda theta)                   lambda per group, on top of the weight decay

A layer is finished once its largest lambda is above a limit, or its kept groups outweigh its pruned ones far enough:

    r = mean score(kept) / mean score(pruned)      R <- r at first, then 0.9 R + 0.1 r

When all layers are, lambda stays as it is for the stabilisation interval; then the phase ends, within an epoch or not.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from pydantic import Field, model_validator
from torch import Tensor

from trials.config.recipes import OpenRecipe
from trials.methods.base import Stage
from trials.methods.greg.groups import GroupPattern, group_scores, group_shape, magnitude_ratio
from trials.methods.greg.removal import RemovalConfig, RemovalMethod
from trials.sparsity import prunable
from trials.training.net import Batch, Net
from trials.training.optimizers import Sgd

EMA = 0.9
"""What the running ratio R keeps of itself."""

MOST_UPDATES = 10**6
"""A granularity that needs more updates than this to reach its limit would stand still in float32."""


class GrowingRecipe(OpenRecipe):
    """The prune phase: SGD at a constant, small rate (the released ImageNet recipe)."""

    batch_size: int = Field(default=64, ge=1)
    lr: float = Field(default=1e-3, gt=0)
    weight_decay: float = Field(default=1e-4, ge=0)


class GrowingConfig(RemovalConfig):
    """What GReg-1 and GReg-2 have in common. Intervals count iterations; lambda has no unit.

    Attributes:
        update_reg_interval: iterations from one update of lambda to the next.
        reg_granularity_prune: by how much an update raises lambda of what goes.
        reg_upper_limit: a layer whose largest lambda is above this is finished.
        mag_ratio_limit: so is one whose running ratio R is this or more (not with single weights).
        stabilize_reg_interval: iterations to go on once all layers are finished.
        block_loss_grad: weights follow the penalty alone; biases and BN still follow the loss.
    """

    update_reg_interval: int = Field(default=5, ge=1)
    reg_granularity_prune: float = Field(default=1e-4, gt=0)
    reg_upper_limit: float = Field(default=1.0, gt=0)
    mag_ratio_limit: float = Field(default=1000.0, gt=0)
    stabilize_reg_interval: int = Field(default=40_000, ge=0)
    block_loss_grad: bool = False
    prune: GrowingRecipe = GrowingRecipe()

    @model_validator(mode="after")
    def _limits_are_reached(self) -> GrowingConfig:
        must_reach("reg_granularity_prune", self.reg_granularity_prune, "reg_upper_limit", self.reg_upper_limit)
        return self


def must_reach(step_name: str, step: float, limit_name: str, limit: float) -> None:
    """Refuse a granularity too small for its limit."""
    if limit / step > MOST_UPDATES:
        raise ValueError(
            f"{step_name} is {step:g}, but needs more than {MOST_UPDATES} updates to reach {limit_name} {limit:g}: "
            "raise it, or lower the limit"
        )


@dataclass
class GrowingLayer:
    """Lambda of one layer's groups, which has two values: of what goes and of what stays.

    Attributes:
        count: how many groups go.
        pruned: which, bool, of the groups' shape (see trials/methods/greg/groups.py); None before they are picked.
        of_pruned: lambda of what goes; of all groups before they are picked.
        of_kept: lambda of what stays.
        ratio: R; None before its first update, and always with single weights.
        picked: the iteration that picked.
        finished: the iteration that finished the layer; from then on lambda and R stay.
    """

    count: int
    pruned: Tensor | None = None
    of_pruned: float = 0.0
    of_kept: float = 0.0
    ratio: float | None = None
    picked: int | None = None
    finished: int | None = None
    weight: Tensor = field(init=False)
    reg: Tensor = field(init=False)  # lambda, of the groups' shape

    def attach(self, weight: Tensor, pattern: GroupPattern) -> None:
        self.weight = weight
        shape = group_shape(weight, pattern)
        elementwise = shape == weight.shape  # then in the weight's memory format, too
        self.reg = torch.zeros_like(weight.detach()) if elementwise else weight.detach().new_zeros(shape)
        self._write()

    def observe(self, r: float | None) -> None:
        """R <- 0.9 R + 0.1 r."""
        if r is not None:
            self.ratio = r if self.ratio is None else EMA * self.ratio + (1 - EMA) * r

    def grow(self, step: float, *, kept: float | None = None) -> None:
        """Raise lambda of what goes by ``step``, in the weight's precision; of what stays, set it to ``kept``."""
        self.of_pruned = float(torch.tensor(self.of_pruned, dtype=self.weight.dtype) + step)
        self.of_kept = self.of_pruned if kept is None else float(torch.tensor(kept, dtype=self.weight.dtype))
        self._write()

    def _write(self) -> None:
        self.reg.fill_(self.of_kept)
        if self.pruned is not None:
            self.reg.masked_fill_(self.pruned, self.of_pruned)

    def ratio_reached(self, limit: float) -> bool:
        return self.ratio is not None and self.ratio >= limit

    def state_dict(self) -> dict[str, Any]:
        names = ("count", "pruned", "of_pruned", "of_kept", "ratio", "picked", "finished")
        return {name: getattr(self, name) for name in names}


class Growing(Stage):
    """The prune stage. A subclass says what an update is, and what is picked on entry, if anything.

    Attributes:
        layers: those that lose groups, by weight name, in module order.
        iteration: t of the next step.
        stable_since: the iteration at whose update the last layer was finished.
    """

    config: Any

    def __init__(self, config: GrowingConfig) -> None:
        super().__init__("prune", config.prune)
        self.config = config
        self.layers: dict[str, GrowingLayer] = {}
        self.iteration = 0
        self.stable_since: int | None = None

    def attach(self, net: Net) -> None:
        self.net = net
        self.sgd = Sgd.of(self.recipe, net.model.parameters())
        self._hold(net)

    def _hold(self, net: Net) -> None:
        weights = prunable(net.model)
        for name, layer in self.layers.items():
            layer.attach(weights[name], self.config.pattern)
        self.untouched = [weight for name, weight in weights.items() if name not in self.layers]

    def begin_epoch(self, epoch: int) -> None:
        """Nothing depends on the epoch."""

    def _is_stable(self) -> bool:
        since = self.stable_since
        return since is not None and self.iteration - 1 - since >= self.config.stabilize_reg_interval

    def step(self, *batches: Batch) -> tuple[Tensor, Tensor]:
        if self.stable_since is None and self.iteration % self.config.update_reg_interval == 0:
            self._update_all()
        loss, correct = self.net.loss(*batches[0])
        self.sgd.zero_grad()
        torch.autograd.backward(loss)
        self._penalise()
        self.sgd.step()
        self.iteration += 1
        self.finished = self._is_stable()
        return loss.detach(), correct

    def _update_all(self) -> None:
        self.update([layer for layer in self.layers.values() if layer.finished is None])
        if all(layer.finished is not None for layer in self.layers.values()):
            self.stable_since = self.iteration

    @abstractmethod
    def update(self, growing: Sequence[GrowingLayer]) -> None:
        """Observe R, raise lambda and finish layers, of those that are not finished. All that waits for the device."""

    def _penalise(self) -> None:
        """g <- g + lambda theta."""
        blocked = self.config.block_loss_grad
        for weight in self.untouched if blocked else ():
            assert weight.grad is not None
            weight.grad.zero_()
        for layer in self.layers.values():
            grad, weight = layer.weight.grad, layer.weight.detach()
            assert grad is not None
            if blocked:
                torch.mul(layer.reg, weight, out=grad)
            else:
                grad.addcmul_(layer.reg, weight)

    def ratios(self, layers: Sequence[GrowingLayer]) -> Sequence[float | None]:
        """r of each layer now; waits for the device once. None with single weights."""
        if self.config.pattern == "weight" or not layers:
            return [None] * len(layers)
        found: list[float] = torch.stack([self.ratio(layer) for layer in layers]).tolist()
        return found

    def ratio(self, layer: GrowingLayer) -> Tensor:
        """r of a layer whose groups are picked."""
        assert layer.pruned is not None
        return magnitude_ratio(group_scores(layer.weight, self.config.pattern), layer.pruned)

    def finish(self, layer: GrowingLayer, ratio_reached: bool) -> None:
        """The layer is finished, if its lambda is above the limit or R says so."""
        if max(layer.of_pruned, layer.of_kept) > self.config.reg_upper_limit or ratio_reached:
            layer.finished = self.iteration

    def end_epoch(self, net: Net, epoch: int) -> None:
        if self.finished:
            net.picked = {name: layer.pruned for name, layer in self.layers.items() if layer.pruned is not None}

    def columns(self) -> dict[str, float]:
        layers = self.layers.values()
        ratios = [layer.ratio for layer in layers if layer.ratio is not None and math.isfinite(layer.ratio)]
        return {
            "lr": float(self.sgd.lr),
            "iteration": self.iteration,
            "reg": max((layer.of_pruned for layer in layers), default=0.0),
            "growing_layers": sum(layer.finished is None for layer in layers),
            **({"mag_ratio": min(ratios)} if ratios else {}),
        }

    def state_dict(self) -> dict[str, Any]:
        layers = {name: layer.state_dict() for name, layer in self.layers.items()}
        return {
            "sgd": self.sgd.state_dict(),
            "iteration": self.iteration,
            "stable_since": self.stable_since,
            "layers": layers,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.sgd.load_state_dict(state["sgd"])
        self.iteration, self.stable_since = state["iteration"], state["stable_since"]
        self.finished = self._is_stable()
        self.layers = {name: GrowingLayer(**content) for name, content in state["layers"].items()}
        for layer in self.layers.values():
            layer.pruned = None if layer.pruned is None else layer.pruned.to(self.net.device)
        self._hold(self.net)


class GrowingMethod(RemovalMethod):
    """Dense network -> growing regularisation -> removal -> finetuning."""

    Prune: ClassVar[type[Growing]]
    config: GrowingConfig

    def choosing(self) -> Iterator[Stage]:
        yield self.Prune(self.config)
