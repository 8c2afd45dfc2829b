"""Allocations, the controller and REINFORCE equal the reference vectors (files e and f)."""

from __future__ import annotations

import re
from typing import Any

import pytest
import torch

from tests.trials.bidirectional import arrays, key_of, record_of, records
from tests.trials.recorded_set import cases
from trials.regrowth.allocation import ALLOCATIONS, ORIGINAL, Request
from trials.regrowth.controller import (
    Controller,
    ControllerConfig,
    Decoding,
    Reinforce,
    mean_entropy,
    reinforce_loss,
)
from trials.regrowth.curve import interpolated

E = arrays("e_allocation_controller.npz")
F = arrays("f_baselines.npz")


def of(prefix: str, name: str) -> list[Any]:
    """The records of a file with that prefix and a number, as a test's parameters."""
    found = [record for record in records(name, prefix) if re.fullmatch(rf"{prefix}\d+", record["key"])]
    return cases(found, f"record {prefix}0 of bidirectional/{name}", key_of)


@pytest.mark.parametrize("record", of("dec", "e_allocation_controller.npz"))
def test_decoding(record: dict[str, Any]) -> None:
    key = record["key"]
    decoding = Decoding(E[f"{key}__caps"].tolist(), record["action_space"], record["budget"])
    contexts = decide(decoding, E[f"{key}__actions"].tolist())
    exact = record.get("exact_arithmetic_counts", E[f"{key}__counts"].tolist())
    assert decoding.counts == exact
    # in float32 the original's counts can differ by one for each layer, and with them what its contexts say is left
    off = len(exact) if record.get("float32_sensitive") else 0
    assert sum(abs(ours - theirs) for ours, theirs in zip(exact, E[f"{key}__counts"].tolist(), strict=True)) <= off
    assert abs(sum(exact) - record.get("sum_counts", sum(exact))) <= off
    near = 1e-6 + off / record["budget"]
    torch.testing.assert_close(contexts, E[f"{key}__contexts"].float(), rtol=0, atol=near)


def decide(decoding: Decoding, actions: list[int]) -> torch.Tensor:
    contexts = []
    for action in actions:
        contexts.append(decoding.context)
        decoding.take(action)
    assert decoding.done
    return torch.tensor(contexts)


@pytest.mark.parametrize("record", of("bud", "e_allocation_controller.npz"))
def test_decoding_with_a_budget_of_its_own(record: dict[str, Any]) -> None:
    key = record["key"]
    decoding = Decoding(
        E[f"{key}__caps"].tolist(),
        record["action_space"],
        fractions=E[f"{key}__fracs"].tolist(),
        total=record["total_weights"],
    )
    contexts = decide(decoding, E[f"{key}__actions"].tolist())
    assert decoding.budget == record["resolved_budget"]
    assert decoding.counts == record.get("exact_arithmetic_counts", E[f"{key}__counts"].tolist())
    if not record.get("float32_sensitive"):
        assert decoding.counts == E[f"{key}__counts"].tolist()
        torch.testing.assert_close(contexts, E[f"{key}__contexts"].float(), rtol=0, atol=1e-6)


def test_loss() -> None:
    about = record_of("e_allocation_controller.npz", "loss")
    entropy = mean_entropy(E["loss__logits"])
    weighted = E["loss__weighted_logprob"]
    value = reinforce_loss(weighted, entropy, about["beta"])
    torch.testing.assert_close(entropy, E["loss__entropy"].reshape(()), rtol=2e-4, atol=2e-5)
    torch.testing.assert_close(value, E["loss__value"].reshape(()), rtol=2e-4, atol=2e-5)
    both = (mean_entropy(E["loss2__budget_logits"]) + entropy) / 2
    torch.testing.assert_close(both, E["loss2__entropy"].reshape(()), rtol=2e-4, atol=2e-5)
    value = reinforce_loss(weighted, both, about["beta"])
    torch.testing.assert_close(value, E["loss2__value"].reshape(()), rtol=2e-4, atol=2e-5)


def test_entropy_schedule() -> None:
    about = record_of("e_allocation_controller.npz", "beta_schedule")
    config = ControllerConfig(
        episodes=about["num_epochs"],
        entropy_start=about["start"],
        entropy_end=about["end"],
        entropy_decay=about["decay_fraction"],
    )
    ours = torch.tensor([config.entropy_weight(i) for i in range(about["num_epochs"])], dtype=torch.float64)
    torch.testing.assert_close(ours, E["beta_schedule"].double(), rtol=0, atol=1e-6)


