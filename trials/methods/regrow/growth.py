"""What methods that regrow have in common: the sparse network they start from, the layers that may grow, and which of
their weights come back with what values. See trials/regrowth/.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor

from trials.config.recipes import one_of
from trials.config.trial_config import StartsDense
from trials.errors import unknown_name
from trials.frozen import Frozen
from trials.methods.base import generator_for
from trials.methods.regrow.episodes import Episode, EpisodeRecipe
from trials.methods.regrow.finetuning import AdamWRecipe
from trials.methods.regrow.prune_iterative import DENSE, PRUNED, PruneIterativeConfig, common_fields
from trials.models import MODELS
from trials.networks.stored import network_of
from trials.regrowth import selection
from trials.regrowth.channels import filter_indices, units
from trials.regrowth.initial import INITIAL, grown, initial_values
from trials.regrowth.layer_signals import Targets, choose_targets, measured_ssim, scores
from trials.sparsity import PATTERNS, prunable
from trials.training.net import Net
from trials.training.stage_context import StageContext


class SparseRecipe(AdamWRecipe):
    """Finetuning after pruning at once: 400 epochs, or 50 without a better one."""

    epochs: int = Field(default=400, ge=0)
    patience: int | None = Field(default=50, ge=1)


class SparseSource(Frozen):
    """How the sparse network is made: see prune_iterative. One round of 99 % is one-shot pruning."""

    score: str = "lamp"
    distribution: str = "global"
    levels: int = Field(default=1, ge=1)
    prune_fraction: float = Field(default=0.99, gt=0, lt=1)
    finetune: SparseRecipe = SparseRecipe()


class RegrowingConfig(StartsDense):
    """What may grow, and how. Images that select and judge are validation's.

    Attributes:
        prune: the sparse network; shared by every trial that says the same.
        unit: what is pruned and comes back: weights, or whole filters (then of convolutions only, and budgets and
            capacities count filters).
        layers: that may grow, by name; null is all.
        ssim_threshold: of these, those with a similarity to their dense selves below it; the lowest if none is.
        ssim_per: similarity of the mean maps, or the mean over images.
        order: of the layers: by ascending similarity, as in the network, or drawn.
        selection: which weights come back: by ``saliency`` of the dense network, by the sparse network's ``gradient``,
            first those that a ``reference`` network has, or at ``random``.
        initial: what they start from.
        reference: the folder of another trial, whose mask ``selection: reference`` follows and whose weights
            ``initial: reference`` takes; null is the dense network, which has every weight.
        saliency_model: whose gradients the saliency takes.
        batchnorm_batches: after growth, measure BN's statistics anew over so many training batches.
    """

    prune: SparseSource = SparseSource()
    unit: Literal["weight", "filter"] = "weight"
    layers: tuple[str, ...] | None = Field(default=None, strict=False)
    ssim_threshold: float | None = None
    ssim_per: Literal["mean_map", "sample"] = "mean_map"
    ssim_batches: int = Field(default=20, ge=1)
    order: Literal["ssim", "network", "shuffled"] = "ssim"
    selection: Literal["saliency", "gradient", "reference", "random"] = "saliency"
    initial: Annotated[str, one_of(INITIAL)] = "zero"
    reference: str | None = None
    saliency_model: Literal["dense", "sparse"] = "dense"
    saliency_batches: int = Field(default=50, ge=1)
    batchnorm_batches: int = Field(default=0, ge=0)
    episode: EpisodeRecipe = EpisodeRecipe()

    @model_validator(mode="after")
    def _layers_exist(self) -> RegrowingConfig:
        self.sparse_config()  # says what is wrong with prune
        if self.layers is not None:
            if not self.layers:
                raise ValueError("layers is empty, but must name at least one layer: leave it out for all of them")
            with torch.device("meta"):
                model = MODELS[self.model](num_classes=10, in_channels=3)
                weights = prunable(model, linear=PATTERNS[self.unit].linear)
            names = [name.removesuffix(".weight") for name in weights]
            for layer in self.layers:
                if layer not in names:
                    raise ValueError(unknown_name("layers", layer, names))
        return self

    def sparse_config(self) -> PruneIterativeConfig:
        """The trial whose network is regrown."""
        keep: tuple[Literal["dense", "pruned"], ...] = (DENSE, PRUNED) if self.initial == "magnitude" else (DENSE,)
        recipe = {name: getattr(self.prune, name) for name in SparseSource.model_fields}
        recipe["finetune"] = AdamWRecipe(**self.prune.finetune.model_dump())
        return PruneIterativeConfig(**common_fields(self), **recipe, pattern=self.unit, keep=keep)

    @property
    def missing(self) -> float | None:
        """The SSIM that stands for layers that have none; None leaves them out where layers are chosen by SSIM."""
        return None


class Growth:
    """Turns numbers of weights per layer into weights, for one sparse network."""

    def __init__(self, config: RegrowingConfig, net: Net, context: StageContext, level: int) -> None:
        self.config, self.net, self.level = config, net, level
        self.stale = net.snapshots.get(PRUNED)
        self.dense = net.clone()
        self.dense.set_masks({})
        self.dense.model.load_state_dict(net.snapshots[DENSE])
        self.reference, self.reference_masks = prunable(self.dense.model), {}
        if config.reference is not None:
            found = network_of(Path(config.reference).expanduser())
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
        """The weights that an allocation brings back; the same ones whenever it is asked."""
        indices = {
            name: self._select(number, name, count)
            for name, count in zip(self.targets.names, counts, strict=True)
            if count
        }
        values = initial_values(
            self.config.initial,
            grown(self.net.masks, indices),
            indices,
            generator_for(self.config, "initial", self.level, number),
            stale=self.stale,
            reference=self.reference,
            kept=self.reference_masks,
        )
        return Episode(number, indices, {name: value.detach() for name, value in values.items()}, patient)

    def _select(self, number: int, name: str, count: int) -> Tensor:
        chosen = self._select_units(number, name, count)
        return chosen if self.config.unit == "weight" else filter_indices(chosen, self.net.masks[name].shape)

    def _select_units(self, number: int, name: str, count: int) -> Tensor:
        mask = units(self.net.masks[name], self.config.unit)
        if name in self.scores:  # ranked once for all episodes, twice as far as anybody has asked
            if len(self.ranked.get(name, ())) < count:
                self.ranked[name] = selection.highest(mask, self.scores[name], 2 * count)
            return self.ranked[name][:count]
        generator = generator_for(self.config, "select", self.level, number, name)
        if self.config.selection == "reference" and name in self.reference_masks:
            every = torch.ones_like(mask)
            kept = units(self.reference_masks[name], self.config.unit)
            return selection.referenced(mask, every, kept, count, generator)[0]
        return selection.uniform(mask, count, generator)
