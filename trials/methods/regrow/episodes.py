"""An episode: regrow by one allocation, finetune a little, and see what validation says. Cheap, and the same anywhere.

An episode is a function of the trial's config, the sparse network and the indices alone, so that it may run in this
process or in another: on a CPU the reward is the same to the bit.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import islice

import torch
from pydantic import Field
from torch import Tensor

from trials.config.trial_config import TrialConfig
from trials.errors import Preempted
from trials.methods.regrow.finetuning import AdamWRecipe, Finetune
from trials.regrowth.initial import Indices, grown, write_weights
from trials.seeding import derive_seed
from trials.sparsity import prunable
from trials.training.evaluation import evaluate
from trials.training.net import Net
from trials.training.network_copy import NetworkCopy, RestoredNetwork


class EpisodeRecipe(AdamWRecipe):
    """The mini-finetuning that an allocation is judged by.

    The released code takes 50 epochs of all images and judges by the test set; here it is the validation split.

    Attributes:
        epochs: few; what matters is the order of the allocations, not the accuracy reached.
        data_fraction: of each epoch's training images, others in each epoch.
        reward_images: judge by the first so many validation images; null: by all.
    """

    epochs: int = Field(default=5, ge=0)
    data_fraction: float = Field(default=1.0, gt=0, le=1)
    reward_images: int | None = Field(default=None, ge=1)


@dataclass(frozen=True)
class Episode:
    """What an episode tries.

    Attributes:
        number: in the search, 0-based.
        indices: what comes back, flat, by weight name.
        values: what it starts from.
        patient: not to be stopped half way.
    """

    number: int
    indices: Indices
    values: dict[str, Tensor]
    patient: bool = False


@dataclass(frozen=True)
class EpisodeOutcome:
    """What came of an episode.

    Attributes:
        accuracy: on validation, of the best epoch; before any, of the network as regrown.
        immediate: on validation, as regrown, before finetuning.
        model: the finetuned model's state, if asked for.
    """

    accuracy: float
    immediate: float
    seconds: float
    model: dict[str, Tensor] | None = None

    def figures(self) -> dict[str, float]:
        """For a row."""
        return {"accuracy": self.accuracy, "immediate": self.immediate, "seconds": self.seconds}


@dataclass(frozen=True)
class Bench:
    """Where the episodes of one search are tried. It travels to other processes, and is set up there once.

    Attributes:
        copy: of the sparse network.
        level: the round of the search; names the order of the images, which all its episodes share.
    """

    copy: NetworkCopy
    level: int
    recipe: EpisodeRecipe

    @classmethod
    def of(cls, config: TrialConfig, net: Net, level: int, recipe: EpisodeRecipe) -> Bench:
        return cls(NetworkCopy.of(config, net), level, recipe)

    def regrown(self, episode: Episode) -> RestoredNetwork:
        """The sparse network with the episode's weights back."""
        restored = self.copy.restore()
        net = restored.net
        net.model.load_state_dict(restored.start)
        indices = {name: index.to(net.device) for name, index in episode.indices.items()}
        net.set_masks(grown(restored.masks, indices))
        write_weights(
            prunable(net.model), indices, {name: value.to(net.device) for name, value in episode.values.items()}
        )
        return restored


def run_episode(bench: Bench, episode: Episode, should_stop: Callable[[], bool], keep: bool = False) -> EpisodeOutcome:
    """Regrow, finetune, judge; ``keep`` hands the finetuned model back.

    Raises:
        Preempted: asked to stop between two mini-epochs.
    """
    began, recipe = time.monotonic(), bench.recipe
    restored = bench.regrown(episode)
    net = restored.net
    immediate = best = judge(restored, recipe)
    stage = Finetune("episode", recipe)
    steps = max(1, round(recipe.data_fraction * restored.data.steps(recipe.batch_size)))
    stage.attach(net)
    stage.all_steps = max(1, recipe.epochs * steps)
    seed = derive_seed(restored.config.seed, "episodes", bench.level)
    for epoch in range(recipe.epochs):
        if not episode.patient and should_stop():
            raise Preempted
        torch.manual_seed(derive_seed(seed, epoch))  # for layers that draw, e.g. dropout
        net.model.train()
        batches = restored.data.batches(
            seed=seed, epoch=epoch, stream="episode", batch_size=recipe.batch_size, augment=restored.config.augment
        )
        for batch in islice(batches, steps):
            stage.prepare()
            stage.step(batch)
        stage.assess(net, epoch + 1, judge(restored, recipe))
        best = stage.best_accuracy
        if stage.finished:
            break
    if keep and stage.best:
        stage.leave(net)
    model = {name: value.cpu() for name, value in net.model.state_dict().items()} if keep else None
    return EpisodeOutcome(best, immediate, time.monotonic() - began, model)


def judge(restored: RestoredNetwork, recipe: EpisodeRecipe) -> float:
    """Accuracy on validation, or on its first ``reward_images``."""
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
