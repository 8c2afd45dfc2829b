"""Oracle pruning: exhaustive search over the groups to remove, for networks of a few dozen groups.

Wang et al. 2021, https://arxiv.org/abs/2012.09243, section 3; released code: MingSun-Tse/Regularization-Pruning at
a4044028, pruner/oracle_pruner.py.

    candidates = Cartesian product over the layers of all subsets of k groups     k = min(floor(pr n), n - 1)
    picked = argmin over candidates of the mean loss with the picked groups zero and BN's statistics frozen

The loss is taken over the training images without augmentation. The released code augments them, which makes the loss
noisy, and zeroes filters for every pattern.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping
from typing import Any, Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor

from trials.config.recipes import Recipe
from trials.errors import UserError
from trials.methods.base import Stage
from trials.methods.greg.groups import group_shape
from trials.methods.greg.layer_table import table_of
from trials.methods.greg.removal import RemovalMethod
from trials.methods.greg.removal_config import RemovalConfig
from trials.sparsity import prunable
from trials.training.net import Batch, Net

EXACT = 9
"""Candidates are counted exactly up to 10 to this power times the largest number; beyond, counting takes too long."""


class OracleConfig(RemovalConfig):
    """Remove the groups whose removal gives the lowest training loss, found by exhaustive search.

    Attributes:
        max_candidates: largest number of candidates accepted. Each takes a forward pass over all training images.
        batch_size: images per forward pass; affects the pick only through rounding.
    """

    method: Literal["oracle"] = "oracle"
    inherit_pruned: Literal["pr"] = "pr"  # the oracle picks its own groups, so only counts can be inherited
    max_candidates: int = Field(default=10_000, ge=1)
    batch_size: int = Field(default=500, ge=1)

    def count(self, ratio: float, n: int) -> int:
        return min(math.floor(ratio * n), n - 1)

    @model_validator(mode="after")
    def _few_enough(self) -> OracleConfig:
        if self.stage_pr is not None and self.pattern != "weight":  # the number of weights depends on the image shape
            table = table_of(self.model)
            ratios = self.ratios(table)
            sizes = {layer.name: group_shape(layer.shape, self.pattern).numel() for layer in table.layers}
            self.refuse_too_many({name: (n, self.count(ratios[name], n)) for name, n in sizes.items()})
        return self

    def refuse_too_many(self, layers: Mapping[str, tuple[int, int]]) -> None:
        """Raise ValueError if there are more than ``max_candidates``; ``layers``: (groups, to remove) by name."""
        sizes = {name: _subsets_log10(n, k) for name, (n, k) in layers.items()}
        several = sum(sizes.values())
        exact = (
            math.prod(math.comb(n, k) for n, k in layers.values())
            if several < EXACT + math.log10(self.max_candidates)
            else None
        )
        if exact is None or exact > self.max_candidates:
            most = max(sizes, key=lambda name: sizes[name])
            n, k = layers[most]
            count = str(exact) if exact is not None and exact < 10**9 else f"more than 10^{math.floor(several)}"
            raise ValueError(
                f"max_candidates is {self.max_candidates}, but there are {count} (of {most} alone, {k} of {n} groups): "
                "give lower ratios or a smaller model, skip_layers, or raise max_candidates"
            )

    def refuse_too_many_of(self, net: Net, counts: Mapping[str, int]) -> None:
        """Like :meth:`refuse_too_many`, with the group sizes read from a network; ``counts``: groups to remove."""
        weights = prunable(net.model)
        self.refuse_too_many({n: (group_shape(weights[n], self.pattern).numel(), k) for n, k in counts.items()})


class Choose(Stage):
    """The choose stage: one pass over the training images that evaluates every candidate on each batch.

    Attributes:
        losses: loss of every candidate, summed over the images so far, [candidates].
    """

    augment = False
    training_mode = False

    def __init__(self, config: OracleConfig) -> None:
        super().__init__("choose", Recipe(epochs=1, batch_size=config.batch_size))
        self.config = config
        self.counts: dict[str, int] = {}

    def enter(self, net: Net) -> None:
        self.counts = self.config.counts(net)
        self.config.refuse_too_many_of(net, self.counts)

    def attach(self, net: Net) -> None:
        self.net = net
        self._build()

    def _build(self) -> None:
        """Build each layer's subsets as factors of its weight, [subsets, *groups], 0 if picked; reset the losses."""
        weights = prunable(self.net.model)
        self.weights = [weights[name] for name in self.counts]
        self.kept = [
            _complements(weight, group_shape(weight, self.config.pattern), count)
            for weight, count in zip(self.weights, self.counts.values(), strict=True)
        ]
        total = math.prod(map(len, self.kept))
        dtype = torch.float64 if self.net.device.type == "cpu" else torch.float32
        self.losses = torch.zeros(total, device=self.net.device, dtype=dtype)
        self.images = 0

    def candidates(self) -> Iterator[tuple[int, ...]]:
        """Index of each layer's subset, for every candidate; the last layer changes fastest."""
        return itertools.product(*(range(len(kept)) for kept in self.kept))

    def begin_epoch(self, epoch: int) -> None:
        """Nothing depends on the epoch."""

    def step(self, *batches: Batch) -> tuple[Tensor, Tensor]:
        """Add the loss of every candidate on a batch. Return the loss and correct images of the unpruned network."""
        ((x, y),) = batches
        self.net.model.eval()
        with torch.no_grad():
            loss, correct = self.net.loss(x, y)
            whole = [weight.detach().clone() for weight in self.weights]
            before: tuple[int | None, ...] = (None,) * len(whole)
            for number, candidate in enumerate(self.candidates()):
                for layer, subset in enumerate(candidate):  # rewrite only the layers that changed
                    if subset != before[layer]:
                        torch.mul(whole[layer], self.kept[layer][subset], out=self.weights[layer].data)
                before = candidate
                self.losses[number] += self.net.loss(x, y)[0] * len(y)
            for weight, values in zip(self.weights, whole, strict=True):
                weight.copy_(values)
        self.images += len(y)
        return loss, correct

    def best(self) -> tuple[int, ...]:
        """The candidate with the lowest loss; the first one on ties."""
        return next(itertools.islice(self.candidates(), int(self.losses.argmin()), None))

    def end_epoch(self, net: Net, epoch: int) -> None:
        chosen = zip(self.counts, self.kept, self.best(), strict=True)
        net.picked = {name: kept[subset] == 0 for name, kept, subset in chosen}

    def columns(self) -> dict[str, float]:
        return {"candidates": len(self.losses), "candidate_loss": float(self.losses.min()) / max(self.images, 1)}

    def state_dict(self) -> dict[str, Any]:
        return {"counts": self.counts, "losses": self.losses, "images": self.images}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.counts = dict(state["counts"])
        self._build()
        self.losses.copy_(state["losses"])
        self.images = state["images"]


