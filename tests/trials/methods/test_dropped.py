"""Global and layer pruning as trials: their rows agree with their networks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from tests.trials.folders import checkpoint_of, rows_of
from tests.trials.small_trials import config_of, folder_of, run_in, source_of
from trials.sparsity.dropping import drop_count

pytestmark = pytest.mark.usefixtures("few_digits")

CONVS = ("conv1.weight", "conv2.weight", "conv3.weight")
ONE = {"epochs": 1, "batch_size": 128}


@pytest.fixture(scope="module")
def storage(tmp_path_factory: pytest.TempPathFactory, few_digits: None) -> Path:
    return tmp_path_factory.mktemp("dropped")


def outcome(storage: Path, name: str, **fields: Any) -> tuple[list[dict[str, Any]], dict[str, Any], dict[str, Any]]:
    """A trial's own rows, its final network, and the dense one it started from."""
    config = config_of(name, pretrain=ONE, **fields)
    state = run_in(storage, config)
    assert state.status == "complete", state.error
    rows = [row for row in rows_of(folder_of(config, storage))["epochs"] if row["stage_id"] is None]
    source = source_of(config, storage)
    assert source is not None
    dense = checkpoint_of(source)["net"]["model"]
    return rows, checkpoint_of(folder_of(config, storage))["net"], dense


@pytest.mark.parametrize("pattern", ["kernel", "weight", "kernel_mean", "filter_l1"])
@pytest.mark.parametrize("finetune", [None, ONE])
def test_three_numbers_in_every_row(storage: Path, pattern: str, finetune: dict[str, int] | None) -> None:
    rows, net, dense = outcome(storage, "global_prune", pattern=pattern, p_prune=0.4, p_bern=1.0, finetune=finetune)
    assert len(rows) == (1 if finetune is None else 2)
    masks = net["masks"]
    assert tuple(masks) == CONVS
    gone = sum(int((~mask).sum()) for mask in masks.values())
    axes = {"weight": 4, "filter_l1": 1}.get(pattern, 2)
    units = [mask.flatten(axes).any(-1) if axes < 4 else mask for mask in masks.values()]
    total = sum(unit.numel() for unit in units)
    for row in rows:
        assert row["nominal_ratio"] == 0.4
        assert row["candidate_units"] == drop_count(0.4, total)
        assert (
            row["unit_sparsity"] == sum(int((~unit).sum()) for unit in units) / total == drop_count(0.4, total) / total
        )
        assert row["weight_sparsity"] == gone / sum(mask.numel() for mask in masks.values())
        assert row["weight_sparsity"] == pytest.approx(row["sparsity"])
        assert row["parameter_sparsity"] == gone / 19_258
    for name in CONVS:
        assert not net["model"][name][~masks[name]].any()
        if finetune is None:
            assert torch.equal(net["model"][name][masks[name]], dense[name][masks[name]])


def test_spared_units_were_candidates_and_follow_the_seed(storage: Path) -> None:
    def masks(**fields: Any) -> dict[str, torch.Tensor]:
        found: dict[str, torch.Tensor] = outcome(storage, "global_prune", finetune=None, **fields)[1]["masks"]
        return found

    candidates, half = masks(p_bern=1.0), masks(p_bern=0.5)
    for name in CONVS:
        assert not (~half[name] & candidates[name]).any()
    kept = [sum(int(mask.sum()) for mask in found.values()) for found in (candidates, half)]
    assert kept[0] < kept[1]
    assert all(mask.all() for mask in masks(p_prune=0.0).values())
    more = masks(p_bern=0.5, p_prune=0.6)  # draws belong to units and do not depend on the dropped share
    assert not any((more[name] & ~half[name]).any() for name in CONVS)


@pytest.mark.parametrize("score", ["taylor", "gradient", "l1"])
@pytest.mark.parametrize("variant", ["corrected", "original"])
def test_every_layer_loses_its_share(storage: Path, score: str, variant: str) -> None:
    rows, net, _ = outcome(storage, "layer_prune", score=score, variant=variant, p_prune=0.3, finetune=None)
    for name in CONVS:
        mask = net["masks"][name]
        units = mask.flatten(2).any(-1) if score == "l1" else mask
        asked, gone = drop_count(0.3, units.numel()), int((~units).sum())
        assert gone == asked if variant == "corrected" else gone > asked
    assert rows[-1]["variant"] == variant
    if variant == "corrected":
        assert rows[-1]["unit_sparsity"] == rows[-1]["candidate_units"] / rows[-1]["units"]


def test_scores_by_gradient_follow_the_images_they_are_made_of(storage: Path) -> None:
    def masks(**fields: Any) -> dict[str, torch.Tensor]:
        found: dict[str, torch.Tensor] = outcome(storage, "layer_prune", finetune=None, **fields)[1]["masks"]
        return found

    one, three = masks(score_batches=1, score_batch_size=32), masks(score_batches=3, score_batch_size=32)
    assert any(not torch.equal(one[name], three[name]) for name in CONVS)
