"""The prune stage shared by GReg-1 and GReg-2: an L2 penalty that grows on some groups until they are close to zero.

Wang et al. 2021, https://arxiv.org/abs/2012.09243; released code: MingSun-Tse/Regularization-Pruning at a4044028,
pruner/reg_pruner.py.

Every iteration t:

    if t is a multiple of the update interval: update lambda        greg1.py, greg2.py
    theta <- SGD(theta, dL/dtheta + lambda theta)                   lambda per group, added to the weight decay

A layer is finished once its largest lambda exceeds a limit, or once the running ratio R reaches one:

    r = mean score(kept) / mean score(pruned)      R <- r at first, then 0.9 R + 0.1 r

Once all layers are finished, lambda stays constant for the stabilisation interval. Then the stage ends, possibly
within an epoch.
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
from trials.errors import exact
from trials.methods.base import Stage
from trials.methods.greg.groups import GroupPattern, group_scores, group_shape, magnitude_ratio
from trials.methods.greg.removal import RemovalMethod
from trials.methods.greg.removal_config import RemovalConfig
from trials.sparsity import prunable
from trials.training import launches
from trials.training.net import Batch, Net
from trials.training.optimizers import Sgd

EMA = 0.9
"""Weight of the old value in the running ratio R."""

MOST_UPDATES = 10**6
"""Largest number of updates allowed to reach a limit; with smaller steps, lambda would stop growing in float32."""


class GrowingRecipe(OpenRecipe):
    """Recipe of the prune stage: SGD at a small constant learning rate (the released ImageNet recipe)."""

    batch_size: int = Field(default=64, ge=1)
    lr: float = Field(default=1e-3, gt=0)
    weight_decay: float = Field(default=1e-4, ge=0)


class GrowingConfig(RemovalConfig):
    """Fields that GReg-1 and GReg-2 share, named as in the released code. Intervals count iterations.

    Attributes:
        update_reg_interval: iterations from one update of lambda to the next.
        reg_granularity_prune: increase of lambda of the picked groups per update.
        reg_upper_limit: a layer is finished once its largest lambda exceeds this.
        mag_ratio_limit: a layer is finished once its running ratio R reaches this (GReg-1: see ``ratio_exit``); unused
            with pattern ``weight``.
        stabilize_reg_interval: iterations between the update that finishes the last layer and the end of the stage.
        block_loss_grad: weights get only the penalty's gradient; biases and BN still get the loss's gradient.
        prune: recipe of the stage in which penalties grow; it ends by itself.
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
    """Raise ValueError if reaching the limit takes more than :data:`MOST_UPDATES` updates."""
    if limit / step > MOST_UPDATES:
        raise ValueError(
            f"{step_name} is {exact(step)}, but needs more than {MOST_UPDATES} updates to reach {limit_name} "
            f"{exact(limit)}: raise it, or lower the limit"
        )


