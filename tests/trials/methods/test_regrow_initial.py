"""Where regrown weights start, in whole trials: the dense network's values, and layers that start anew as a whole."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.trials.folders import checkpoint_of, rows_of
from tests.trials.small_trials import config_of, folder_of, run_in
from trials.errors import UserError

pytestmark = pytest.mark.usefixtures("few_digits")


def test_a_reference_chooses_the_weights_and_the_dense_network_gives_their_values(tmp_path: Path) -> None:
    """As in the released code, whose reference checkpoint only says which weights return first."""
    other = config_of("one_shot", density=0.3)
    run_in(tmp_path, other)
    folder = folder_of(other, tmp_path)
    fields = {"selection": "reference", "reference": str(folder), "batchnorm_batches": 0}
    config = config_of("regrow-rule", initial="dense", **fields)
    state = run_in(tmp_path, config)
    assert state.status == "complete", state.error
    net = checkpoint_of(folder_of(config, tmp_path))["net"]
    reference = checkpoint_of(folder)["net"]
    (sparse,) = (
        checkpoint_of(path)["net"] for path in (tmp_path / "stages").glob("prune_iterative-*")
    )  # one without the pruned weights' last values
    for key, mask in net["masks"].items():
        new = mask & ~sparse["masks"][key]
        first = reference["masks"][key] & ~sparse["masks"][key]
        assert int((new & first).sum()) == min(int(new.sum()), int(first.sum())) > 0
        assert torch.equal(net["model"][key][new], sparse["snapshots"]["dense"][key][new])
        assert not torch.equal(net["model"][key][new], reference["model"][key][new])


@pytest.mark.parametrize("initial", ["kaiming", "xavier", "dual_lottery", "reference", "dense"])
def test_all_kept_weights_start_anew(initial: str, tmp_path: Path) -> None:
    fields = {"selection": "saliency", "layers": ["conv2", "conv3"], "batchnorm_batches": 0, "initial": initial}
    config = config_of("regrow-rule", reinitialise=True, **fields)
    state = run_in(tmp_path, config)
    assert state.status == "complete", state.error
    net = checkpoint_of(folder_of(config, tmp_path))["net"]
    (sparse,) = (checkpoint_of(path)["net"] for path in (tmp_path / "stages").glob("prune_iterative-*"))
    for key, mask in net["masks"].items():
        weight, before, dense = net["model"][key], sparse["model"][key], sparse["snapshots"]["dense"][key]
        assert not weight[~mask].any()
        if initial in ("reference", "dense"):
            assert torch.equal(weight, dense * mask if key in ("conv2.weight", "conv3.weight") else before)
        else:
            assert (weight[mask] != before[mask]).all()
            assert weight[mask].unique().numel() > 0.99 * int(mask.sum())  # draws, not constants


def test_episodes_are_rewarded_for_the_network_that_starts_anew(tmp_path: Path) -> None:
    config = config_of("regrow", initial="kaiming", reinitialise=True, rounds=1, finetune=None)
    run_in(tmp_path, config)
    rows = rows_of(folder_of(config, tmp_path))
    last = rows["epochs"][-1]
    best = [row for row in rows["allocations"] if row["episode"] == last["best_episode"]]
    assert last["val_accuracy"] == pytest.approx(best[0]["immediate"])


@pytest.mark.parametrize("initial", ["zero", "magnitude", "reference_or_normal"])
def test_values_that_give_no_network_to_train_from_are_refused(initial: str) -> None:
    with pytest.raises(UserError, match=f"reinitialise is true, but initial '{initial}' gives no network"):
        config_of("regrow", initial=initial, reinitialise=True)
