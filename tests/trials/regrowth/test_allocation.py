"""Allocations: whole numbers within every capacity and the budget, which is spent where capacities allow."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from trials.regrowth.allocation import ALLOCATIONS, ORIGINAL, Request, largest_remainder, spend_rest
from trials.regrowth.controller import Controller, ControllerConfig, Decoding, Reinforce, sampler

CAPS = st.lists(st.integers(0, 10_000), min_size=1, max_size=8)


@st.composite
def requests(draw: st.DrawFn) -> Request:
    capacities = draw(CAPS)
    ssim = draw(st.lists(st.floats(-1, 1) | st.just(math.nan), min_size=len(capacities), max_size=len(capacities)))
    return Request(
        draw(st.integers(0, 30_000)), capacities, ssim, torch.Generator().manual_seed(draw(st.integers(0, 9)))
    )


@pytest.mark.parametrize("name", ALLOCATIONS)
@given(request=requests())
def test_rules_spend_all_that_capacities_allow(name: str, request: Request) -> None:
    counts = ALLOCATIONS[name](request)
    assert all(0 <= count <= capacity for count, capacity in zip(counts, request.capacities, strict=True))
    assert sum(counts) == min(request.budget, sum(request.capacities))


@pytest.mark.parametrize("name", ORIGINAL)
@given(request=requests())
def test_original_rules_respect_capacities(name: str, request: Request) -> None:
    counts = ORIGINAL[name](request)
    assert all(0 <= count <= capacity for count, capacity in zip(counts, request.capacities, strict=True))
    if name != "proportional":  # rounding up may overspend
        assert sum(counts) <= request.budget


@given(request=requests(), weights=st.lists(st.floats(0, 1e6), min_size=8, max_size=8))
def test_shares_miss_their_proportion_by_less_than_one_where_nothing_is_full(
    request: Request, weights: list[float]
) -> None:
    parts = weights[: len(request.capacities)]
    counts = largest_remainder(parts, request.budget, request.capacities)
    assert sum(counts) == min(request.budget, sum(request.capacities))
    shares = [request.budget * part / sum(parts) if sum(parts) else 0 for part in parts]
    if sum(parts) and all(share < capacity for share, capacity in zip(shares, request.capacities, strict=True)):
        assert all(abs(count - share) < 1 + 1e-6 for count, share in zip(counts, shares, strict=True))


@given(capacities=CAPS, budget=st.integers(0, 30_000), seed=st.integers(0, 50), exact=st.booleans())
def test_learned_allocations_never_exceed_the_budget(
    capacities: list[int], budget: int, seed: int, exact: bool
) -> None:
    generator = torch.Generator().manual_seed(seed)
    budget = min(budget, sum(capacities))
    rollout = Controller(11, 4).rollout(Decoding(capacities, 11, budget), sampler(generator))
    counts = spend_rest(rollout.counts, budget, capacities) if exact else rollout.counts
    assert all(0 <= count <= capacity for count, capacity in zip(counts, capacities, strict=True))
    assert sum(counts) <= budget
    if exact:
        assert sum(counts) == budget


def test_the_controller_learns_where_the_reward_is() -> None:
    """The reward grows with the share of the second layer."""
    torch.manual_seed(0)
    config = ControllerConfig(
        episodes=480, episodes_in_flight=8, lr=0.02, temperature=0.5, entropy_start=0.1, entropy_end=0.0, hidden=8
    )
    reinforce = Reinforce(config, Controller(config.actions, config.hidden))
    rewards: list[float] = []
    while len(rewards) < config.episodes:
        in_flight = range(len(rewards), len(rewards) + config.episodes_in_flight)
        drawn = [sampler(torch.Generator().manual_seed(episode)) for episode in in_flight]
        rollouts = [reinforce.controller.rollout(Decoding([100, 100], 11, 100), choose) for choose in drawn]
        rewards += [rollout.counts[1] / 100 for rollout in rollouts]
        reinforce.update(rollouts, rewards[in_flight.start :], in_flight.start)
    assert sum(rewards[-20:]) / 20 > 0.8
    assert sum(rewards[:20]) / 20 < 0.4


def test_episodes_in_flight_make_one_update_with_their_mean_loss() -> None:
    def agent() -> Reinforce:
        torch.manual_seed(0)
        config = ControllerConfig(episodes=4, episodes_in_flight=2)
        return Reinforce(config, Controller(config.actions, config.hidden))

    def rollouts(of: Reinforce) -> list[object]:
        drawn = [sampler(torch.Generator().manual_seed(i)) for i in range(2)]
        return [of.controller.rollout(Decoding([50, 60], 11, 70), choose) for choose in drawn]

    one, other = agent(), agent()
    assert one.update(rollouts(one), [0.5, 0.7], 0) == other.update(rollouts(other), [0.5, 0.7], 0)  # type: ignore[arg-type]
    assert one.baseline == pytest.approx(0.6)
    for a, b in zip(one.controller.parameters(), other.controller.parameters(), strict=True):
        assert torch.equal(a, b)


def test_stopping() -> None:
    patient = ControllerConfig(episodes=100, patience=3)
    assert not patient.converged([0.5, 0.6, 0.5, 0.6])
    assert patient.converged([0.5, 0.6, 0.5, 0.6, 0.6])  # equal is not better
    steady = ControllerConfig(episodes=100, spread=0.01, spread_window=4, spread_after=6)
    assert not steady.converged([0.5] * 5)
    assert steady.converged([0.1, 0.9] + [0.5] * 4)
    assert not steady.converged([0.5] * 5 + [0.9])
