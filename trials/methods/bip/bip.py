"""BiP: pruning as bi-level optimisation of mask scores (upper level) and weights (lower level).

Zhang et al. 2022, https://arxiv.org/abs/2210.04092; released code: OPTML-Group/BiP at c51fc35, trainer/bilevel.py.

Upper level: scores s; the mask m keeps the top ``density`` of |s|.
Lower level: weights theta, trained under that mask.

    lower:  theta <- SGD(theta, m g_V)                     g_V = dL/dz on batch V, z = m theta
    upper:  s     <- SGD(s, G)                             g   = dL/dz on batch T, at the new theta
            G = sign(s) (theta g - (1/gamma) m g^2)        implicit_gradient: paper
            G = U - (1/gamma) U^2,  U = sign(s) theta g    implicit_gradient: code (as released; ignores the sign of s)
            G = U                                          implicit_gradient: none
    m <- top(|s|, density)

The paper's term: the lower level's stationarity, m g + gamma theta = 0, gives dtheta*/dm = -(1/gamma) diag(g) without
the Hessian of L, and |s| passes gradients of m straight through. One backward pass on T gives both terms of G, so an
iteration takes two forwards, two backwards and one selection; the released code takes four, three and four.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any, Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from trials.config.recipes import Recipe, one_of
from trials.config.schedules import SCHEDULES, Schedule
from trials.config.trial_config import TrialConfig
from trials.data_header import DataHeader
from trials.methods.asked import AskedShare
from trials.methods.base import Method, Stage, TrainStage, mutable_of
from trials.methods.bip.rates import with_corrected_rates
from trials.methods.bip.scored import ScoredConfig, ScoredStage, released_schedules, score_gradient
from trials.methods.budgets import LeftLayer
from trials.methods.dense import dense_source
from trials.training.net import Batch, Net
from trials.training.optimizers import Sgd


class BipRecipe(Recipe):
    """Recipe of the prune stage: 100 epochs with weight decay 1e-4, as in the released configs."""

    epochs: int = Field(default=100, ge=0)
    weight_decay: float = Field(default=1e-4, ge=0)


class BipConfig(ScoredConfig):
    """Prune a dense network to ``density`` while its weights train.

    ``variant: original`` changes the defaults of the fields below to those of the released code. Below a density of
    0.05, the default of ``prune.lr`` and ``mask_lr`` is lower than the published one, which collapses (rates.py).

    Attributes:
        implicit_gradient: the form of G (see the module's docstring).
        implicit_step: 1/gamma (lr2 in the released code), the factor of the implicit term.
        mask_lr: learning rate of the scores. The released code ignores it and uses ``prune.lr``.
        mask_schedule: schedule of the scores' learning rate.
        batchnorm: the level that trains BN's scale and shift. Released: ``both``.
        optimizers: ``separate`` optimisers for weights and scores. Released: ``shared``, two optimisers that each hold
            every tensor, so that tensors a level does not train still get weight decay and old momentum there.
        accelerate: run the upper level first, without the implicit term ("PFTT" in the released code).
        redundant_forwards: run the released code's two extra forward passes per iteration, which only update BN's
            running statistics.
        finetune: recipe after pruning, under the final mask; the paper finetunes below 1 % density.
        prune: recipe of the weights (lower level) while they are pruned.
    """

    method: Literal["bip"] = "bip"
    implicit_gradient: Literal["paper", "code", "none"] = "paper"
    implicit_step: float = Field(default=1e-4, ge=0)
    mask_lr: float = Field(default=0.1, gt=0)
    mask_schedule: Annotated[str, one_of(SCHEDULES)] = "step"
    batchnorm: Literal["lower", "both"] = "lower"
    optimizers: Literal["separate", "shared"] = "separate"
    accelerate: bool = False
    redundant_forwards: bool = False
    prune: BipRecipe = BipRecipe()
    finetune: Recipe | None = None

    @property
    def revision(self) -> int:
        return super().revision if self.optimizers == "separate" else 1  # shared ones step tensor by tensor, rightly

    @model_validator(mode="before")
    @classmethod
    def _as_released(cls, content: Any) -> Any:
        if not isinstance(content, Mapping):
            return content
        if content.get("variant") != "original":
            return with_corrected_rates(content, ["mask_lr"])
        filled = released_schedules(content, ("pretrain", "prune"))
        released = {
            "score_init": "alias",
            "implicit_gradient": "code",
            "batchnorm": "both",
            "optimizers": "shared",
            "redundant_forwards": True,
            "first_conv": "pruned",
            "rounding": "released",
            "mask_lr": filled["prune"].get("lr", 0.1) if isinstance(filled["prune"], Mapping) else 0.1,
        }
        return {**released, **filled}


class Bilevel(ScoredStage):
    """The prune stage of BiP. Each step takes one batch for the upper and one for the lower level."""

    streams = ("upper", "lower")

    def __init__(self, config: BipConfig) -> None:
        super().__init__(config, config.prune)
        self.captures = config.optimizers == "separate"  # shared ones step tensor by tensor, which reads the rate
        self.mask_schedule = Schedule(
            config.mask_schedule,
            config.mask_lr,
            config.prune.epochs,
            config.prune.warmup_epochs,
            config.prune.warmup_lr,
        )

    def attach(self, net: Net) -> None:
        super().attach(net)
        config, recipe = self.config, self.recipe
        if config.batchnorm == "lower":
            self.norms = []
        lower = [*self.theta.values(), *self.others.values()]
        upper = [*self.scores.values(), *self.norms]
        self.shared = config.optimizers == "shared"
        if self.shared:
            lower = upper = self._every_tensor(net)
        self.lower = Sgd(lower, lr=recipe.lr, momentum=recipe.momentum, weight_decay=recipe.weight_decay,
                         in_order=self.shared)  # fmt: skip
        self.upper = Sgd(upper, lr=config.mask_lr, momentum=recipe.momentum, weight_decay=recipe.weight_decay,
                         in_order=self.shared)  # fmt: skip
        self.implicit_step: float = config.implicit_step

    def _every_tensor(self, net: Net) -> list[Tensor]:
        """All tensors in the released code's order, which matters if a score and its weight share memory."""
        entries: list[Tensor] = []
        for name, parameter in net.model.named_parameters():
            entries += [self.theta[name], self.scores[name]] if name in self.scores else [parameter]
        return entries

    def begin_epoch(self, epoch: int) -> None:
        self.lower.set_lr(self.schedule(epoch))
        self.upper.set_lr(self.mask_schedule(epoch))

    def step(self, *batches: Batch) -> tuple[Tensor, Tensor]:
        upper_batch, lower_batch = batches
        if self.config.accelerate:
            result = self.step_upper(upper_batch)
            self.step_lower(lower_batch)
            return result
        self.step_lower(lower_batch)
        return self.step_upper(upper_batch)

    def step_lower(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """theta <- SGD(theta, m g_V); z <- m theta."""
        loss, correct = self.net.backward(*batch)
        self.net.mask_gradients()  # exactly the scored weights have masks
        for theta, s, _, g in self.layers():
            theta.grad = g
            if self.shared and s.grad is not None:  # zero, not None: the lower optimiser still decays s, as released
                s.grad.zero_()
        self.lower.step()
        if self.shared or self.config.score_init == "alias":  # then this step has changed the scores as well
            self.update_masks()
        else:
            self.net.project(self.theta)
        return loss, correct

    def step_upper(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """s <- SGD(s, G); m <- top(|s|, density); z <- m theta."""
        loss, correct = self.net.backward(*batch)
        self.set_score_gradients()
        if self.shared:  # a zero gradient still applies weight decay and momentum to theta, as released
            for theta in self.theta.values():
                theta.grad = torch.zeros_like(theta)
        if self.implicit_gradient == "code":  # the released code adds the term to BN's gradients as well
            for parameter in self.norms:
                assert parameter.grad is not None
                parameter.grad -= self.implicit_step * parameter.grad.square()
        if self.shared:
            self._hold_others()
        self._redundant_forward(batch)
        self.upper.step()
        self.update_masks()
        self._redundant_forward(batch)
        return loss, correct

    @property
    def implicit_gradient(self) -> str:
        return "none" if self.config.accelerate else str(self.config.implicit_gradient)

    def gradient(self, g: Tensor, theta: Tensor, s: Tensor, m: Tensor) -> Tensor:
        """G from g = dL/dz, for a layer or a part of one. Overwrites g."""
        if self.implicit_gradient == "paper":
            step = (m * g).mul_(self.implicit_step)
            return g.mul_(torch.sub(theta, step, out=step)).mul_(s.sign())
        upper = score_gradient(g, theta, s)
        if self.implicit_gradient == "code":
            upper -= self.implicit_step * upper.square()
        return upper

    def gradients(self, g: list[Tensor], theta: list[Tensor], s: list[Tensor], m: list[Tensor]) -> None:
        if self.implicit_gradient == "paper":
            theta = torch._foreach_addcmul(theta, m, g, value=-self.implicit_step)  # type: ignore[assignment]
        super().gradients(g, theta, s, m)
        if self.implicit_gradient == "code":
            torch._foreach_addcmul_(g, g, torch._foreach_neg(g), value=self.implicit_step)

    def _hold_others(self) -> None:
        """Zero the gradients of parameters that the upper level does not train; they still get decay and momentum."""
        trained = set(map(id, self.norms))
        for parameter in self.others.values():
            if id(parameter) not in trained and parameter.grad is not None:
                parameter.grad.zero_()

    def _redundant_forward(self, batch: Batch) -> None:
        if self.config.redundant_forwards:
            with torch.no_grad():
                self.net.loss(*batch)

    def columns(self) -> dict[str, float]:
        return {
            "lr": float(self.lower.lr),
            "mask_lr": float(self.upper.lr),
            "implicit_step": self.implicit_step,
        }

    def state_dict(self) -> dict[str, Any]:
        return {**super().state_dict(), "lower": self.lower.state_dict(), "upper": self.upper.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        super().load_state_dict(state)
        self.lower.load_state_dict(state["lower"])
        self.upper.load_state_dict(state["upper"])
        if self.shared:  # the lower optimiser steps scores that have had a gradient
            for s in self.scores.values():
                s.grad = torch.zeros_like(s)


class Bip(Method):
    """BiP: dense network -> bi-level pruning -> optional finetuning under the mask."""

    Config = BipConfig
    mutable = mutable_of("prune") | {"mask_lr", "mask_schedule", "implicit_step", "implicit_gradient"}
    config: BipConfig
    takes_compact = True
    stoppable = ("prune", "finetune")

    def source(self) -> TrialConfig | None:
        return dense_source(self.config)

    def asked(self, model: nn.Module, stage: Stage) -> tuple[AskedShare, ...]:
        return (self.config.asked_share(model),)

    def check(self, model: nn.Module, data: DataHeader) -> None:
        self.config.require_scored(model, data)

    def check_left(self, layers: Sequence[LeftLayer]) -> None:
        self.config.require_scored_left(layers)

    def stages(self) -> Iterator[Stage]:
        yield Bilevel(self.config)
        if self.config.finetune is not None:
            yield TrainStage("finetune", self.config.finetune)
