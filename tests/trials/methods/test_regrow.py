"""Regrowth in whole trials: masks grow by the allocation, surviving weights stay, and the choice can be replayed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.trials.folders import checkpoint_of, rows_of, same, timeless
from tests.trials.small_trials import config_of, folder_of, run_in
from trials.methods.regrow.finetuning import BEFORE, AdamWRecipe, Finetune, FinetuneRegrown, RegrownRecipe
from trials.models import build
from trials.regrowth.initial import grown
from trials.sparsity import prunable
from trials.training.evaluation import recalibrate_batchnorm
from trials.training.net import Net

pytestmark = pytest.mark.usefixtures("few_digits")


def sparse_of(storage: Path) -> dict[str, Any]:
    (stage,) = (storage / "stages").glob("prune_iterative-*")
    return dict(checkpoint_of(stage)["net"])


def best_counts(rows: dict[str, Any]) -> dict[str, int]:
    tried = rows["allocations"]
    best = max((row["reward"] for row in tried if row["reward"] is not None), default=None)
    first = next(row["episode"] for row in tried if row["reward"] == best)
    return {row["layer"]: row["count"] for row in tried if row["episode"] == first}


@pytest.mark.parametrize(
    ("name", "fields"),
    [
        ("regrow", {"rounds": 1, "finetune": None}),
        ("regrow", {"rounds": 1, "finetune": None, "variant": "original"}),
        ("regrow-rule", {}),
        ("regrow-filter", {"finetune": None}),
    ],
)
def test_masks_grow_by_the_allocation_and_keep_surviving_weights(
    name: str, fields: dict[str, Any], tmp_path: Path
) -> None:
    config = config_of(name, **fields)
    state = run_in(tmp_path, config)
    assert state.status == "complete", state.error
    rows, net, sparse = (
        rows_of(folder_of(config, tmp_path)),
        checkpoint_of(folder_of(config, tmp_path))["net"],
        sparse_of(tmp_path),
    )
    counts = best_counts(rows)
    size = {n: m[0].numel() if name == "regrow-filter" else 1 for n, m in sparse["masks"].items()}
    budget = rows["epochs"][-1]["budget"]
    for key, mask in net["masks"].items():
        before = sparse["masks"][key]
        assert not (before & ~mask).any()
        assert int((mask & ~before).sum()) == counts.get(key.removesuffix(".weight"), 0) * size[key]
        assert torch.equal(net["model"][key][before], sparse["model"][key][before])
    spent = sum(counts.values())
    assert spent <= min(budget, sum(row["capacity"] for row in rows["allocations"] if row["episode"] == 0))
    if config.variant == "corrected":
        assert spent == budget
    # the saved indices, on the sparse network, are the rewarded mask
    saved = {
        key: (mask & ~net["snapshots"][BEFORE][key]).reshape(-1).nonzero().squeeze(1)
        for key, mask in net["masks"].items()
    }
    assert same(grown(sparse["masks"], saved), net["masks"])


def test_episodes_are_repeatable_and_their_seconds_reported(tmp_path: Path) -> None:
    config = config_of("regrow", rounds=1)
    found = []
    for which in ("one", "other"):
        run_in(tmp_path / which, config)
        found.append(rows_of(folder_of(config, tmp_path / which)))
    assert timeless(found[0]) == timeless(found[1])
    regrown = [row for row in found[0]["epochs"] if row["stage"] == "regrow"]
    assert all(row["seconds_per_episode"] > 0 for row in regrown)
    assert {row["episode"] for row in found[0]["allocations"]} == {0, 1, 2}


def test_a_reference_trial_decides_the_weights_and_their_values(tmp_path: Path) -> None:
    other = config_of("one_shot", density=0.3, finetune=None)
    run_in(tmp_path, other)
    folder = folder_of(other, tmp_path)
    config = config_of(
        "regrow-rule", selection="reference", initial="reference", reference=str(folder), batchnorm_batches=0
    )
    run_in(tmp_path, config)
    net, sparse, reference = (
        checkpoint_of(folder_of(config, tmp_path))["net"],
        sparse_of(tmp_path),
        checkpoint_of(folder)["net"],
    )
    for key, mask in net["masks"].items():
        new = mask & ~sparse["masks"][key]
        first = reference["masks"][key] & ~sparse["masks"][key]
        assert int((new & first).sum()) == min(int(new.sum()), int(first.sum()))
        assert torch.equal(net["model"][key][new], reference["model"][key][new])


def test_a_missing_reference_trial_fails_by_name(tmp_path: Path) -> None:
    config = config_of("regrow-rule", selection="reference", reference=str(tmp_path / "nowhere"))
    state = run_in(tmp_path, config)
    assert state.error is not None
    assert "nowhere" in state.error["message"]


def grown_net() -> tuple[Net, dict[str, Tensor]]:
    net = Net(build("tiny", num_classes=10, in_channels=1, seed=0))
    weights = prunable(net.model)
    old = {name: torch.rand(w.shape, generator=torch.Generator().manual_seed(1)) < 0.3 for name, w in weights.items()}
    new = {name: torch.rand(w.shape, generator=torch.Generator().manual_seed(2)) < 0.2 for name, w in weights.items()}
    net.set_masks({name: old[name] | new[name] for name in old})
    net.snapshots[BEFORE] = old
    return net, old


def moved(stage: Finetune, net: Net, epoch: int) -> dict[str, Tensor]:
    """The distance of each weight after one step of an epoch."""
    x, y = torch.randn(16, 1, 8, 8, generator=torch.Generator().manual_seed(3)), torch.arange(16) % 10
    before = {name: weight.detach().clone() for name, weight in prunable(net.model).items()}
    net.model.train()
    stage.begin_epoch(epoch)
    stage.prepare()
    stage.step((x, y))
    return {name: (weight.detach() - before[name]).abs() for name, weight in prunable(net.model).items()}


@pytest.mark.parametrize("mode", ["all", "frozen", "differential", "progressive"])
def test_surviving_weights_train_at_their_own_rate(mode: str) -> None:
    net, old = grown_net()
    recipe = RegrownRecipe(regrown=mode, lr=1e-2, lr_old=1e-4, frozen_epochs=1, differential_epochs=1)  # type: ignore[arg-type]
    stage = FinetuneRegrown("finetune", recipe)
    stage.all_steps = 10
    stage.attach(net)
    phases = ["frozen", "differential", "all"] if mode == "progressive" else [mode]
    for epoch, phase in enumerate(phases):
        for name, distance in moved(stage, net, epoch).items():
            new = net.masks[name] & ~old[name]
            assert not distance[~net.masks[name]].any()  # pruned weights stay exactly 0
            assert distance[new].median() > 1e-3
            median = float(distance[old[name]].median())
            assert {"frozen": median == 0, "differential": 1e-5 < median < 5e-4, "all": median > 1e-3}[phase]
            if phase == "frozen":
                assert not distance[old[name]].any()  # not even by weight decay


def test_moments_of_regrown_weights_start_at_zero(tmp_path: Path) -> None:
    """Every finetuning has its own optimiser, so the first step of a weight is one of Adam's first steps."""
    net, _ = grown_net()
    stage = Finetune("finetune", AdamWRecipe(lr=1e-2, weight_decay=0.0))
    stage.all_steps = 10
    stage.attach(net)
    assert not stage.adam.state_dict()["state"]
    for name, distance in moved(stage, net, 0).items():
        step = distance[net.masks[name]]
        assert float(step[step > 0].median()) == pytest.approx(1e-2, rel=1e-2)  # lr for any gradient


