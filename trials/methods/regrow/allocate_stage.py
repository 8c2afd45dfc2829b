"""The regrow stage: divide a budget of weights over the layers, by a rule or by a learned allocation, and regrow them.

A learned allocation is a search with REINFORCE (trials/regrowth/controller.py; https://arxiv.org/abs/2511.11675):

    in each episode:
        c_l    <- controller divides the budget K over the layers
        copy   <- sparse network with c_l weights of layer l back, finetuned for a few epochs
        reward <- validation accuracy of the copy; updates the controller
    regrow the network by the allocation of the best episode
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch
from pydantic import model_validator
from torch import Tensor

from trials.config.trial_config import HasVariant
from trials.errors import Preempted
from trials.methods.base import Stage, generator_for
from trials.methods.regrow.episodes import Bench, Episode, EpisodeOutcome, run_episode
from trials.methods.regrow.finetuning import BEFORE
from trials.methods.regrow.growth import Growth, RegrowingConfig
from trials.regrowth.allocation import ALLOCATIONS, MISSING, ORIGINAL, Request, spend_rest
from trials.regrowth.channels import units
from trials.regrowth.controller import Controller, ControllerConfig, Decoding, Reinforce, Rollout, sampler
from trials.regrowth.layer_signals import allocation_rows
from trials.training.evaluation import recalibrate_batchnorm
from trials.training.net import Batch, Net
from trials.training.network_copy import forget


class AllocatingConfig(HasVariant, RegrowingConfig):
    """Fields of methods that divide a budget over the layers.

    ``variant: original`` follows the released code (EnumaCaliber/Bidirection-Prune-Regrowth at b40cb9f): it rounds as
    there, leaves an unspent rest of the budget unspent, and uses 0.5 as the SSIM of layers that cannot be measured.

    Attributes:
        allocation: ``controller`` learns the allocation; the others are the rules in trials/regrowth/allocation.py.
        controller: the search, used with ``allocation: controller``.
    """

    allocation: Literal["controller", "greedy", "proportional", "uniform", "random"] = "controller"
    controller: ControllerConfig = ControllerConfig()

    @model_validator(mode="before")
    @classmethod
    def _as_released(cls, content: Any) -> Any:
        if not isinstance(content, Mapping) or content.get("variant") != "original":
            return content
        controller = content.get("controller", {})
        return {
            **content,
            "controller": {"exact": False, **controller} if isinstance(controller, Mapping) else controller,
        }

    @property
    def missing(self) -> float | None:
        return MISSING if self.variant == "original" else None

    @property
    def parallel_pieces(self) -> int:
        return self.controller.episodes_in_flight if self.allocation == "controller" else 1


class Regrow(Stage):
    """The regrow stage. Each step is one update of the controller; an allocation by a rule takes a single step."""

    streams = ()

    def __init__(self, config: AllocatingConfig, level: int, *, fraction: float | None = None) -> None:
        super().__init__("regrow", config.episode, level=level)
        self.epochs = 1
        self.config, self.fraction = config, fraction
        self.growth: Growth | None = None
        self.bench: Bench | None = None
        self.rewards: list[float] = []
        self.first = 0
        self.seconds = 0.0
        self.measured = False
        self.best: dict[str, Any] = {}

    def attach(self, net: Net) -> None:
        self.net = net
        there = [units(mask, self.config.unit) for mask in net.masks.values()]
        self.total = sum(mask.numel() for mask in there)
        self.pruned = self.total - int(torch.stack([mask.sum() for mask in there]).sum())
        controller = self.config.controller
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(generator_for(self.config, "controller", self.level).initial_seed())
            network = Controller(controller.actions, controller.hidden, len(self.fractions()))
        self.reinforce = Reinforce(controller, network)

    @property
    def most_epochs(self) -> float:
        """Passes over the training images that all of the search's episodes take; fewer if it ends early."""
        if self.config.allocation != "controller":
            return 0.0
        return float(self.config.controller.episodes * self.config.episode.epochs * self.config.episode.data_fraction)

    def fractions(self) -> Sequence[float]:
        """Budgets that the controller chooses from, as shares of all weights; empty if the budget is fixed."""
        return ()

    def begin_epoch(self, epoch: int) -> None:
        pass

    def sparsity(self, more: int) -> float:
        """Share of units that stay pruned if the network gets ``more`` of them than at the start of this level."""
        return (self.pruned - more) / self.total

    def grower(self) -> Growth:
        """SSIM and scores of the sparse network. Measured on first use; a resumed process measures the same values."""
        if self.growth is None:
            with self.net.work.held(self.measured):  # a resumed process measures again what was counted before
                self.growth = Growth(self.config, self.net, self.context, self.level)
            self.measured = True
        return self.growth

    def budget(self) -> int:
        """K = min(int(fraction N), total capacity of the target layers)."""
        assert self.fraction is not None
        return min(int(round(self.fraction * self.total, 6)), sum(self.grower().targets.capacities))

    def step(self, *batches: Batch) -> tuple[Tensor, Tensor]:
        nothing = torch.zeros((), device=self.net.device)
        if self.config.allocation != "controller":
            self._by_rule()
            return nothing, nothing.long()
        try:
            loss = self._fly()
        except Preempted:  # these episodes are discarded; the trial gets the same request and commits
            return nothing, nothing.long()
        return nothing + loss, nothing.long()

    def _by_rule(self) -> None:
        targets, config = self.grower().targets, self.config
        rules = ORIGINAL if config.variant == "original" else ALLOCATIONS
        generator = generator_for(config, "allocation", self.level)
        budget = self.budget()
        counts = rules[config.allocation](Request(budget, targets.capacities, targets.ssim, generator))
        self.best = {"episode": 0, "counts": counts, "budget": budget}
        self._record(0, counts, budget, None, None)
        self.finished = True

    def _fly(self) -> float:
        """Run ``episodes_in_flight`` episodes and update the controller once, in episode order; return the loss."""
        config, growth, first = self.config.controller, self.grower(), len(self.rewards)
        numbers = range(first, min(first + config.episodes_in_flight, config.episodes))
        rollouts = [self._rollout(number) for number in numbers]
        counts = [self._spent(rollout) for rollout in rollouts]
        # a process completes its first update even if asked to stop, so that the trial progresses under preemption
        patient = first == self.first
        episodes = [growth.episode(number, count, patient) for number, count in zip(numbers, counts, strict=True)]
        outcomes: list[EpisodeOutcome] = self.context.map(run_episode, self.where(), episodes)
        self.net.work.add(sum(outcome.gradient_evaluations for outcome in outcomes))
        rewards = [self.reward(outcome, count) for outcome, count in zip(outcomes, counts, strict=True)]
        loss = self.reinforce.update(rollouts, rewards, first)
        for number, rollout, count, reward, outcome in zip(numbers, rollouts, counts, rewards, outcomes, strict=True):
            if not self.best or reward > self.best["reward"]:
                self.best = {"episode": number, "counts": count, "budget": rollout.budget, "reward": reward}
            self._record(number, count, rollout.budget, reward, outcome)
        self.rewards += rewards
        self.seconds += sum(outcome.seconds for outcome in outcomes)
        self.finished = len(self.rewards) >= config.episodes or config.converged(self.rewards)
        return loss

    def reward(self, outcome: EpisodeOutcome, counts: Sequence[int]) -> float:
        """The reward of an episode: its validation accuracy after finetuning."""
        return outcome.accuracy

    def where(self) -> Bench:
        """The copy of the sparse network that episodes work on; made before the network grows."""
        if self.bench is None:
            self.bench = Bench.of(self.config, self.net, self.level, self.config.episode)
        return self.bench

    def _rollout(self, number: int) -> Rollout:
        capacities = self.grower().targets.capacities
        fractions = self.fractions()
        decoding = Decoding(
            capacities,
            self.config.controller.actions,
            budget=0 if fractions else self.budget(),
            fractions=fractions,
            total=self.total,
        )
        return self.reinforce.controller.rollout(
            decoding, sampler(generator_for(self.config, "rollout", self.level, number))
        )

    def _spent(self, rollout: Rollout) -> list[int]:
        if not self.config.controller.exact:
            return rollout.counts
        return spend_rest(rollout.counts, rollout.budget, self.grower().targets.capacities)

    def _record(
        self, number: int, counts: Sequence[int], budget: int, reward: float | None, outcome: EpisodeOutcome | None
    ) -> None:
        rows = allocation_rows(self.grower().targets, counts, step=self.level, episode=number, budget=budget)
        figures = outcome.figures() if outcome else {}
        self.context.rows.setdefault("allocations", []).extend({**row, "reward": reward, **figures} for row in rows)

    def end_epoch(self, net: Net, epoch: int) -> None:
        if not self.best:
            return
        episode = self.grower().episode(self.best["episode"], self.best["counts"])
        net.snapshots[BEFORE] = dict(net.masks)  # finetuning may treat weights kept before regrowth differently
        episode.grow(net)
        if self.config.batchnorm_batches:
            recalibrate_batchnorm(net, self._training_batches(), self.config.batchnorm_batches)
        self.settle(net, episode)
        forget()

    def settle(self, net: Net, episode: Episode) -> None:
        """Called after growth, e.g. to keep the best episode's finetuned weights. Does nothing by default."""

    def _training_batches(self) -> Any:
        return self.context.data.batches(
            seed=generator_for(self.config, "batchnorm", self.level).initial_seed(),
            epoch=0,
            stream="batchnorm",
            batch_size=self.recipe.batch_size,
            augment=self.config.augment,
        )

    def columns(self) -> dict[str, float]:
        grown_units = sum(self.best["counts"]) if self.best else 0
        found: dict[str, float] = {}
        if self.config.unit == "filter":  # the column sparsity counts weights, and filters differ in size
            found["filter_sparsity"] = self.sparsity(grown_units)
        if not self.best:
            return found
        found |= {"budget": self.best["budget"], "regrown": grown_units}
        if self.rewards:
            found |= {
                "reward": self.best["reward"],
                "best_episode": self.best["episode"],
                "episodes": len(self.rewards),
            }
            found["seconds_per_episode"] = self.seconds / len(self.rewards)
        return found

    def state_dict(self) -> dict[str, Any]:
        return {
            "reinforce": self.reinforce.state_dict(),
            "rewards": list(self.rewards),
            "seconds": self.seconds,
            "measured": self.measured,
            "best": dict(self.best),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.reinforce.load_state_dict(state["reinforce"])
        self.rewards, self.seconds, self.best = list(state["rewards"]), state["seconds"], dict(state["best"])
        self.measured = state.get("measured", True)
        self.first = len(self.rewards)
