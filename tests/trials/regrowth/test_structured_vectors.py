"""Counts, and whole filters, equal the reference vectors (file g)."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from tests.trials.bidirectional import MANIFEST, Cnn, arrays, numbered, under
from trials.regrowth.channels import (
    channel_sparsity,
    filter_indices,
    kept_filters,
    matched_filters,
    taylor_scores,
)
from trials.sparsity import density_of

G = arrays("g_counting_structured.npz")
ABOUT = MANIFEST["g_counting_structured.npz"]
STRUCT = ABOUT["struct"]
MASKS = {name: mask.bool() for name, mask in under(G, "mask__").items()}
DENSE, PRUNED = under(G, "struct__dense__"), under(G, "struct__pruned__")
CONVS = list(STRUCT["original_channels"])


def counts(masks: dict[str, Tensor]) -> dict[str, int]:
    total, left = sum(m.numel() for m in masks.values()), sum(int(m.sum()) for m in masks.values())
    return {"total": total, "surviving": left, "pruned": total - left}


def test_counts() -> None:
    assert counts(MASKS) == ABOUT["count_pruned_params"]
    assert density_of(MASKS) == pytest.approx(ABOUT["get_model_sparsity_is_density"])
    assert [density_of({n: m}) for n, m in MASKS.items()] == pytest.approx(ABOUT["get_sparsities_are_densities"])
    assert [int(m.sum()) for m in MASKS.values()] == ABOUT["get_nnzs"]
    percent, total = ABOUT["calculate_sparsity_percent"][:2]
    assert (100 * (1 - density_of(MASKS)), counts(MASKS)["total"]) == (pytest.approx(percent), total)
    block = ABOUT["count_params_block"]
    chosen = {n: MASKS[n] for names in block["blocks"].values() for n in names}
    assert counts(chosen) == {key: block[key] for key in ("total", "surviving", "pruned")}
    retention = ABOUT["unstructured_retention"]
    assert {n: density_of({n: MASKS[n]}) for n in retention} == pytest.approx(retention)
    assert density_of({}) == 1.0  # without masks nothing is pruned; the original divides by zero


def test_channel_counts() -> None:
    kept = {name: len(PRUNED[f"{name}.weight"]) for name in CONVS}
    assert kept == STRUCT["current_config"]
    assert {name: len(DENSE[f"{name}.weight"]) for name in CONVS} == STRUCT["original_channels"]
    assert channel_sparsity(kept, STRUCT["original_channels"]) == pytest.approx(STRUCT["channel_sparsity"])
    lost = {name: STRUCT["original_channels"][name] - count for name, count in kept.items()}
    targets = [name for name, count in lost.items() if count]
    assert (targets, [lost[name] for name in targets]) == (STRUCT["target_layers"], STRUCT["capacities"])
    retention = {name: kept[name] / STRUCT["original_channels"][name] for name in CONVS}
    assert retention == pytest.approx(STRUCT["structured_retention"])


def test_kept_channels_of_a_narrowed_layer() -> None:
    for name, lost in STRUCT["pruned_channel_indices"].items():
        narrow, dense = PRUNED[f"{name}.weight"], DENSE[f"{name}.weight"]
        found = matched_filters(narrow, dense)
        assert sorted(found) == STRUCT["true_kept_channels"]
        assert sorted(set(range(len(dense))) - set(found)) == lost
    for name in CONVS:
        live = torch.zeros(len(DENSE[f"{name}.weight"]), dtype=torch.bool)
        live[matched_filters(PRUNED[f"{name}.weight"], DENSE[f"{name}.weight"])] = True
        assert torch.equal(live, G[f"struct__live__{name}"].bool())


def narrowed() -> Cnn:
    """The pruned network, in the mode the original scored it in."""
    model = Cnn(PRUNED)
    return model.train()


def test_taylor_scores() -> None:
    model = narrowed()
    batches = list(zip(numbered(G, "struct__x"), numbered(G, "struct__y"), strict=True))
    assert len(batches) == STRUCT["taylor_batches"]
    for x, y in batches:
        torch.nn.functional.cross_entropy(model(x), y).backward()
    for key, chosen in STRUCT["select_channels_by_taylor_n3"].items():
        gradient = model.get_parameter(f"{key}.weight").grad
        assert gradient is not None
        scores = taylor_scores(gradient, DENSE[f"{key}.weight"])
        torch.testing.assert_close(scores.double(), G[f"struct__taylor__{key}"], rtol=1e-3, atol=0)
        lost = torch.tensor(STRUCT["pruned_channel_indices"][key])
        assert lost[scores[lost].argsort(descending=True)][: len(chosen)].tolist() == chosen


def test_filters_as_weights() -> None:
    mask = torch.zeros(4, 2, 3, 3, dtype=torch.bool)
    mask[1] = True
    assert kept_filters(mask).tolist() == [False, True, False, False]
    index = filter_indices(torch.tensor([3, 0]), mask.shape)
    mask.view(-1)[index] = True
    assert kept_filters(mask).tolist() == [True, True, False, True]
    assert int(mask.sum()) == 3 * 18
