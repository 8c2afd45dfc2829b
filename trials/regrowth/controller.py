"""The learned allocation: an LSTM that decides layer by layer, trained by REINFORCE (Williams 1992) on rewards.

In the letters of the work's section 6: at step t the controller sees its last logits and a context
[t/(n-1), c_t / sum c, remaining / K], c the capacities, and chooses one of A ratios 0, 1/(A-1), ..., 1 of
e = min(c_t, remaining). It may decide K itself first, from a list of fractions of all weights.

    advantage  a = clip((r - b) / tau, -100, 100)
    loss         = -a sum_t log pi(a_t) - beta H          H: mean entropy of the steps, in nats
    baseline   b <- 0.9 b + 0.1 r                         b starts at the first reward

Several episodes may share an update: losses and rewards are then averaged, in the episodes' order.
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
CLIP = 100.0


class ControllerConfig(Frozen):
    """How the allocation is learned.

    Attributes:
        episodes: allocations tried, each by a mini-finetuning.
        episodes_in_flight: how many share one update, and may run side by side; 1 is the strict sequence.
        actions: A, the number of ratios.
        temperature: tau, the reward difference that counts as one.
        entropy_start, entropy_end, entropy_decay: beta falls linearly over this share of the episodes, then stays.
        patience: stop after so many episodes without a better reward; null never does.
        spread: stop once the last ``spread_window`` rewards have a standard deviation below this, not before
            ``spread_after`` episodes; null never does.
        exact: give what the decisions leave of the budget to the layers by their remaining capacity. The released code
            leaves it unspent.
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
        """beta at an episode (0-based)."""
        progress = min(episode / (self.entropy_decay * self.episodes), 1.0)
        return self.entropy_start + (self.entropy_end - self.entropy_start) * progress

    def converged(self, rewards: Sequence[float]) -> bool:
        """Whether the rewards so far say that more episodes would be of no use."""
        if self.patience is not None and rewards:
            best = max(range(len(rewards)), key=lambda i: rewards[i])  # the first of equal ones
            if len(rewards) - 1 - best >= self.patience:
                return True
        if self.spread is None or len(rewards) < max(self.spread_after, self.spread_window):
            return False
        return float(torch.tensor(rewards[-self.spread_window :], dtype=torch.float64).std(correction=0)) < self.spread


@dataclass
class Decoding:
    """Decisions turned into whole numbers of weights, one after the other.

    Attributes:
        capacities: per layer, in the order of the decisions.
        actions: A.
        budget: K; with ``fractions``, what the first decision makes of it.
        fractions: of ``total``, that K may be.
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
        return not self.undecided and len(self.counts) == len(self.capacities)

    @property
    def context(self) -> list[float]:
        """[position, share of the capacity, share of the budget that is left] of the next decision."""
        if self.undecided:
            return [0.0, 0.0, 1.0]
        position, layers = len(self.counts), len(self.capacities)
        if self.fractions:
            at = (position + 1) / (layers + 1)
        else:
            at = position / (layers - 1) if layers > 1 else 0.0
        return [at, self.capacities[position] / max(sum(self.capacities), 1), self.remaining / max(self.budget, 1)]

    def take(self, action: int) -> None:
        """The next decision."""
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
    """One episode's decisions.

    Attributes:
        counts: weights per layer, in the order of the decisions.
        budget: K.
        log_probability: sum over the decisions of log pi(a_t), a scalar that carries gradients.
        entropy: mean over the decisions, in nats; with a decision on K, the average of that one's and the others'.
        logits: of the decisions on layers, [n, A].
    """

    actions: list[int]
    counts: list[int]
    budget: int
    log_probability: Tensor
    entropy: Tensor
    logits: Tensor


class Controller(nn.Module):
    """LSTMCell -> linear decoder; on the CPU, for its decisions are waited for one by one."""

    def __init__(self, actions: int, hidden: int, budgets: int = 0) -> None:
        super().__init__()
        self.actions, self.width = actions, max(actions, budgets)
        self.lstm = nn.LSTMCell(self.width + CONTEXT, hidden)
        self.decoder = nn.Linear(hidden, actions)
        self.budget_decoder = nn.Linear(hidden, budgets) if budgets else None

    def rollout(self, decoding: Decoding, choose: Callable[[Tensor], int]) -> Rollout:
        """Decide with ``choose``: from logits [A] to the index of an action."""
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
        actions = [action for _, action in decisions]
        return Rollout(actions, decoding.counts, decoding.budget, log_probability, entropy, on_layers)


def mean_entropy(logits: Tensor) -> Tensor:
    """Of the distributions with logits [n, A], in nats; averaged over n."""
    log_p = logits.log_softmax(1)
    return -(log_p.exp() * log_p).sum(1).mean()


def sampler(generator: torch.Generator) -> Callable[[Tensor], int]:
    """Draws an action from its logits."""
    return lambda logits: int(torch.multinomial(logits.softmax(0), 1, generator=generator))


def reinforce_loss(weighted: Tensor, entropy: Tensor, beta: float) -> Tensor:
    """-mean of (advantage x log probability) - beta x mean entropy, over episodes [E]."""
    return -weighted.mean() - beta * entropy.mean()


class Reinforce:
    """The controller and what trains it. Its whole state is in :meth:`state_dict`."""

    def __init__(self, config: ControllerConfig, controller: Controller) -> None:
        self.config, self.controller = config, controller
        self.optimizer = torch.optim.Adam(controller.parameters(), lr=config.lr)
        self.baseline: float | None = None

    def update(self, rollouts: Sequence[Rollout], rewards: Sequence[float], episode: int) -> float:
        """One step of Adam on episodes that began at ``episode`` (0-based); the loss."""
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
        return {
            "controller": self.controller.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "baseline": self.baseline,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.controller.load_state_dict(state["controller"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.baseline = state["baseline"]
