"""What the host does before a step: captured steps count, refresh and change programs as eager ones, bit for bit."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

from tests.trials.recorded_graph import RecordedGraph, graphs_made
from trials.config.recipes import BackwardConfig, Recipe
from trials.methods.base import Stage, TrainStage
from trials.methods.bip.bip import Bilevel, BipConfig
from trials.methods.regrow.finetuning import BEFORE, FinetuneRegrown, RegrownRecipe
from trials.models import build
from trials.running.captured import Captured, Eager, new_graph
from trials.sparsity import prunable
from trials.sparsity.backward import BackwardPruner
from trials.training import launches
from trials.training.evaluation import Totals
from trials.training.graphs import WARM_UP
from trials.training.net import Net

STEPS, EPOCHS = 6, 3


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[RecordedGraph]:
    found: list[RecordedGraph] = graphs_made(monkeypatch)
    monkeypatch.setattr(launches, "few_launches", lambda device: True)
    return found


def masked_net() -> Net:
    net = Net(build("tiny", num_classes=10, in_channels=1, seed=1).train())
    generator = torch.Generator().manual_seed(2)
    net.set_masks({n: torch.rand(w.shape, generator=generator) > 0.5 for n, w in prunable(net.model).items()})
    net.snapshots[BEFORE] = {name: mask & (torch.rand(mask.shape, generator=generator) > 0.5)
                             for name, mask in net.masks.items()}  # fmt: skip
    return net


def trained(
    stage: Stage, net: Net, captured: bool, backward: BackwardConfig | None = None
) -> tuple[list[Tensor], BackwardPruner]:
    """All tensors of network, stage and pruner after some epochs, the last batch of each of which is smaller."""
    stage.enter(net)
    stage.attach(net)
    totals = Totals.zero(net.device)
    generator = torch.Generator().manual_seed(7)
    with BackwardPruner(net.model, backward, lambda layer: torch.Generator()) as pruner:
        assert pruner.captures(len(stage.streams))
        runner = Eager(stage, totals, pruner)
        if captured:
            graph = new_graph(net, pruner)
            assert graph is not None
            runner = Captured(stage, net, totals, graph, pruner=pruner)
        for epoch in range(EPOCHS):
            stage.begin_epoch(epoch)
            for step in range(STEPS):
                size = 16 if step < STEPS - 1 else 9
                runner.step(
                    *(
                        (
                            torch.randn(size, 1, 8, 8, generator=generator),
                            torch.randint(10, (size,), generator=generator),
                        )
                        for _ in stage.streams
                    )
                )
    state = (net.model.state_dict(), net.multipliers(), stage.state_dict(), pruner.state_dict(), totals.loss)
    return [leaf for leaf in tree_leaves(state) if isinstance(leaf, Tensor)], pruner


def regrown(rule: str) -> Stage:
    recipe = RegrownRecipe(regrown=rule, frozen_epochs=1, differential_epochs=1, epochs=EPOCHS, lr=1e-2, lr_old=1e-3)
    stage = FinetuneRegrown("finetune", recipe)
    stage.all_steps = STEPS * EPOCHS
    return stage


def same_bits(ones: list[Tensor], others: list[Tensor]) -> bool:
    return len(ones) == len(others) and all(map(torch.equal, ones, others))


@pytest.mark.parametrize(("rule", "programs"), [("frozen", 1), ("differential", 1), ("progressive", 2), ("all", 1)])
def test_a_change_of_phase_is_another_program(rule: str, programs: int, made: list[RecordedGraph]) -> None:
    """Frozen and differential weights are one program; weights that all train alike are another."""
    eager, _ = trained(regrown(rule), masked_net(), False)
    captured, _ = trained(regrown(rule), masked_net(), True)
    assert same_bits(captured, eager)
    assert [graph.captures for graph in made] == [1] * programs
    assert sum(graph.replays for graph in made) == (STEPS - 1) * EPOCHS - WARM_UP * programs


def scored() -> Stage:
    return Bilevel(BipConfig(dataset="digits", model="tiny", density=0.3))


def plain() -> Stage:
    return TrainStage("train", Recipe(epochs=EPOCHS))


BACKWARD: list[tuple[Any, dict[str, Any], int]] = [
    (scored, {"refresh_every": 4}, 2),
    (scored, {"refresh_every": 0, "linear": True}, 2),
    (plain, {"refresh_every": 3}, 1),
    (plain, {"refresh_every": 1, "pattern": "filter_l1"}, 1),
]


@pytest.mark.parametrize(("stage", "fields", "passes"), BACKWARD)
def test_candidates_are_refreshed_when_they_are_due(
    stage: Any, fields: dict[str, Any], passes: int, made: list[RecordedGraph], monkeypatch: pytest.MonkeyPatch
) -> None:
    config = BackwardConfig(p_prune=0.5, **fields)
    seen: list[int] = []
    original = BackwardPruner.refresh

    def refresh(self: BackwardPruner) -> None:
        seen.append(self.forwards)
        original(self)

    monkeypatch.setattr(BackwardPruner, "refresh", refresh)
    outcomes = []
    for captured in (False, True):
        seen.clear()
        tensors, pruner = trained(stage(), masked_net(), captured, config)
        outcomes.append((tensors, list(seen), pruner.forwards))
    (eager, due, forwards), (captured_tensors, captured_due, captured_forwards) = outcomes
    assert same_bits(captured_tensors, eager)
    expected = range(0, forwards, config.refresh_every) if config.refresh_every else [0]
    assert captured_due == due == list(expected)
    assert captured_forwards == forwards == STEPS * EPOCHS * passes
    assert [graph.captures for graph in made] == [1]


@pytest.mark.parametrize(
    ("fields", "passes", "captures"),
    [({"p_bern": 0.5}, 1, True), ({"refresh_every": 3}, 2, False), ({"refresh_every": 4}, 2, True), ({}, 1, True)],
)
def test_what_is_not_the_same_program_each_time(fields: dict[str, Any], passes: int, captures: bool) -> None:
    net = masked_net()
    with BackwardPruner(net.model, BackwardConfig(p_prune=0.5, **fields), lambda layer: torch.Generator()) as pruner:
        assert pruner.captures(passes) == captures


def test_without_the_hosts_part_a_pruner_refreshes_within_the_pass() -> None:
    """Passes outside of steps, and refreshes that fall due between two passes of a step."""
    net = masked_net()
    with BackwardPruner(
        net.model, BackwardConfig(p_prune=0.5, refresh_every=1), lambda layer: torch.Generator()
    ) as one:
        one.prepare()
        before = dict(one.kept)
        with torch.no_grad():
            for weight in prunable(net.model).values():
                weight.copy_(torch.flip(weight, [0]))
        x, y = torch.randn(4, 1, 8, 8), torch.tensor([0, 1, 2, 3])
        net.backward(x, y)
        assert all(map(torch.equal, before.values(), one.kept.values()))
        net.backward(x, y)
        assert not all(map(torch.equal, before.values(), one.kept.values()))
        assert one.forwards == 2