def agent() -> tuple[dict[str, Any], Reinforce]:
    about = record_of("e_allocation_controller.npz", "agent")
    config = ControllerConfig(
        episodes=len(E["agent__accuracies"]),
        actions=about["action_space"],
        hidden=about["hidden"],
        lr=about["adam_lr"],
        temperature=about["temperature"],
        baseline_decay=about["baseline_decay"],
        entropy_start=about["beta"],
        entropy_end=about["beta"],
    )
    controller = Controller(config.actions, config.hidden)
    controller.load_state_dict(E.under("agent__init__"))
    return about, Reinforce(config, controller)


def test_updates_of_the_agent() -> None:
    about, reinforce = agent()
    for episode, accuracy in enumerate(E["agent__accuracies"].double().tolist()):
        actions = iter(E["agent__actions"][episode].tolist())
        decoding = Decoding(E["agent__caps"].tolist(), about["action_space"], about["budget"])
        rollout = reinforce.controller.rollout(decoding, lambda logits: int(next(actions)))  # noqa: B023  used at once
        assert rollout.counts == E["agent__ep_counts"][episode].tolist()
        torch.testing.assert_close(rollout.logits, E["agent__ep_logits"][episode], rtol=2e-4, atol=2e-5)
        torch.testing.assert_close(rollout.entropy.double(), E["agent__ep_ent"][episode].double(), rtol=2e-4, atol=2e-5)
        baseline = reinforce.baseline if reinforce.baseline is not None else accuracy / 100
        weighted = float(rollout.log_probability.detach()) * max(
            -100, min(100, (accuracy / 100 - baseline) / about["temperature"])
        )
        assert weighted == pytest.approx(float(E["agent__ep_weighted"][episode]), rel=2e-4, abs=2e-5)
        loss = reinforce.update([rollout], [accuracy / 100], episode)
        assert loss == pytest.approx(float(E["agent__ep_loss"][episode]), rel=2e-4, abs=2e-5)
        assert reinforce.baseline == pytest.approx(float(E["agent__ep_base"][episode]), rel=2e-4, abs=2e-5)
    for name, value in reinforce.controller.state_dict().items():
        torch.testing.assert_close(value, E[f"agent__final__{name}"], rtol=2e-4, atol=1e-4)


@pytest.mark.parametrize("record", of("alloc", "f_baselines.npz"))
def test_greedy_and_proportional(record: dict[str, Any]) -> None:
    key = record["key"]
    request = Request(record["budget"], F[f"{key}__caps"].tolist(), F[f"{key}__ssim"].tolist(), torch.Generator())
    assert ORIGINAL["greedy"](request) == ALLOCATIONS["greedy"](request) == F[f"{key}__greedy"].tolist()
    assert sum(F[f"{key}__greedy"].tolist()) == record.get("greedy_sum", min(record["budget"], sum(request.capacities)))
    if "greedy_key_order" in record:  # layers in the order in which they were filled; with equal signals as they stand
        served = [
            i
            for _, i in sorted(zip(request.defined_ssim(), range(len(request.ssim)), strict=True))
            if F[f"{key}__greedy"][i]
        ]
        assert [f"L{i}" for i in served] == record["greedy_key_order"]
    original = ORIGINAL["proportional"](request)
    assert original == F[f"{key}__proportional"].tolist()
    exceeds = sum(original) > record["budget"]
    assert record.get("proportional_exceeds_budget", exceeds) == exceeds
    assert record.get("proportional_sum", sum(original)) == sum(original)
    exact = ALLOCATIONS["proportional"](request)
    assert sum(exact) == min(record["budget"], sum(request.capacities))


@pytest.mark.parametrize("record", of("bench", "f_baselines.npz"))
def test_uniform(record: dict[str, Any]) -> None:
    caps = F[f"{record['key']}__caps"].tolist()
    request = Request(record["budget"], caps, [0.5] * len(caps), torch.Generator())
    assert ORIGINAL["uniform"](request) == F[f"{record['key']}__counts"].tolist()
    assert sum(ORIGINAL["uniform"](request)) == record.get("sum", int(F[f"{record['key']}__counts"].sum()))
    assert sum(ALLOCATIONS["uniform"](request)) == min(record["budget"], sum(caps))


def test_interpolated_baseline() -> None:
    table = list(zip(F["interp__table_sparsity"].tolist(), F["interp__table_acc"].tolist(), strict=True))
    for x, y in zip(F["interp__x"].tolist(), F["interp__y"].tolist(), strict=True):
        assert interpolated(table, x) == pytest.approx(y, abs=1e-9)
