"""Shared parts of regrowth methods: the sparse source network, the target layers, and the choice of regrown weights.

The algorithms are in trials/regrowth/.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, ClassVar, Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from trials.config.recipes import one_of
from trials.config.source_config import StartsDense
from trials.config.trial_config import ReportRule
from trials.errors import UserError, unknown_name
from trials.frozen import Frozen
from trials.methods.base import generator_for
from trials.methods.dense import fields_of_source
from trials.methods.regrow.episodes import Episode, EpisodeRecipe
from trials.methods.regrow.finetuning import AdamWRecipe
from trials.methods.regrow.prune_iterative import DENSE, PRUNED, PruneIterativeConfig
from trials.methods.rounding import AS_RELEASED, Rounding
from trials.models import without_values
from trials.networks.named_files import require_unchanged
from trials.networks.stored import network_of
from trials.regrowth import selection
from trials.regrowth.channels import filter_indices, units
from trials.regrowth.initial import INITIAL, TRAINABLE, Indices, grown, initial_values, reinitialise
from trials.regrowth.layer_signals import Targets, choose_targets, measured_ssim, scores
from trials.sparsity import DISTRIBUTIONS, PATTERNS, SCORES, Masks, prunable
from trials.training.net import Net
from trials.training.stage_context import StageContext


class SparseRecipe(AdamWRecipe):
    """Finetuning after one-shot pruning: 400 epochs, stopped after 50 without improvement."""

    epochs: int = Field(default=400, ge=0)
    patience: int | None = Field(default=50, ge=1)


class SparseSource(Frozen):
    """How the sparse network is pruned; fields as in prune_iterative. One level of 99 % is one-shot pruning.

    Attributes:
        score: how much a weight matters.
        distribution: how the budget is divided over layers.
        rounding: how shares become whole numbers of weights: ``nearest``, or as ``released``.
        levels: number of rounds of pruning and finetuning.
        prune_fraction: share of the remaining weights that a level removes.
        finetune: recipe of every level.
    """

    as_before: ClassVar[Mapping[str, Any]] = AS_RELEASED

    score: Annotated[str, one_of(SCORES)] = "lamp"
    distribution: Annotated[str, one_of(DISTRIBUTIONS)] = "global"
    rounding: Rounding = "nearest"
    levels: int = Field(default=1, ge=1)
    prune_fraction: float = Field(default=0.99, gt=0, lt=1)
    finetune: SparseRecipe = SparseRecipe()


class RegrowingConfig(StartsDense):
    """Which layers may grow, which of their weights are regrown, and from what values.

    SSIM and accuracies are measured on validation images.

    Attributes:
        prune: how the sparse network is made; a shared trial for all trials with the same values.
        unit: what is pruned and regrown: weights, or whole filters. With filters, only convolutions take part, and
            budgets and capacities count filters.
        layers: names of the layers that may grow; null is all.
        ssim_threshold: keep only layers whose SSIM between dense and sparse features is below this, or the layer with
            the lowest SSIM if there are none; null keeps all.
        ssim_per: ``mean_map`` compares feature maps averaged over the images; ``sample`` averages the SSIM per image.
        ssim_batches: validation batches that SSIM is measured on.
        order: order of the layers in an allocation: ascending SSIM, as in the network, or shuffled.
        selection: which weights are regrown: highest ``saliency`` of the dense network, largest ``gradient`` of the
            sparse network, first those that a ``reference`` network keeps, or ``random`` ones.
        initial: initial values of regrown weights (trials/regrowth/initial.py).
        reinitialise: whether all kept weights of the layers with masks start from ``initial``, not only regrown ones.
            ``reference`` and ``dense`` do so in the layers that grow only.
        reference: folder of another trial, whose mask ``selection: reference`` follows and whose weights
            ``initial: reference`` takes; null is the dense network, which keeps every weight. With ``initial: dense``
            the mask chooses the weights, and their values are the dense network's, as in the released code.
        saliency_model: network whose gradients the saliency uses.
        saliency_batches: training batches that saliency and gradients are averaged over.
        batchnorm_batches: training batches on which to measure BN's statistics again after growth; 0 keeps them.
        episode: the brief finetuning after which an allocation is rewarded.
    """

    named_files: ClassVar[Mapping[str, Literal["weights", "trial"]]] = {
        **StartsDense.named_files,
        "reference": "trial",
    }

    own_report: ClassVar[ReportRule] = "best_val"

    prune: SparseSource = SparseSource()
    unit: Literal["weight", "filter"] = "weight"
    layers: tuple[str, ...] | None = Field(default=None, strict=False)
    ssim_threshold: float | None = None
    ssim_per: Literal["mean_map", "sample"] = "mean_map"
    ssim_batches: int = Field(default=20, ge=1)
    order: Literal["ssim", "network", "shuffled"] = "ssim"
    selection: Literal["saliency", "gradient", "reference", "random"] = "saliency"
    initial: Annotated[str, one_of(INITIAL)] = "zero"
    reinitialise: bool = False
    reference: str | None = None
    saliency_model: Literal["dense", "sparse"] = "dense"
    saliency_batches: int = Field(default=50, ge=1)
    batchnorm_batches: int = Field(default=0, ge=0)
    episode: EpisodeRecipe = EpisodeRecipe()

    @model_validator(mode="after")
    def _layers_exist(self) -> RegrowingConfig:
        self.sparse_config()  # raises if prune is invalid
        if self.layers is not None:
            if not self.layers:
                raise ValueError("layers is empty, but must name at least one layer: leave it out for all of them")
            model = without_values(self.model, num_classes=10, in_channels=3)
            weights = prunable(model, linear=PATTERNS[self.unit].linear)
            names = [name.removesuffix(".weight") for name in weights]
            for layer in self.layers:
                if layer not in names:
                    raise ValueError(unknown_name("layers", layer, names))
        return self

    @model_validator(mode="after")
    def _starts_anew(self) -> RegrowingConfig:
        if self.reinitialise and self.initial not in TRAINABLE:
            raise ValueError(
                f"reinitialise is true, but initial {self.initial!r} gives no network to train from: give one of "
                f"{', '.join(TRAINABLE)}"
            )
        return self

    def sparse_config(self) -> PruneIterativeConfig:
        """The shared trial that makes the sparse network."""
        keep: tuple[Literal["dense", "pruned"], ...] = (DENSE, PRUNED) if self.initial == "magnitude" else (DENSE,)
        recipe = {name: getattr(self.prune, name) for name in SparseSource.model_fields}
        recipe["finetune"] = AdamWRecipe(**self.prune.finetune.model_dump())
        rule = None if self.report == PruneIterativeConfig.own_report else self.report  # one name for one content
        return PruneIterativeConfig(
            **fields_of_source(self, StartsDense), **recipe, pattern=self.unit, keep=keep, report=rule
        )

    @property
    def ranks_units_anew(self) -> bool:
        return self.sparse_config().ranks_units_anew

    @property
    def rounds_anew(self) -> bool:
        return self.sparse_config().rounds_anew

    @property
    def indifferent(self) -> frozenset[str]:
        return frozenset(f"prune.{field}" for field in self.sparse_config().indifferent)

    @property
    def missing(self) -> float | None:
        """SSIM to assume for layers without one; None excludes them where layers are chosen by SSIM."""
        return None


def require_reference(config: RegrowingConfig, model: nn.Module) -> None:
    """Check that the trial that ``reference`` names is of the same model; ``model`` may lie on the meta device.

    Raises:
        UserError: its weights have other names or shapes.
    """
    if config.reference is None:
        return
    found = network_of(require_unchanged(config, "reference"))["model"]
    for name, weight in prunable(model).items():
        if name not in found or found[name].shape != weight.shape:
            raise UserError(
                f"reference is {config.reference!r}, but its network has {'another' if name in found else 'no'} {name} "
                "than this model: give a trial of the same model that is not compact"
            )


class Growth:
    """Choose the weights to regrow in one sparse network, given their number per layer.

    Construction measures the SSIM of the layers and, if the selection needs them, the scores of their weights.
    """

    def __init__(self, config: RegrowingConfig, net: Net, context: StageContext, level: int) -> None:
        self.config, self.net, self.level = config, net, level
        self.stale = net.snapshots.get(PRUNED)
        self.dense = net.clone()
        self.dense.set_masks({})
        self.dense.model.load_state_dict(net.snapshots[DENSE])
        self.dense_weights = prunable(self.dense.model)
        self.reference, self.reference_masks = self.dense_weights, {}
        if config.reference is not None:
            found = network_of(require_unchanged(config, "reference"))
            self.reference = {name: found["model"][name].to(net.device) for name in net.masks}
            self.reference_masks = {name: mask.to(net.device) for name, mask in found["masks"].items()}
        ssim = measured_ssim(self.dense, net, context.data, config.ssim_batches, config.ssim_per)
        self.targets: Targets = choose_targets(
            net,
            ssim,
            layers=config.layers,
            threshold=config.ssim_threshold,
            order=config.order,
            missing=config.missing,
            unit=config.unit,
            generator=generator_for(config, "order", level),
        )
        self.scores: dict[str, Tensor] = {}
        self.ranked: dict[str, Tensor] = {}
        if config.selection in ("saliency", "gradient"):
            self.scores = scores(
                config.selection,
                self.dense,
                net,
                context.data,
                self.targets.names,
                unit=config.unit,
                of=config.saliency_model,
                batches=config.saliency_batches,
                seed=config.seed,
            )

    def episode(self, number: int, counts: Sequence[int], patient: bool = False) -> Episode:
        """The episode that regrows ``counts`` weights per target layer; the same result for the same arguments."""
        indices = {
            name: self._select(number, name, count)
            for name, count in zip(self.targets.names, counts, strict=True)
            if count
        }
        masks = grown(self.net.masks, indices)
        values = initial_values(
            self.config.initial,
            masks,
            indices,
            generator_for(self.config, "initial", self.level, number),
            stale=self.stale,
            reference=self.reference,
            kept=self.reference_masks,
            dense=self.dense_weights,
        )
        anew = self._anew(number, masks, indices) if self.config.reinitialise else {}
        return Episode(number, indices, {name: value.detach() for name, value in values.items()}, patient, anew)

    def _anew(self, number: int, masks: Masks, indices: Indices) -> dict[str, Tensor]:
        """All weights of the masked layers as they start if the kept ones are reinitialised, too."""
        weights = {name: w.detach().clone() for name, w in prunable(self.net.model).items() if name in masks}
        given = self.dense_weights if self.config.initial == "dense" else self.reference
        reinitialise(
            self.config.initial,
            weights,
            masks,
            generator_for(self.config, "reinitialise", self.level, number),
            {name: given[name].detach() for name in indices},
        )
        return weights

    def _select(self, number: int, name: str, count: int) -> Tensor:
        chosen = self._select_units(number, name, count)
        return chosen if self.config.unit == "weight" else filter_indices(chosen, self.net.masks[name].shape)

    def _select_units(self, number: int, name: str, count: int) -> Tensor:
        mask = units(self.net.masks[name], self.config.unit)
        if name in self.scores:  # ranked for twice the count requested, so that few episodes have to rank again
            if len(self.ranked.get(name, ())) < count:
                self.ranked[name] = selection.highest(mask, self.scores[name], 2 * count)
            return self.ranked[name][:count]
        generator = generator_for(self.config, "select", self.level, number, name)
        if self.config.selection == "reference" and name in self.reference_masks:
            every = torch.ones_like(mask)
            kept = units(self.reference_masks[name], self.config.unit)
            return selection.referenced(mask, every, kept, count, generator)[0]
        return selection.uniform(mask, count, generator)
