"""Weight pruning by an adaptive sparsity loss: every layer learns the threshold that prunes its weights.

Retsinas et al. 2021, https://arxiv.org/abs/2006.02768; released code: georgeretsi/SparsityLoss at 9869e8c.

Layer l with n_l weights w has a trainable threshold r_l, in units of the weights' standard deviation sigma:

    w <- w - mean(w)         t = clamp(r, 0, 5) sigma + eps         W = w 1[|w| > t]

The network computes with W. The gradient G = dL/dW passes straight through to w; only pruned weights contribute to r:

    dL/dw = G                dL/dr = -(sigma/t) sum_{|w| <= t} G w   if 0 < r < 5, else 0

For Gaussian weights, layer l has sparsity s_l = erf(r_l/sqrt 2), and all N weights with thresholds have sparsity
S = sum n_l s_l / N. The sparsity loss pulls these towards the target T:

    L = cross entropy + lv (S - T)^2                  mode adaptive: layers find their shares of one budget
                      + lv mean_l (s_l - T)^2         mode fixed: the same target for every layer
                      + lv max(T - S, 0)              mode one_sided: only too low a sparsity is penalised

The final sparsity depends on lv, learning rate and number of steps; T does not guarantee it. s_l is analytic; compare
trials by the measured density. The model holds W, so a plain backward pass gives G and the forward pass stores no more
tensors than a dense one; the stage holds w and r. w is centred once after every step.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Hashable, Iterator, Mapping, Sequence
from typing import Annotated, Any, Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from trials.config.recipes import PretrainRecipe, Recipe, one_of
from trials.config.schedules import SCHEDULES
from trials.config.trial_config import HasVariant, TrialConfig
from trials.data_header import DataHeader
from trials.errors import UserError
from trials.methods.adaptive.finetuning import DENSITIES, TrainUnderCut
from trials.methods.adaptive.thresholds import MOST, Thresholded, sparsity_loss, threshold_of
from trials.methods.asked import AskedShare, share_of
from trials.methods.base import Method, Stage
from trials.methods.budgets import Budget, LeftLayer, require_untied
from trials.methods.dense import dense_trial
from trials.methods.model_facts import LayerFacts, facts_of
from trials.methods.rounding import HasRounding, NamedShape, pruned_once
from trials.sparsity import prunable
from trials.training.net import Batch, Net
from trials.training.optimizers import Sgd

AIM = 0.05
"""A density or sparsity counts as reached within this share of it, since the loss only pulls towards the target."""


class AdaptiveRecipe(Recipe):
    """60 epochs with a cosine learning rate that restarts once, as in the released script."""

    epochs: int = Field(default=60, ge=0)
    schedule: Annotated[str, one_of(SCHEDULES)] = "cosine_restart"


class AdaptiveSparsityConfig(HasVariant, HasRounding):
    """Train weights and thresholds towards sparsity ``starget``.

    Starts from initialisation, as published, unless ``pretrain`` or ``source_net`` is given.
    ``variant: original`` restarts the learning rate after epochs // 2, so that an odd number of epochs ends with one at
    the full rate, and counts a grouped convolution as dense when deciding which layers have thresholds.

    Attributes:
        starget: T, the target sparsity over the layers that have thresholds.
        mode: the form of the sparsity loss (see the module's docstring).
        lv: weight of the sparsity loss.
        pthres: layers with fewer weights stay dense and are not counted.
        initial_threshold: initial r, in standard deviations. None: r of analytic sparsity 0.6 T, or T if thresholds are
            not trainable. From sqrt 3 on, a layer with uniformly initialised weights starts with none kept.
        trainable: whether thresholds are trained. If not, they stay at ``initial_threshold`` without a sparsity loss.
        threshold_lr_factor: learning rate of the thresholds, as a share of ``train.lr``.
        exact_target: after the last epoch, prune to exactly T: keep the weights with the largest |w|/t, over all layers
            or, in mode fixed, in each layer. ``rounding`` is that of this cut, which no released code makes.
        train: recipe of weights and thresholds.
        finetune: recipe under the final mask; null: none, as published, so that a cut can cost all accuracy.
        pretrain: dense training to start from; a shared trial for all trials with the same recipe.
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
    finetune: Recipe | None = None
    pretrain: PretrainRecipe | None = None

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
        if not isinstance(train, Mapping) or train.get("lr_steps"):
            return content
        return {**content, "train": {"schedule": "cosine_restart_released", **train}}

    @property
    def decides_budgets(self) -> tuple[Hashable, ...]:
        return self.starget, self.cut_distribution, self.pthres, self.variant

    @property
    def never_differs(self) -> bool:
        return not (self.exact_target and self.starget)

    @property
    def cut_distribution(self) -> str:
        """How ``exact_target`` divides what it keeps."""
        return "uniform" if self.mode == "fixed" else "global"

    def levels_of(self, layers: Sequence[NamedShape]) -> Iterator[Budget]:
        chosen = [layer for layer in layers if self.has_threshold(math.prod(layer.shape), layer.groups)]
        return pruned_once(chosen, "weight", self.cut_distribution, self.share(self.starget), self.count)

    def sparsified(self, model: nn.Module) -> dict[str, Tensor]:
        """The weights that have thresholds, by name in module order. Each has at least two entries, for a deviation."""
        return {
            name: weight
            for name, weight in prunable(model).items()
            if self.has_threshold(weight.numel(), _groups(model, name))
        }

    def has_threshold(self, weights: int, groups: int) -> bool:
        """Whether a layer of so many weights has a threshold; ``groups`` are a convolution's."""
        return weights * (groups if self.variant == "original" else 1) >= max(self.pthres, 2)

    def first_threshold(self) -> float:
        """Initial r, the same for every layer."""
        if self.initial_threshold is not None:
            return self.initial_threshold
        return threshold_of(0.6 * self.starget if self.trainable else self.starget)

    def asked_share(self, model: nn.Module) -> AskedShare:
        """Ask for T at the end of training: exactly with ``exact_target``, otherwise within a share ``AIM``.

        With mode one_sided, which never penalises a higher sparsity, fewer weights than asked for are fine.
        """
        weights, density = self.sparsified(model) or prunable(model), 1 - self.starget
        count = sum(weight.numel() for weight in weights.values())
        aimed = max(1.0, AIM * min(density, self.starget) * count)
        slack = float(len(weights)) if self.exact_target else aimed
        one_sided = self.mode == "one_sided" and not self.exact_target
        return share_of(weights, density, slack=slack, fewer_is_fine=one_sided, at_end=True)


def _groups(model: nn.Module, weight: str) -> int:
    return int(getattr(model.get_submodule(weight.removesuffix(".weight")), "groups", 1))


class TrainWithThresholds(Stage):
    """The train stage: SGD on weights and thresholds; recomputes the mask after every step."""

    captures = True
    changes_network = True

    def __init__(self, config: AdaptiveSparsityConfig) -> None:
        super().__init__("train", config.train)
        self.config = config
        self._aim: dict[str, Any] = {name: getattr(config, name) for name in ("starget", "lv", "mode")}
        self.layers = Thresholded({}, 0.0)
        self.net: Net | None = None

    def take(self, net: Net) -> bool:
        """Create the thresholds of the network's layers; return False if they already exist."""
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
        """w <- w - mean(w); W <- w 1[|w| > t], in the model."""
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
        # centring here keeps the forward pass pure; the released code centres the stored weights in every forward
        self.cut(self.net)
        return loss, correct

    def backward(self, net: Net, batch: Batch) -> tuple[Tensor, Tensor]:
        """Backpropagate cross-entropy plus sparsity loss; return the total loss and the number of correct images."""
        net.model.zero_grad(set_to_none=True)
        self.layers.r.grad = None
        loss, correct = net.loss(*batch)
        if self.config.trainable and self.layers.w and self.layers.rows is None:
            loss = loss + self.sparsity_loss()
        torch.autograd.backward(loss)
        if self.config.trainable and self.layers.rows is not None:
            loss = loss.detach() + self.layers.take_sparsity_gradient(**self._aim)
        net.work.add(len(batch[1]))
        self.layers.pass_through(self.parameters, trainable=self.config.trainable)
        return loss.detach(), correct

    def sparsity_loss(self) -> Tensor:
        return sparsity_loss(self.layers.r, self.layers.n, **self._aim)

    def end_epoch(self, net: Net, epoch: int) -> None:
        if self.config.exact_target and epoch + 1 == self.epochs:
            config = self.config
            masks = self.layers.exact_masks(config.share(config.starget), config.cut_distribution, config.count)
            net.set_masks(masks, latent=self.layers.w)

    def columns(self) -> dict[str, float]:
        """Learning rates, sparsity loss, number of thresholds outside (0, 5), and analytic and measured densities."""
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
    """Adaptive sparsity: train weights and thresholds together, one stage; then finetuning, if asked for.

    Not stoppable: accuracy is not comparable before the density is near its target.
    """

    Config = AdaptiveSparsityConfig
    config: AdaptiveSparsityConfig
    prunes = ("weight",)
    takes_compact = True
    reports = DENSITIES

    def source(self) -> TrialConfig | None:
        return None if self.config.pretrain is None else dense_trial(self.config, self.config.pretrain)

    def asked(self, model: nn.Module, stage: Stage) -> tuple[AskedShare, ...]:
        return (self.config.asked_share(model),)

    def check(self, model: nn.Module, data: DataHeader) -> None:
        config, facts = self.config, facts_of(model, data)
        self._require_threshold(facts.layers)
        require_untied([layer for layer in facts.layers if self._has_threshold(layer)], config.model)

    def check_left(self, layers: Sequence[LeftLayer]) -> None:
        self._require_threshold(layers)

    def _has_threshold(self, layer: LayerFacts | LeftLayer) -> bool:
        return self.config.has_threshold(layer.weights, layer.groups)

    def _require_threshold(self, layers: Sequence[LayerFacts | LeftLayer]) -> None:
        """Check that there is something to prune."""
        config = self.config
        if config.starget and not any(map(self._has_threshold, layers)):
            most = max(layer.weights for layer in layers)
            raise UserError(
                f"pthres is {config.pthres}, but no layer of {config.model} has as many weights, so none would be "
                f"pruned: give at most {most}"
            )

    def stages(self) -> Iterator[Stage]:
        yield TrainWithThresholds(self.config)
        if self.config.finetune is not None:
            yield TrainUnderCut("finetune", self.config.finetune)
