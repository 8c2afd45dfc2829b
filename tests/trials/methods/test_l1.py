"""L1 and its subclasses: exactly the picked groups are removed; picks of another trial can be reused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from tests.trials.folders import checkpoint_of, same
from tests.trials.greg_nets import WHAT, tiny
from tests.trials.small_trials import RECIPE, config_of, folder_of, run_in
from trials import models
from trials.data_header import DataHeader
from trials.errors import UserError
from trials.methods.greg.groups import group_scores, pick_groups
from trials.methods.greg.l1 import L1Config, PickAndRemove
from trials.methods.parsing import parse
from trials.methods.preconditions import require_runnable
from trials.networks.named_files import resolved
from trials.sparsity import prunable

DATA = DataHeader("few_digits", 10, 1, (8, 8), 400)


def test_picks_follow_their_name() -> None:
    scores = torch.tensor([0.3, 0.1, 0.2, 0.1, 0.4]).view(5, 1)
    assert pick_groups(scores, 2, "min").flatten().tolist() == [False, True, False, True, False]
    assert pick_groups(scores, 2, "max").flatten().tolist() == [True, False, False, False, True]
    assert pick_groups(torch.ones(4, 1), 2, "min").flatten().tolist() == [True, True, False, False]
    assert pick_groups(torch.ones(4, 1), 2, "max").flatten().tolist() == [True, True, False, False]
    rand = [pick_groups(scores, 2, "rand", torch.Generator().manual_seed(seed)) for seed in (1, 1, *range(20))]
    assert all(int(pruned.sum()) == 2 for pruned in rand)
    assert torch.equal(rand[0], rand[1])
    assert len({tuple(pruned.flatten().tolist()) for pruned in rand}) > 3


@pytest.mark.parametrize("pattern", ["filter", "channel", "weight"])
def test_l1_removes_exactly_the_budget_and_touches_nothing_else(pattern: Any) -> None:
    net = tiny()
    before = {name: weight.detach().clone() for name, weight in prunable(net.model).items()}
    config = parse({"method": "l1", "stage_pr": 0.5, "pattern": pattern, **WHAT})
    assert isinstance(config, L1Config)
    PickAndRemove(config).enter(net)
    weights = prunable(net.model)
    if pattern == "weight":
        for name, mask in net.masks.items():
            n = mask.numel()
            assert int(mask.sum()) == (n if name == "conv1.weight" else n - -(-n // 2))
            assert torch.equal(weights[name], before[name] * mask)
            if name != "conv1.weight":
                assert before[name][~mask].abs().max() <= before[name][mask].abs().min()
        return
    shapes = {name: tuple(weight.shape[:2]) for name, weight in weights.items()}
    if pattern == "filter":
        assert list(shapes.values()) == [(16, 1), (16, 16), (24, 16), (10, 24)]
        kept = ~net.picked["conv2.weight"].flatten()
        assert torch.equal(weights["conv2.weight"], before["conv2.weight"][kept])
        scores = group_scores(before["conv2.weight"], "filter").flatten()
        assert scores[~kept].max() <= scores[kept].min()
    else:
        assert list(shapes.values()) == [(8, 1), (16, 8), (48, 16), (10, 48)]


@pytest.mark.parametrize("kind", ["orthogonal", "kaiming"])
def test_reinitialised_weights_are_new_and_stay_under_their_masks(kind: str) -> None:
    nets = [tiny() for _ in range(2)]
    config = parse({"method": "l1", "stage_pr": 0.5, "pattern": "weight", "reinit": kind, **WHAT})
    with torch.no_grad():
        nets[0].model.bn1.weight.fill_(3.0)  # type: ignore[union-attr]
        nets[0].model.linear.bias.fill_(3.0)  # type: ignore[union-attr]
    before = {name: weight.detach().clone() for name, weight in prunable(nets[0].model).items()}
    for net in nets:
        PickAndRemove(config).enter(net)  # type: ignore[arg-type]
    weights = prunable(nets[0].model)
    for name, mask in nets[0].masks.items():
        assert not weights[name][~mask].any()
        assert (weights[name] != before[name])[mask].all()
        assert torch.equal(weights[name], prunable(nets[1].model)[name])
    if kind == "orthogonal":
        first = weights["conv1.weight"].flatten(1)  # [16, 9], nothing masked: its columns are orthonormal
        torch.testing.assert_close(first.T @ first, torch.eye(9), atol=1e-5, rtol=0)
    reset = kind == "kaiming"
    assert (nets[0].model.bn1.weight == (1.0 if reset else 3.0)).all()  # type: ignore[union-attr]
    assert (nets[0].model.linear.bias == (0.0 if reset else 3.0)).all()  # type: ignore[union-attr]


@pytest.mark.usefixtures("few_digits")
def test_ratios_and_indices_of_another_trial(tmp_path: Path) -> None:
    base = config_of("greg1")
    assert run_in(tmp_path, base).status == "complete"
    folder = str(folder_of(base, tmp_path))
    picked = checkpoint_of(folder_of(base, tmp_path))["net"]["picked"]
    changed = {"stage_pr": None, "base_pr_model": folder}
    for fields in ({}, {"inherit_pruned": "pr"}):
        config = config_of("l1", **changed, **fields)
        assert run_in(tmp_path, config).status == "complete"
        ours = checkpoint_of(folder_of(config, tmp_path))["net"]["picked"]
        assert {name: int(p.sum()) for name, p in ours.items()} == {name: int(p.sum()) for name, p in picked.items()}
        assert same(ours, picked) or fields
    config = config_of("greg2-channel", **changed)  # other groups
    state = run_in(tmp_path, config)
    assert (state.status, state.error and state.error["type"]) == ("failed", "UserError")
    assert "does not fit the channels of this model" in str(state.error)


@pytest.mark.usefixtures("few_digits")
def test_indices_of_masks(tmp_path: Path) -> None:
    """Trials with single weights, and of other methods, give the removed indices by their masks."""
    base = config_of("greg1-weight-original")
    assert run_in(tmp_path, base).status == "complete"
    masks = checkpoint_of(folder_of(base, tmp_path))["net"]["masks"]
    folder = str(folder_of(base, tmp_path))
    config = config_of("l1-weight", stage_pr=None, base_pr_model=folder, reinit=None, pick_pruned="min")
    assert run_in(tmp_path, config).status == "complete"
    ours = checkpoint_of(folder_of(config, tmp_path))["net"]["masks"]
    assert same(ours, masks)


@pytest.mark.usefixtures("few_digits")
@pytest.mark.parametrize("name", ["none", "dense"])
def test_a_base_that_pruned_nothing_is_refused_before_anything_trains(name: str, tmp_path: Path) -> None:
    folder = tmp_path / "none"
    if name == "dense":
        base = config_of("dense")
        run_in(tmp_path / "other", base)
        folder = folder_of(base, tmp_path / "other")
    state = run_in(tmp_path, config_of("l1", stage_pr=None, base_pr_model=str(folder)))
    assert state.status == "failed"
    assert state.error is not None
    assert state.error["type"] == "UserError"
    says = {"dense": "removed no filters", "none": "must be the folder of a finished trial"}
    assert says[name] in state.error["message"]
    assert not (tmp_path / "stages").exists()


def emptied(folder: Path, *layers: str) -> str:
    """The folder of a trial that left nothing of these layers, and three quarters of the others' filters."""
    weights = prunable(models.build("tiny", num_classes=10, in_channels=1, seed=3))
    state = models.build("tiny", num_classes=10, in_channels=1, seed=3).state_dict()
    for name in weights:
        mask = torch.ones_like(state[name])
        mask[: 0 if name == "linear.weight" else len(mask) // 4] = 0
        mask *= name.removesuffix(".weight") not in layers
        state |= {f"{name}_orig": state.pop(name), f"{name}_mask": mask}
    torch.save(state, folder / "net.pt")
    fields = {"levels": 1, "prune_fraction": 1e-9, "finetune": {**RECIPE, "epochs": 0}}
    base = resolved(config_of("imp-none", source_net=str(folder / "net.pt"), **fields))
    assert run_in(folder, base).status == "complete"
    return str(folder_of(base, folder))


@pytest.mark.usefixtures("few_digits")
@pytest.mark.parametrize("gone", [("conv2",), ("conv2", "conv3")])
@pytest.mark.parametrize("pattern", ["filter", "channel"])
@pytest.mark.parametrize(
    ("name", "fields"),
    [
        *(("l1", {"inherit_pruned": what}) for what in ("pr", "index")),
        *(("greg1", {"inherit_pruned": what}) for what in ("pr", "index")),
        ("greg2-channel", {}),
        ("oracle", {"max_candidates": 10**60}),
    ],
)
def test_a_base_that_left_nothing_of_a_layer_is_refused(
    name: str, fields: dict[str, Any], pattern: str, gone: tuple[str, ...], tmp_path: Path
) -> None:
    config = config_of(name, stage_pr=None, base_pr_model=emptied(tmp_path, *gone), pattern=pattern, **fields)
    with pytest.raises(UserError) as refused:
        require_runnable(resolved(config), DATA)
    assert f"but left no {pattern} of {', '.join(gone)}, and" in str(refused.value)
    assert str(refused.value).isprintable()


@pytest.mark.usefixtures("few_digits")
@pytest.mark.parametrize(
    ("gone", "name", "fields"),
    [
        *(((), "l1", {"inherit_pruned": what}) for what in ("pr", "index")),
        *((("linear",), name, {"inherit_pruned": "pr"}) for name in ("l1", "greg1", "greg2-channel")),
        (("conv2",), "l1", {"inherit_pruned": "pr", "variant": "original"}),  # which leaves one of each layer
        (("conv2",), "l1-weight", {"pick_pruned": "min", "reinit": None}),
    ],
)
def test_a_base_that_left_some_of_what_is_removed_gives_its_counts(
    gone: tuple[str, ...], name: str, fields: dict[str, Any], tmp_path: Path
) -> None:
    pattern = "weight" if name == "l1-weight" else "filter"
    config = config_of(name, stage_pr=None, base_pr_model=emptied(tmp_path, *gone), pattern=pattern, **fields)
    require_runnable(resolved(config), DATA)
    state = run_in(tmp_path, resolved(config))
    assert state.status == "complete", state.error