@dataclass
class GrowingLayer:
    """Penalty state of one layer. Lambda has two values: one for picked groups, one for kept groups.

    Attributes:
        count: number of groups to remove.
        pruned: picked groups; bool, of the groups' shape (trials/methods/greg/groups.py); None before the pick.
        of_pruned: lambda of the picked groups; before the pick, of all groups.
        of_kept: lambda of the kept groups.
        ratio: R; None before its first update, and always with pattern ``weight``.
        picked: iteration of the pick.
        finished: iteration that finished the layer; lambda and R are constant afterwards.
        weight: the layer's parameter; set by :meth:`attach`.
        reg: lambda as a tensor of the groups' shape, or of the weight's shape and strides; set by :meth:`attach`, then
            only written into.
    """

    count: int
    pruned: Tensor | None = None
    of_pruned: float = 0.0
    of_kept: float = 0.0
    ratio: float | None = None
    picked: int | None = None
    finished: int | None = None
    weight: Tensor = field(init=False)
    reg: Tensor = field(init=False)

    def attach(self, weight: Tensor, pattern: GroupPattern) -> None:
        """Store the layer's parameter and write lambda into a tensor."""
        self.weight = weight
        shape = group_shape(weight, pattern)
        elementwise = shape == weight.shape or launches.few_launches(
            weight.device
        )  # one operator adds all layers' penalties
        self.reg = torch.zeros_like(weight.detach()) if elementwise else weight.detach().new_zeros(shape)
        self._write()

    def observe(self, r: float | None) -> None:
        """R <- r at first, then 0.9 R + 0.1 r; unchanged if ``r`` is None."""
        if r is not None:
            self.ratio = r if self.ratio is None else EMA * self.ratio + (1 - EMA) * r

    def grow(self, step: float, *, kept: float | None = None) -> None:
        """Raise lambda of the picked groups by ``step``, in the weight's precision.

        Lambda of the kept groups becomes ``kept``, or the same as that of the picked groups if None.
        """
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
    """The prune stage. Subclasses define the update of lambda and fill ``layers`` on entry.

    The host counts and updates lambda before a step; lambda's tensors are written in place.

    Attributes:
        layers: layers that lose groups, by weight name, in module order.
        iteration: t of the next step to prepare.
        stable_since: iteration whose update finished the last layer; None before.
    """

    captures = True
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

    @property
    def updates_before_growing(self) -> int:
        """Largest number of updates of lambda before that of the picked groups starts to grow."""
        return 0

    @property
    def most_steps(self) -> int:
        """Largest number of iterations of the stage; fewer if running ratios reach their limit first."""
        growing = int(self.config.reg_upper_limit / self.config.reg_granularity_prune * (1 + 1e-6)) + 1
        updates = self.updates_before_growing + growing - 1
        return int(updates * self.config.update_reg_interval + self.config.stabilize_reg_interval) + 1

    def _is_stable(self) -> bool:
        since = self.stable_since
        return since is not None and self.iteration - 1 - since >= self.config.stabilize_reg_interval

    def prepare(self) -> bool:
        # the update reads the weights as they are before the step, as in the released code
        if self.stable_since is None and self.iteration % self.config.update_reg_interval == 0:
            self._update_all()
        self.iteration += 1
        self.finished = self._is_stable()
        return True

    def step(self, *batches: Batch) -> tuple[Tensor, Tensor]:
        loss, correct = self.net.backward(*batches[0])
        self._penalise()
        self.sgd.step()
        return loss, correct

    def _update_all(self) -> None:
        self.update([layer for layer in self.layers.values() if layer.finished is None])
        if all(layer.finished is not None for layer in self.layers.values()):
            self.stable_since = self.iteration

    @abstractmethod
    def update(self, growing: Sequence[GrowingLayer]) -> None:
        """Update R and lambda of the unfinished layers and mark those that are finished.

        Waits for the device once, except with pattern ``weight``.
        """

    def _penalise(self) -> None:
        """g <- g + lambda theta; with ``block_loss_grad``, g <- lambda theta."""
        # added to the gradient, not to the loss: no graph for the penalty, and momentum sees it like weight decay
        layers = self.layers.values()
        gradients, regs = [_gradient(layer.weight) for layer in layers], [layer.reg for layer in layers]
        weights = [layer.weight.detach() for layer in layers]
        if self.config.block_loss_grad:
            if self.untouched:
                torch._foreach_zero_([_gradient(weight) for weight in self.untouched])
            if gradients:
                torch._foreach_copy_(gradients, torch._foreach_mul(regs, weights))
        elif gradients:
            torch._foreach_addcmul_(gradients, regs, weights)

    def ratios(self, layers: Sequence[GrowingLayer]) -> Sequence[float | None]:
        """Current r of each layer, with one wait for the device; all None with pattern ``weight``."""
        if self.config.pattern == "weight" or not layers:
            return [None] * len(layers)
        found: list[float] = torch.stack([self.ratio(layer) for layer in layers]).tolist()
        return found

    def ratio(self, layer: GrowingLayer) -> Tensor:
        """r of one layer, on the device; its groups must be picked."""
        assert layer.pruned is not None
        return magnitude_ratio(group_scores(layer.weight, self.config.pattern), layer.pruned)

    def finish(self, layer: GrowingLayer, ratio_reached: bool) -> None:
        """Mark the layer finished if its lambda exceeds the limit or ``ratio_reached``."""
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


def _gradient(weight: Tensor) -> Tensor:
    assert weight.grad is not None
    return weight.grad


class GrowingMethod(RemovalMethod):
    """Base of GReg-1 and GReg-2: dense network -> growing regularisation -> removal -> finetuning."""

    Prune: ClassVar[type[Growing]]
    config: GrowingConfig

    def choosing(self) -> Iterator[Stage]:
        yield self.Prune(self.config)
