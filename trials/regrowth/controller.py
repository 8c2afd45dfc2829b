"""The learned allocation: an LSTM that decides layer by layer, trained with REINFORCE (Williams 1992).

As in the released code of https://arxiv.org/abs/2511.11675
(https://github.com/EnumaCaliber/Bidirection-Prune-Regrowth, commit b40cb9f): of n layers with capacities c, step t
takes the logits of step t-1 and a context [t/(n-1), c_t / sum c, remaining / K], and chooses one of A ratios
0, 1/(A-1), ..., 1 of e = min(c_t, remaining). Optionally a first step chooses K from fractions of all weights.

    advantage    a = clip((r - b) / tau, -100, 100)
    loss         = -a sum_t log pi(a_t) - beta H          H: mean entropy of the steps, in nats
    baseline     b <- 0.9 b + 0.1 r                         b starts at the first reward

Here r is an episode's reward, pi(a_t) the probability of the action taken at step t, tau the temperature and beta the
entropy weight. Several episodes may share an update, which then averages their losses and rewards.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from trials.frozen import Frozen

CONTEXT = 3
"""Numbers in a step's context."""

CLIP = 100.0
"""Bound on the absolute advantage."""


class ControllerConfig(Frozen):
    """Settings for learning the allocation.

    Attributes:
        episodes: number of allocations to try, each evaluated by a short finetuning.
        episodes_in_flight: episodes that share one update and may run in parallel; 1 runs them in strict sequence.
        hidden: size of the LSTM's hidden state.
        actions: A, the number of ratios.
        lr: learning rate of Adam.
        temperature: tau, the reward difference that gives an advantage of 1.
        baseline_decay: share of the baseline that an update keeps.
        entropy_start, entropy_end, entropy_decay: beta falls linearly from start to end over this share of the
            episodes, then stays constant.
        patience: stop after this many episodes without a better reward; null disables the rule.
        spread: stop once the standard deviation of the last ``spread_window`` rewards is below this, after at least
            ``spread_after`` episodes; null disables the rule.
        exact: divide the part of the budget that the decisions leave among the layers, by remaining capacity. The
            released code leaves it unspent.
        spread_window: number of last rewards that ``spread`` looks at.
        spread_after: number of episodes before ``spread`` may stop the search.
    """

    episodes: int = Field(default=100, ge=1)
    episodes_in_flight: int = Field(default=1, ge=1)
    hidden: int = Field(default=64, ge=1)
    actions: int = Field(default=11, ge=2)
    lr: float = Field(default=3e-4, gt=0)
    temperature: float = Field(default=0.005, gt=0)
    baseline_decay: float = Field(default=0.9, ge=0, lt=1)
    entropy_start: float = Field(default=0.4, ge=0)
    entropy_end: float = Field(default=0.04, ge=0)
    entropy_decay: float = Field(default=0.4, gt=0, le=1)
    patience: int | None = Field(default=None, ge=1)
    spread: float | None = Field(default=None, gt=0)
    spread_window: int = Field(default=20, ge=2)
    spread_after: int = Field(default=50, ge=0)
    exact: bool = True

    @model_validator(mode="after")
    def _flights_fit(self) -> ControllerConfig:
        if self.episodes_in_flight > self.episodes:
            raise ValueError(
                f"episodes_in_flight is {self.episodes_in_flight}, but must be at most the {self.episodes} episodes"
            )
        return self

    def entropy_weight(self, episode: int) -> float:
        """Return beta at an episode (0-based)."""
        progress = min(episode / (self.entropy_decay * self.episodes), 1.0)
        return self.entropy_start + (self.entropy_end - self.entropy_start) * progress

    def converged(self, rewards: Sequence[float]) -> bool:
        """Whether the rewards so far meet a stopping rule, ``patience`` or ``spread``."""
        if self.patience is not None and rewards:
            best = max(range(len(rewards)), key=lambda i: rewards[i])  # the first of equal ones
            if len(rewards) - 1 - best >= self.patience:
                return True
        if self.spread is None or len(rewards) < max(self.spread_after, self.spread_window):
            return False
        return float(torch.tensor(rewards[-self.spread_window :], dtype=torch.float64).std(correction=0)) < self.spread


@dataclass
class Decoding:
    """Turns the decisions of one episode into numbers of weights, one decision at a time.

    Attributes:
        capacities: per layer, in the order of the decisions.
        actions: A.
        budget: K; with ``fractions``, set by the first decision.
        fractions: choices for K, as fractions of ``total``; empty if K is given.
        total: number of all weights.
        counts: weights given to the layers decided so far.
        undecided: whether K is still to be chosen.
    """

    capacities: Sequence[int]
    actions: int
    budget: int = 0
    fractions: Sequence[float] = ()
    total: int = 0
    counts: list[int] = field(default_factory=list)
    undecided: bool = field(init=False)

    def __post_init__(self) -> None:
        self.undecided = bool(self.fractions)
        self.remaining = self.budget

    @property
    def done(self) -> bool:
        """Whether every layer has been decided."""
        return not self.undecided and len(self.counts) == len(self.capacities)

    @property
    def context(self) -> list[float]:
        """The next decision's context: [position, share of the total capacity, share of the budget that is left]."""
        if self.undecided:
            return [0.0, 0.0, 1.0]
        position, layers = len(self.counts), len(self.capacities)
        if self.fractions:
            at = (position + 1) / (layers + 1)
        else:
            at = position / (layers - 1) if layers > 1 else 0.0
        return [at, self.capacities[position] / max(sum(self.capacities), 1), self.remaining / max(self.budget, 1)]

    def take(self, action: int) -> None:
        """Apply the next decision: the index of a budget fraction or of a ratio."""
        if self.undecided:
            wanted = int(round(self.total * self.fractions[action], 6))
            self.budget = self.remaining = max(1, min(wanted, sum(self.capacities)))
            self.undecided = False
            return
        most = min(self.capacities[len(self.counts)], self.remaining)
        count = round(Fraction(action * most, self.actions - 1))
        self.counts.append(count)
        self.remaining -= count


