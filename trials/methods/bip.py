"""BiP: pruning as bi-level optimisation (Zhang et al. 2022, https://arxiv.org/abs/2210.04092).

Upper level: scores s, whose mask m keeps the top ``density`` of |s| over the whole network.
Lower level: weights theta, which train under that mask.

    lower:  theta <- SGD(theta, m g_V)                     g_V = dL/dz on batch V, z = m theta
    upper:  s     <- SGD(s, G)                             g   = dL/dz on batch T, at the new theta
            G = sign(s) (theta g - (1/gamma) m g^2)        implicit_gradient: paper (section 9 of the derivation)
            G = U - (1/gamma) U^2,  U = sign(s) theta g    implicit_gradient: code (as released: blind to the sign)
            G = U                                          implicit_gradient: none
    m <- top(|s|, density)

The gradient passes the top-k straight through. One backward pass on T gives both terms of G, so an iteration is two
forwards, two backwards and one selection; the released code needs four, three and four.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any, Literal

import torch
from pydantic import Field, field_validator
from torch import Tensor, nn

from trials.config import PretrainRecipe, Recipe, TrialConfig, known
from trials.methods.base import Method, Stage, TrainStage, generator_for
from trials.methods.dense import dense_source
from trials.methods.one_shot import FinetuneRecipe
from trials.schedules import SCHEDULES, Schedule
from trials.sparsity import DISTRIBUTIONS, PATTERNS, build_masks, prunable
from trials.training import Batch, Net, Sgd


class BipRecipe(Recipe):
    """The prune stage: 100 epochs with little weight decay (the shipped config)."""

    epochs: int = Field(default=100, ge=0)
    weight_decay: float = Field(default=1e-4, ge=0)


class BipConfig(TrialConfig):
    """Prune a dense network to ``density`` while its weights train.

    Attributes:
        implicit_step: 1/gamma (the released code's lr2), the size of the implicit term.
        score_init: ``copy`` starts the scores at the weights; ``random`` draws them from U(-b, b), b = 1/sqrt(fan_in),
            and multiplies every weight by 1/sqrt(density).
        mask_lr: learning rate of the scores. The released code reads it and then uses ``prune.lr`` instead.
        batchnorm: the level that trains BN's scale and shift. The released code trains them at ``both``.
    """

    method: Literal["bip"] = "bip"
    density: float = Field(gt=0, le=1)
    pattern: Literal["weight"] = "weight"
    implicit_gradient: Literal["paper", "code", "none"] = "paper"
    implicit_step: float = Field(default=1e-4, ge=0)
    score_init: Literal["copy", "random"] = "copy"
    mask_lr: float = Field(default=0.1, gt=0)
    mask_schedule: str = "step"
    batchnorm: Literal["lower", "both"] = "lower"
    pretrain: PretrainRecipe = PretrainRecipe()
    prune: BipRecipe = BipRecipe()
    finetune: FinetuneRecipe | None = None

    @field_validator("mask_schedule")
    @classmethod
    def _known_schedule(cls, value: str) -> str:
        return known("mask_schedule", value, SCHEDULES)


class Bilevel(Stage):
    """The prune stage. The model holds z; theta and s are the stage's own."""

    streams = ("upper", "lower")
    changes_network = True

    def __init__(self, config: BipConfig) -> None:
        super().__init__("prune", config.prune)
        self.config = config
        self.mask_schedule = Schedule(
            config.mask_schedule,
            config.mask_lr,
            config.prune.epochs,
            config.prune.warmup_epochs,
            config.prune.warmup_lr,
        )
        self.initial: tuple[dict[str, Tensor], dict[str, Tensor]] | None = None

    def enter(self, net: Net) -> None:
        weights = prunable(net.model)
        if self.config.score_init == "random":
            generator = generator_for(self.config, "scores")
            scores = {name: random_scores(weight, generator) for name, weight in weights.items()}
            with torch.no_grad():
                for weight in weights.values():
                    weight.mul_(1 / math.sqrt(self.config.density))
        else:
            scores = {name: weight.detach().clone() for name, weight in weights.items()}
        self.initial = ({name: weight.detach().clone() for name, weight in weights.items()}, scores)
        net.set_masks(self._top(scores))

    def _top(self, scores: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """m = top(|s|, density)."""
        return build_masks(
            scores,
            density=self.config.density,
            pattern=PATTERNS[self.config.pattern],
            distribution=DISTRIBUTIONS["global"],
            absolute=True,
        )

    def attach(self, net: Net) -> None:
        self.net = net
        weights = prunable(net.model)
        self.z = list(weights.values())
        theta, scores = self.initial or (weights, weights)
        self.theta = {name: theta[name].detach().clone() for name in weights}
        self.scores = {name: scores[name].detach().clone() for name in weights}
        self.initial = None
        pruned = set(map(id, self.z))
        others = [p for p in net.model.parameters() if id(p) not in pruned]
        norms = [p for m in net.model.modules() if isinstance(m, nn.BatchNorm2d) for p in m.parameters()]
        self.norms = norms if self.config.batchnorm == "both" else []
        recipe = self.config.prune
        self.lower = Sgd.of(recipe, [*self.theta.values(), *others])
        self.upper = Sgd([*self.scores.values(), *self.norms], lr=self.config.mask_lr, momentum=recipe.momentum,
                         weight_decay=recipe.weight_decay)  # fmt: skip
        self.implicit_step = self.lower.lr.new_tensor(self.config.implicit_step)

    def begin_epoch(self, epoch: int) -> None:
        self.lower.set_lr(self.schedule(epoch))
        self.upper.set_lr(self.mask_schedule(epoch))

    def step(self, *batches: Batch) -> tuple[Tensor, Tensor]:
        upper_batch, lower_batch = batches
        self.step_lower(lower_batch)
        return self.step_upper(upper_batch)

    def step_lower(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """theta <- SGD(theta, m g_V); z <- m theta."""
        loss, correct = self._backward(batch)
        for theta, z, m in self._layers():
            assert z.grad is not None
            theta.grad = z.grad.mul_(m)
        self.lower.step()
        self.net.project(self.theta)
        return loss, correct

    def step_upper(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """s <- SGD(s, G); m <- top(|s|, density); z <- m theta."""
        loss, correct = self._backward(batch)
        for (theta, z, m), s in zip(self._layers(), self.scores.values(), strict=True):
            assert z.grad is not None
            s.grad = self.score_gradient(z.grad, theta, s, m)
        if self.config.implicit_gradient == "code":
            for parameter in self.norms:
                assert parameter.grad is not None
                parameter.grad -= self.implicit_step * parameter.grad.square()
        self.upper.step()
        self.net.set_masks(self._top(self.scores), latent=self.theta)
        return loss, correct

    def score_gradient(self, g: Tensor, theta: Tensor, s: Tensor, m: Tensor) -> Tensor:
        """G of one layer, from g = dL/dz. Overwrites g."""
        if self.config.implicit_gradient == "paper":
            step = (m * g).mul_(self.implicit_step)
            return g.mul_(torch.sub(theta, step, out=step)).mul_(s.sign())
        upper = g.mul_(theta).mul_(s.sign())
        if self.config.implicit_gradient == "code":
            upper -= self.implicit_step * upper.square()
        return upper

    def _layers(self) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        return zip(self.theta.values(), self.z, self.net.multipliers().values(), strict=True)

    def _backward(self, batch: Batch) -> tuple[Tensor, Tensor]:
        self.net.model.zero_grad(set_to_none=True)
        loss, correct = self.net.loss(*batch)
        torch.autograd.backward(loss)
        return loss.detach(), correct

    def columns(self) -> dict[str, float]:
        return {
            "lr": float(self.lower.lr),
            "mask_lr": float(self.upper.lr),
            "implicit_step": float(self.implicit_step),
        }

    def state_dict(self) -> dict[str, Any]:
        return {
            "theta": self.theta,
            "scores": self.scores,
            "lower": self.lower.state_dict(),
            "upper": self.upper.state_dict(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        with torch.no_grad():
            for name in self.theta:
                self.theta[name].copy_(state["theta"][name])
                self.scores[name].copy_(state["scores"][name])
        self.lower.load_state_dict(state["lower"])
        self.upper.load_state_dict(state["upper"])


def random_scores(weight: Tensor, generator: torch.Generator) -> Tensor:
    """s ~ U(-b, b), b = 1/sqrt(fan_in), drawn on CPU so that it is the same on every device."""
    bound = 1 / math.sqrt(weight[0].numel())
    uniform = torch.rand(weight.shape, generator=generator, dtype=torch.float64)
    return uniform.mul_(2 * bound).sub_(bound).to(weight)


class Bip(Method):
    """Dense network -> bilevel pruning -> (at extreme sparsity) finetuning under the mask."""

    Config = BipConfig
    config: BipConfig

    def source(self) -> TrialConfig:
        return dense_source(self.config, self.config.pretrain)

    def stages(self) -> Iterator[Stage]:
        yield Bilevel(self.config)
        if self.config.finetune is not None:
            yield TrainStage("finetune", self.config.finetune)
