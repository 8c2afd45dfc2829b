"""Weight pruning by an adaptive sparsity loss (Retsinas et al. 2021, https://arxiv.org/abs/2006.02768).

Every layer l of n_l weights w learns its threshold r_l, in units of its own standard deviation sigma:

    w <- w - mean(w)         t = clamp(r, 0, 5) sigma + eps         W = w 1[|w| > t]

The network computes with W. The gradient G = dL/dW passes straight through to w; r hears from pruned weights only:

    dL/dw = G                dL/dr = -(sigma/t) sum_{|w| <= t} G w   if 0 < r < 5, else 0

Where weights are Gaussian, layer l has sparsity s_l = erf(r_l/sqrt 2), which the sparsity loss pulls towards the target
T; with S = sum n_l s_l / N, the sparsity of all N weights that have thresholds:

    L = cross entropy + lv (S - T)^2                  mode adaptive: layers find their shares of one budget
                      + lv mean_l (s_l - T)^2         mode fixed: the same target for every layer
                      + lv max(T - S, 0)              mode one_sided: a budget that may be left unused

How sparse the network ends is an outcome (of lv, learning rate and number of steps), not an input. s_l is analytic; the
measured density is what counts. Here the model holds W, so one plain backward pass gives G and the forward keeps no
tensor that a dense one would not; w and r are the stage's own. w is centred once after every step.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from typing import Any, Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from trials.config.recipes import PretrainRecipe, Recipe
from trials.config.trial_config import HasVariant, TrialConfig
from trials.methods.adaptive.thresholds import MOST, Thresholded, sparsity_loss, threshold_of
from trials.methods.base import Method, Stage
from trials.methods.dense import dense_trial
from trials.sparsity import prunable
from trials.training.net import Batch, Net
from trials.training.optimizers import Sgd


class AdaptiveRecipe(Recipe):
    """60 epochs by a cosine that restarts once (the released script)."""

    epochs: int = Field(default=60, ge=0)
    schedule: str = "cosine_restart"


class AdaptiveSparsityConfig(HasVariant):
    """Train towards sparsity ``starget``, thresholds and all; from initialisation, as published, unless ``pretrain`` or
    ``source_net`` says otherwise.

    ``variant: original`` restarts the learning rate after epochs // 2 (an odd number of epochs then ends on one at full
    rate) and sizes a grouped convolution up as if it were dense where it decides which layers have thresholds.

    Attributes:
        starget: T, the share of weights to lose, over the layers that have thresholds.
        mode: what the sparsity loss compares with T.
        lv: weight of the sparsity loss.
        pthres: layers with fewer weights stay dense and are not counted.
        initial_threshold: r at the start, in standard deviations. None: where the analytic sparsity is 0.6 T, or T if
            thresholds are not trainable. From sqrt 3 on, a layer whose weights start uniform starts empty.
        trainable: whether thresholds learn. If not, there is no sparsity loss: a fixed cut at ``initial_threshold``.
        threshold_lr_factor: the thresholds' learning rate, as a share of ``train.lr``.
        exact_target: end on exactly T: the weights of greatest |w|/t stay (mode fixed: of each layer).
        pretrain: start from a dense network trained so, shared by every trial that says the same.
        source_net: a file of weights to start from.
    """

    method: Literal["adaptive_sparsity"] = "adaptive_sparsity"
    starget: float = Field(ge=0, lt=1)
    mode: Literal["adaptive", "fixed", "one_sided"] = "adaptive"
    lv: float = Field(default=10.0, ge=0)
    pthres: int = Field(default=1000, ge=0)
    initial_threshold: float | None = Field(default=None, ge=0, le=MOST)
    trainable: bool = True
    threshold_lr_factor: float = Field(default=0.01, gt=0)
    exact_target: bool = False
    train: AdaptiveRecipe = AdaptiveRecipe()
    pretrain: PretrainRecipe | None = None
    source_net: str | None = None

    @model_validator(mode="after")
    def _one_start(self) -> AdaptiveSparsityConfig:
        if self.pretrain is not None and self.source_net is not None:
            raise ValueError(f"source_net is {self.source_net!r} beside pretrain, but a trial has one start: keep one")
        return self

    @model_validator(mode="before")
    @classmethod
    def _as_released(cls, content: Any) -> Any:
        if not isinstance(content, Mapping) or content.get("variant") != "original":
            return content
        train = content.get("train", {})
        if not isinstance(train, Mapping):
            return content
        return {**content, "train": {"schedule": "cosine_restart_released", **train}}

    def sparsified(self, model: nn.Module) -> dict[str, Tensor]:
        """The weights that have thresholds, in module order. One alone has no standard deviation."""
        as_dense = self.variant == "original"
        return {
            name: weight
            for name, weight in prunable(model).items()
            if weight.numel() * (_groups(model, name) if as_dense else 1) >= max(self.pthres, 2)
        }

    def first_threshold(self) -> float:
        """r at the start."""
        if self.initial_threshold is not None:
            return self.initial_threshold
        return threshold_of(0.6 * self.starget if self.trainable else self.starget)


def _groups(model: nn.Module, weight: str) -> int:
    return int(getattr(model.get_submodule(weight.removesuffix(".weight")), "groups", 1))


class TrainWithThresholds(Stage):
    """SGD on weights and thresholds; the mask follows."""

    captures = True
    changes_network = True

    def __init__(self, config: AdaptiveSparsityConfig) -> None:
        super().__init__("train", config.train)
        self.config = config
        self.layers = Thresholded({}, 0.0)
        self.net: Net | None = None

    def take(self, net: Net) -> bool:
        """Give the network's layers their thresholds; False if they have them."""
        if self.net is net:
            return False
        weights = self.config.sparsified(net.model)
        if not weights:
            warnings.warn(
                f"pthres is {self.config.pthres}, but no layer has as many weights: none is pruned", stacklevel=2
            )
        self.net, self.layers = net, Thresholded(weights, self.config.first_threshold())
        return True

    def enter(self, net: Net) -> None:
        if self.take(net):
            self.cut(net)

    def cut(self, net: Net) -> None:
        """w <- w - mean(w); W = w 1[|w| > t]."""
        self.layers.centre()
        net.update_masks(self.layers.masks(), self.layers.w)

    def attach(self, net: Net) -> None:
        self.take(net)
        w, r, recipe = self.layers.w, self.layers.r, self.recipe
        self.parameters = dict(net.model.named_parameters())
        others = [p for name, p in self.parameters.items() if name not in w]
        self.sgd = Sgd.of(recipe, [*w.values(), *others])
        lr = self.config.threshold_lr_factor * recipe.lr
        self.threshold_sgd = Sgd([r.requires_grad_()], lr=lr, momentum=recipe.momentum, weight_decay=0)

    def begin_epoch(self, epoch: int) -> None:
        lr = self.schedule(epoch)
        self.sgd.set_lr(lr)
        self.threshold_sgd.set_lr(self.config.threshold_lr_factor * lr)

    def step(self, *batches: Batch) -> tuple[Tensor, Tensor]:
        assert self.net is not None
        loss, correct = self.backward(self.net, batches[0])
        self.sgd.step()
        self.threshold_sgd.step()
        self.cut(self.net)
        return loss, correct

    def backward(self, net: Net, batch: Batch) -> tuple[Tensor, Tensor]:
        """Cross entropy and sparsity loss, and the hits; gradients of everything that is trained."""
        net.model.zero_grad(set_to_none=True)
        self.threshold_sgd.zero_grad()
        loss, correct = net.loss(*batch)
        if self.config.trainable:
            loss = loss + self.sparsity_loss()
        torch.autograd.backward(loss)
        self.layers.pass_through(self.parameters, trainable=self.config.trainable)
        return loss.detach(), correct

    def sparsity_loss(self) -> Tensor:
        config = self.config
        return sparsity_loss(self.layers.r, self.layers.n, starget=config.starget, lv=config.lv, mode=config.mode)

    def end_epoch(self, net: Net, epoch: int) -> None:
        if self.config.exact_target and epoch + 1 == self.epochs:
            masks = self.layers.exact_masks(self.config.starget, per_layer=self.config.mode == "fixed")
            net.set_masks(masks, latent=self.layers.w)

    def columns(self) -> dict[str, float]:
        """Measured and analytic densities: of weights with thresholds (as ``density``), all weights, all parameters."""
        assert self.net is not None
        counts = self.layers.counts
        kept = float(sum(mask.sum() for mask in self.net.masks.values()))
        analytic = sum(n * d for n, d in zip(counts, self.layers.analytic_density(), strict=True))
        weights = sum(weight.numel() for weight in prunable(self.net.model).values())
        parameters = sum(parameter.numel() for parameter in self.parameters.values())
        r = self.layers.r
        return {
            "lr": float(self.sgd.lr),
            "threshold_lr": float(self.threshold_sgd.lr),
            "sparsity_loss": float(self.sparsity_loss().detach()),
            "thresholds_outside": int(((r <= 0) | (r >= MOST)).sum()),
            "analytic_density": analytic / sum(counts) if counts else 1.0,
            **_of("weights", weights, dense=weights - sum(counts), kept=kept, analytic=analytic),
            **_of("parameters", parameters, dense=parameters - sum(counts), kept=kept, analytic=analytic),
        }

    def layer_columns(self) -> dict[str, dict[str, float]]:
        each = zip(self.layers.w, self.layers.r.tolist(), self.layers.analytic_density(), strict=True)
        return {name: {"threshold": r, "analytic_density": density} for name, r, density in each}

    def state_dict(self) -> dict[str, Any]:
        return {
            "layers": self.layers.state_dict(),
            "sgd": self.sgd.state_dict(),
            "threshold_sgd": self.threshold_sgd.state_dict(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.layers.load_state_dict(state["layers"])
        self.sgd.load_state_dict(state["sgd"])
        self.threshold_sgd.load_state_dict(state["threshold_sgd"])


def _of(what: str, total: int, *, dense: int, kept: float, analytic: float) -> dict[str, float]:
    return {f"density_of_{what}": (dense + kept) / total, f"analytic_density_of_{what}": (dense + analytic) / total}


class AdaptiveSparsity(Method):
    """Train weights and thresholds together.

    No stage may be stopped early: before the density is near its target, accuracy says nothing.
    """

    Config = AdaptiveSparsityConfig
    config: AdaptiveSparsityConfig
    reports = (
        "analytic_density",
        "density_of_weights",
        "analytic_density_of_weights",
        "density_of_parameters",
        "analytic_density_of_parameters",
    )

    def source(self) -> TrialConfig | None:
        return None if self.config.pretrain is None else dense_trial(self.config, self.config.pretrain)

    def stages(self) -> Iterator[Stage]:
        yield TrainWithThresholds(self.config)