@dataclass(frozen=True)
class Rollout:
    """The decisions of one episode.

    Attributes:
        counts: weights per layer, in the order of the decisions.
        budget: K.
        log_probability: sum over the decisions of log pi(a_t), a scalar that carries gradients.
        entropy: mean over the decisions, in nats; with a decision on K, the average of that one's and the others'.
        logits: of the decisions on layers, [n, A].
    """

    counts: list[int]
    budget: int
    log_probability: Tensor
    entropy: Tensor
    logits: Tensor


class Controller(nn.Module):
    """An LSTMCell with a linear decoder. It stays on the CPU, because every decision is read before the next."""

    def __init__(self, actions: int, hidden: int, budgets: int = 0) -> None:
        super().__init__()
        self.actions, self.width = actions, max(actions, budgets)
        self.lstm = nn.LSTMCell(self.width + CONTEXT, hidden)
        self.decoder = nn.Linear(hidden, actions)
        self.budget_decoder = nn.Linear(hidden, budgets) if budgets else None

    def rollout(self, decoding: Decoding, choose: Callable[[Tensor], int]) -> Rollout:
        """Run one episode; ``choose`` maps logits [A] to the index of an action."""
        # The budget and the layers may have different numbers of choices: logits fed back are padded to the larger.
        weight = self.decoder.weight
        state = (weight.new_zeros(1, self.lstm.hidden_size), weight.new_zeros(1, self.lstm.hidden_size))
        last = weight.new_zeros(1, self.width)
        decisions: list[tuple[Tensor, int]] = []
        deciding_budget = decoding.undecided
        while not decoding.done:
            first = decoding.undecided
            state = self.lstm(torch.cat([last, weight.new_tensor([decoding.context])], 1), state)
            decoder = self.budget_decoder if first and self.budget_decoder is not None else self.decoder
            logits = decoder(state[0])  # [1, A]
            last = nn.functional.pad(logits, (0, self.width - logits.shape[1]))
            action = choose(logits.detach()[0])
            decoding.take(action)
            decisions.append((logits[0], action))
        log_probability = torch.stack([logits.log_softmax(0)[action] for logits, action in decisions]).sum()
        on_layers = torch.stack([logits for logits, _ in decisions[int(deciding_budget) :]])
        entropy = mean_entropy(on_layers)
        if deciding_budget:
            entropy = (mean_entropy(decisions[0][0][None]) + entropy) / 2
        return Rollout(decoding.counts, decoding.budget, log_probability, entropy, on_layers)


def mean_entropy(logits: Tensor) -> Tensor:
    """Return the entropy in nats of distributions with logits [n, A], averaged over n."""
    log_p = logits.log_softmax(1)
    return -(log_p.exp() * log_p).sum(1).mean()


def sampler(generator: torch.Generator) -> Callable[[Tensor], int]:
    """Return a function that draws an action from logits [A]."""
    return lambda logits: int(torch.multinomial(logits.softmax(0), 1, generator=generator))


def reinforce_loss(weighted: Tensor, entropy: Tensor, beta: float) -> Tensor:
    """Return -mean(advantage x log probability) - beta x mean entropy, over episodes.

    Args:
        weighted: advantage x log probability, [E].
        entropy: [E], in nats.
    """
    return -weighted.mean() - beta * entropy.mean()


class Reinforce:
    """Trains a controller. :meth:`state_dict` holds the whole state: controller, optimiser and baseline."""

    def __init__(self, config: ControllerConfig, controller: Controller) -> None:
        self.config, self.controller = config, controller
        self.optimizer = torch.optim.Adam(controller.parameters(), lr=config.lr)
        self.baseline: float | None = None

    def update(self, rollouts: Sequence[Rollout], rewards: Sequence[float], episode: int) -> float:
        """Take one Adam step on the episodes that start at index ``episode`` (0-based); return the loss."""
        mean = sum(rewards) / len(rewards)
        baseline = mean if self.baseline is None else self.baseline
        advantages = [max(-CLIP, min(CLIP, (r - baseline) / self.config.temperature)) for r in rewards]
        weighted = [rollout.log_probability * a for rollout, a in zip(rollouts, advantages, strict=True)]
        entropies = [rollout.entropy for rollout in rollouts]
        loss = reinforce_loss(torch.stack(weighted), torch.stack(entropies), self.config.entropy_weight(episode))
        self.optimizer.zero_grad()
        torch.autograd.backward(loss)
        self.optimizer.step()
        decay = self.config.baseline_decay
        self.baseline = decay * baseline + (1 - decay) * mean
        return float(loss.detach())

    def state_dict(self) -> dict[str, Any]:
        """Return the state of controller, optimiser and baseline."""
        return {
            "controller": self.controller.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "baseline": self.baseline,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.controller.load_state_dict(state["controller"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.baseline = state["baseline"]
