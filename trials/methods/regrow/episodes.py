"""Episodes: regrow a copy of the sparse network by one allocation, finetune it briefly, measure validation accuracy.

An episode depends only on the trial's config, the sparse network and the regrown indices and values. It can run in any
process; on a CPU the reward is bit-identical.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import islice

import torch
from pydantic import Field, field_validator
from torch import Tensor

from trials.config.recipes import BackwardConfig
from trials.config.trial_config import TrialConfig
from trials.errors import Preempted
from trials.methods.regrow.finetuning import AdamWRecipe, Finetune
from trials.regrowth.initial import Indices, grown, write_weights
from trials.seeding import derive_seed
from trials.sparsity import prunable
from trials.training.best_epoch import BestEpoch
from trials.training.evaluation import evaluate
from trials.training.net import Net
from trials.training.network_copy import NetworkCopy, RestoredNetwork


class EpisodeRecipe(AdamWRecipe):
    """The brief finetuning after which an allocation is rewarded.

    The released code (EnumaCaliber/Bidirection-Prune-Regrowth at b40cb9f) trains 50 epochs on all training images and
    rewards test accuracy; here the reward is validation accuracy.

    Attributes:
        epochs: few are enough, because only the order of the allocations matters.
        data_fraction: share of the training images used per epoch; other images in every epoch.
        reward_images: compute the accuracy on this many validation images, the first ones; null uses all.
    """

    epochs: int = Field(default=5, ge=0)
    data_fraction: float = Field(default=1.0, gt=0, le=1)
    reward_images: int | None = Field(default=None, ge=1)

    @field_validator("backward")
    @classmethod
    def _whole_backward(cls, value: BackwardConfig | None) -> None:
        if value is not None:
            raise ValueError("backward is set, but episodes train with whole backward passes: set it in finetune")


@dataclass(frozen=True)
class Episode:
    """The weights that one episode regrows.

    Attributes:
        number: number in the search, 0-based.
        indices: flat indices of the regrown weights, by weight name.
        values: initial values of the regrown weights, by weight name.
        patient: whether the episode ignores requests to stop.
        anew: all weights of the masked layers, by weight name, where those that were kept start anew, too.
    """

    number: int
    indices: Indices
    values: dict[str, Tensor]
    patient: bool = False
    anew: dict[str, Tensor] = field(default_factory=dict)

    def grow(self, net: Net) -> None:
        """Regrow the weights in ``net``, the sparse network."""
        indices = {name: index.to(net.device) for name, index in self.indices.items()}
        net.set_masks(grown(net.masks, indices))
        weights = prunable(net.model)
        write_weights(weights, indices, {name: value.to(net.device) for name, value in self.values.items()})
        with torch.no_grad():
            for name, values in self.anew.items():
                weights[name].copy_(values)


@dataclass(frozen=True)
class EpisodeOutcome:
    """The result of an episode.

    Attributes:
        accuracy: validation accuracy of the best epoch (``report: last``: of the last), or of the regrown network if
            ``epochs`` is 0.
        immediate: validation accuracy after regrowth, before finetuning.
        seconds: wall-clock time of the episode.
        gradient_evaluations: images times forward-backward passes of the episode.
        model: state dict of the finetuned model on the CPU, if requested.
    """

    accuracy: float
    immediate: float
    seconds: float
    gradient_evaluations: int
    model: dict[str, Tensor] | None = None

    def figures(self) -> dict[str, float]:
        """Columns for the episode's rows."""
        return {"accuracy": self.accuracy, "immediate": self.immediate, "seconds": self.seconds}


@dataclass(frozen=True)
class Bench:
    """What all episodes of one search share. Sent to other processes, which restore the network once.

    Attributes:
        copy: copy of the sparse network.
        level: level of the search; seeds the order of the images, which is the same in all its episodes.
        recipe: the brief finetuning.
    """

    copy: NetworkCopy
    level: int
    recipe: EpisodeRecipe

    @classmethod
    def of(cls, config: TrialConfig, net: Net, level: int, recipe: EpisodeRecipe) -> Bench:
        """Copy ``net`` as it is now."""
        return cls(NetworkCopy.of(config, net), level, recipe)

    def regrown(self, episode: Episode) -> RestoredNetwork:
        """Restore the sparse network and regrow the episode's weights in it."""
        restored = self.copy.restore()
        net = restored.net
        net.model.load_state_dict(restored.start)
        net.set_masks(restored.masks)
        episode.grow(net)
        return restored


def run_episode(bench: Bench, episode: Episode, should_stop: Callable[[], bool], keep: bool = False) -> EpisodeOutcome:
    """Run one episode: regrow, finetune, measure validation accuracy. ``keep`` returns the finetuned model as well.

    Raises:
        Preempted: ``should_stop`` returned True between two epochs.
    """
    with bench.copy.arithmetic():  # it may be another process than the trial's
        return _run_episode(bench, episode, should_stop, keep)


def _run_episode(bench: Bench, episode: Episode, should_stop: Callable[[], bool], keep: bool) -> EpisodeOutcome:
    began, recipe = time.monotonic(), bench.recipe
    restored = bench.regrown(episode)
    net = restored.net
    before = net.work.gradient_evaluations
    immediate = accuracy = judge(restored, recipe)
    stage, best = Finetune("episode", recipe), BestEpoch()
    selects = restored.config.reported == "best_val"
    steps = max(1, round(recipe.data_fraction * restored.data.steps(recipe.batch_size)))
    stage.attach(net)
    stage.all_steps = max(1, recipe.epochs * steps)
    seed = derive_seed(restored.config.seed, "episodes", bench.level)
    for epoch in range(recipe.epochs):
        if not episode.patient and should_stop():
            raise Preempted
        torch.manual_seed(derive_seed(seed, epoch))  # for layers that draw random numbers, e.g. dropout
        net.model.train()
        batches = restored.data.batches(
            seed=seed, epoch=epoch, stream="episode", batch_size=recipe.batch_size, augment=restored.config.augment
        )
        for batch in islice(batches, steps):
            stage.prepare()
            stage.step(batch)
        accuracy = judge(restored, recipe)
        stage.assess(net, epoch + 1, accuracy)
        if selects and best.is_better(accuracy, kept=0):  # the masks stay as they are
            best.keep(net, epoch + 1, {"val_accuracy": accuracy})
        if stage.finished:
            break
    if selects and best.epoch:
        accuracy = best.accuracy
        best.restore(net)
    model = {name: value.cpu() for name, value in net.model.state_dict().items()} if keep else None
    spent = net.work.gradient_evaluations - before
    return EpisodeOutcome(accuracy, immediate, time.monotonic() - began, spent, model)


def judge(restored: RestoredNetwork, recipe: EpisodeRecipe) -> float:
    """Accuracy on the validation images, or on the first ``reward_images`` of them."""
    net, wanted = restored.net, recipe.reward_images
    if wanted is None:
        return evaluate(net, restored.data, "val")[1]
    right, seen = torch.zeros((), dtype=torch.int64, device=net.device), 0
    net.model.eval()
    with torch.no_grad():
        for x, y in restored.data.eval_batches("val", min(500, wanted)):
            x, y = x[: wanted - seen], y[: wanted - seen]
            right += net.loss(x, y)[1]
            seen += len(y)
            if seen == wanted:
                break
    return int(right) / max(seen, 1)
