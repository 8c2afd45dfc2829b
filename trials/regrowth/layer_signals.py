"""Measurements on a sparse network before regrowth: capacity and SSIM of layers, scores of weights or filters."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, Literal

import torch
from torch import Tensor

from trials.data import Loader
from trials.regrowth.channels import kept_filters, taylor_scores, units
from trials.regrowth.saliency import batch_mean_gradients, gradient_magnitudes, saliency, sparse_saliency
from trials.regrowth.ssim import ascending, below, layer_similarity
from trials.seeding import derive_seed
from trials.sparsity import prunable
from trials.training.net import Batch, Net

BATCH_SIZE = 128


@dataclass(frozen=True)
class Targets:
    """The layers that may grow, in the order in which an allocation decides on them.

    Attributes:
        names: weight names.
        capacities: number of pruned units per layer, weights or filters.
        ssim: structural similarity of dense and sparse features per layer; NaN where undefined.
    """

    names: list[str]
    capacities: list[int]
    ssim: list[float]

    def with_room(self) -> Targets:
        """The layers in which something was pruned."""
        left = [i for i, capacity in enumerate(self.capacities) if capacity]
        return Targets([self.names[i] for i in left], [self.capacities[i] for i in left], [self.ssim[i] for i in left])


def weight_name(layer: str) -> str:
    """Return the parameter name of a layer's weight."""
    return f"{layer}.weight"


def measured_ssim(
    dense: Net, sparse: Net, data: Loader, batches: int, per: Literal["mean_map", "sample"]
) -> dict[str, float]:
    """Return the SSIM of every masked layer by weight name, on validation images, since this selects layers."""
    layers = [name.removesuffix(".weight") for name in sparse.masks]
    images = [x for x, _ in islice(data.eval_batches("val", BATCH_SIZE), batches)]
    training = sparse.model.training
    sparse.model.eval()
    found = layer_similarity(dense.model.eval(), sparse.model, images, layers, per)
    sparse.model.train(training)
    return {weight_name(layer): value for layer, value in found.items()}


def choose_targets(
    sparse: Net,
    ssim: dict[str, float],
    *,
    layers: Sequence[str] | None,
    threshold: float | None,
    order: Literal["ssim", "network", "shuffled"],
    missing: float | None,
    unit: Literal["weight", "filter"] = "weight",
    generator: torch.Generator,
) -> Targets:
    """Return the layers that may grow.

    Args:
        layers: names of candidate layers; None means every masked layer.
        threshold: keep the candidates with an SSIM below this, or only the lowest if there are none.
        order: by ascending SSIM (undefined last), as in the network, or shuffled.
        missing: replaces undefined SSIM; None excludes such layers from the threshold and sorts them last.
        unit: unit of the capacities.
    """
    names = [weight_name(layer) for layer in layers] if layers is not None else list(sparse.masks)
    if threshold is not None:
        low = set(below({name: ssim[name] for name in names}, threshold, missing))
        names = [name for name in names if name in low]
    if order == "ssim":
        ranked = ascending({name: ssim[name] for name in names}, missing)
        names = ranked + [name for name in names if name not in ranked]
    elif order == "shuffled":
        names = [names[i] for i in torch.randperm(len(names), generator=generator).tolist()]
    counts = torch.stack([(~units(sparse.masks[name], unit)).sum() for name in names]).tolist() if names else []
    return Targets(names, counts, [ssim[name] for name in names])


def scores(
    kind: Literal["saliency", "gradient"],
    dense: Net,
    sparse: Net,
    data: Loader,
    names: Sequence[str],
    *,
    unit: Literal["weight", "filter"],
    of: Literal["dense", "sparse"],
    batches: int,
    seed: int,
) -> dict[str, Tensor]:
    """Return scores of all units of the layers ``names``: weights, in the weight's shape, or filters, [O].

    ``saliency`` of a filter is the sum over its weights. ``gradient`` uses the sparse network's gradient: its magnitude
    for weights, a first-order Taylor score for filters, as in the structured part of
    https://github.com/EnumaCaliber/Bidirection-Prune-Regrowth, commit b40cb9f, but in eval mode.

    Args:
        of: the network whose gradients the saliency uses; its weights are always the dense network's.
        batches: number of training batches to average over.
    """
    images = _training_images(data, seed)
    own, others = prunable(sparse.model), prunable(dense.model)
    chosen = {name: (others if kind == "saliency" and of == "dense" else own)[name] for name in names}
    if kind == "saliency":
        if of == "dense":
            found = saliency(dense, images, chosen, batches)
        else:
            found = sparse_saliency(sparse, images, chosen, others, batches)
        return found if unit == "weight" else {name: score.flatten(1).sum(1) for name, score in found.items()}
    if unit == "weight":
        return gradient_magnitudes(sparse, images, chosen, batches)
    gradients = batch_mean_gradients(sparse, images, chosen, batches)
    return {
        name: taylor_scores(gradients[name][kept_filters(sparse.masks[name])], others[name].detach()) for name in names
    }


def _training_images(data: Loader, seed: int) -> Iterator[Batch]:
    """Return training batches without augmentation, in an order of their own."""
    return data.batches(
        seed=derive_seed(seed, "signals"), epoch=0, stream="signals", batch_size=BATCH_SIZE, augment=False
    )


def allocation_rows(
    targets: Targets, counts: Sequence[int], *, step: int, episode: int, budget: int
) -> list[dict[str, Any]]:
    """Return one row per layer for the table ``allocations``; an undefined SSIM becomes None."""
    return [
        {
            "step": step,
            "episode": episode,
            "layer": name.removesuffix(".weight"),
            "capacity": capacity,
            "count": count,
            "budget": budget,
            "ssim": None if math.isnan(ssim) else ssim,
        }
        for name, capacity, ssim, count in zip(targets.names, targets.capacities, targets.ssim, counts, strict=True)
    ]