def test_finetuning_stops_at_the_end_of_its_patience() -> None:
    net, _ = grown_net()
    stage = Finetune("finetune", AdamWRecipe(patience=2))
    stage.all_steps = 10
    stage.attach(net)
    for epoch, accuracy in enumerate([0.5, 0.7, 0.6, 0.7], start=1):
        stage.assess(net, epoch, accuracy)
        assert stage.finished == (epoch == 4)


def test_the_rate_rises_over_the_warm_up_and_falls_as_a_cosine() -> None:
    recipe = AdamWRecipe(lr=1.0, schedule="cosine", warmup_share=0.5)
    assert [recipe.lr_after(p) for p in (0.0, 0.25, 0.5)] == [0.0, 0.5, 1.0]
    assert recipe.lr_after(0.75) == pytest.approx(0.5)
    assert AdamWRecipe(lr=1.0).lr_after(0.9) == 1.0


def test_recalibrated_statistics_are_plain_averages() -> None:
    net = Net(build("tiny", num_classes=10, in_channels=1, seed=0))
    batches = [
        (torch.randn(8, 1, 8, 8, generator=torch.Generator().manual_seed(i)), torch.zeros(8).long()) for i in range(3)
    ]
    recalibrate_batchnorm(net, batches, 2)
    conv, norm = net.model.get_submodule("conv1"), net.model.get_submodule("bn1")
    means = torch.stack([conv(x).mean((0, 2, 3)) for x, _ in batches[:2]]).mean(0)
    torch.testing.assert_close(norm.running_mean, means.detach(), rtol=1e-4, atol=1e-6)
    assert norm.momentum == 0.1


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        (
            {
                "layers": ["conv1", "conv2"],
                "prune": {"prune_fraction": 0.9, "distribution": "uniform_plus", "finetune": {"epochs": 0}},
            },
            "layers has conv1, where nothing was pruned",
        ),
        ({"budget_fraction": 1e-5}, "budget_fraction is 1e-05, but must regrow at least one of"),
    ],
)
def test_an_analysis_that_regrows_nothing_is_refused(fields: dict[str, Any], said: str, tmp_path: Path) -> None:
    config = config_of("single_layer", **fields)
    state = run_in(tmp_path, config)
    assert state.status == "failed"
    assert state.error is not None
    assert said in state.error["message"]