def _subsets_log10(n: int, k: int) -> float:
    """Decimal logarithm of n over k, the number of subsets of ``k`` of ``n`` groups."""
    return (math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1)) / math.log(10)


def _complements(weight: Tensor, shape: torch.Size, count: int) -> Tensor:
    """[subsets, *shape]: 0 for the ``count`` groups of a subset, else 1, in the order of itertools.combinations."""
    subsets = list(itertools.combinations(range(shape.numel()), count))
    kept = torch.ones(len(subsets), shape.numel(), dtype=weight.dtype)
    kept.scatter_(1, torch.tensor(subsets, dtype=torch.int64).view(len(subsets), count), 0)
    return kept.view(len(subsets), *shape).to(weight.device)


class Oracle(RemovalMethod):
    """Oracle pruning: dense network -> loss of every candidate -> removal of the best -> finetuning."""

    Config = OracleConfig
    config: OracleConfig

    def check_counts(self, counts: Mapping[str, tuple[int, int]]) -> None:
        try:
            self.config.refuse_too_many(counts)
        except ValueError as error:
            raise UserError(str(error)) from None

    def initialised(self, net: Net) -> None:
        super().initialised(net)
        if self.config.stage_pr is not None:
            self.config.refuse_too_many_of(net, self.config.counts(net))

    def choosing(self) -> Iterator[Stage]:
        yield Choose(self.config)
