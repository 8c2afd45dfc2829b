"""Counts, and whole filters, equal the reference vectors (file g)."""

from __future__ import annotations

import builtins
import re
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.trials.bidirectional import Cnn, about, arrays
from tests.trials.recorded_set import Part
from trials.regrowth.channels import (
    channel_sparsity,
    filter_counts,
    filter_indices,
    kept_filters,
    matched_filters,
    nearest_filters,
    taylor_scores,
)
from trials.sparsity import density_of

G = arrays("g_counting_structured.npz")
ABOUT = about("g_counting_structured.npz")


def struct() -> tuple[Any, Part, Part, list[str]]:
    """What the manifest says of the narrowed network, the dense and the narrow state, and the convolutions."""
    said = ABOUT["struct"]
    return said, G.under("struct__dense__"), G.under("struct__pruned__"), list(said["original_channels"])


def counts(masks: dict[str, Tensor]) -> dict[str, int]:
    total, left = sum(m.numel() for m in masks.values()), sum(int(m.sum()) for m in masks.values())
    return {"total": total, "surviving": left, "pruned": total - left}


def test_counts() -> None:
    masks = {name: mask.bool() for name, mask in G.under("mask__").items()}
    assert counts(masks) == ABOUT["count_pruned_params"]
    assert density_of(masks) == pytest.approx(ABOUT["get_model_sparsity_is_density"])
    assert [density_of({n: m}) for n, m in masks.items()] == pytest.approx(ABOUT["get_sparsities_are_densities"])
    assert [int(m.sum()) for m in masks.values()] == ABOUT["get_nnzs"]
    percent, total = ABOUT["calculate_sparsity_percent"][:2]
    assert (100 * (1 - density_of(masks)), counts(masks)["total"]) == (pytest.approx(percent), total)
    block = ABOUT["count_params_block"]
    chosen = {n: masks[n] for names in block["blocks"].values() for n in names}
    assert counts(chosen) == {key: block[key] for key in ("total", "surviving", "pruned")}
    retention = ABOUT["unstructured_retention"]
    assert {n: density_of({n: masks[n]}) for n in retention} == pytest.approx(retention)
    assert issubclass(getattr(builtins, ABOUT.get("count_on_unmasked_model", "ZeroDivisionError")), Exception)
    assert (density_of({}), counts({})["pruned"]) == (1.0, 0)  # without masks nothing is pruned; the original raises


def test_channel_counts() -> None:
    said, dense_state, narrow_state, convs = struct()
    channels = G["struct__x0"].shape[1]
    dense, narrow = Cnn(dense_state, channels), Cnn(narrow_state, channels)
    for key, groups in said.items():
        if match := re.fullmatch(r"pruned_(\w+)_groups", key):
            assert narrow.get_submodule(match[1]).groups == groups
    with torch.no_grad():
        assert dense(G["struct__x0"]).shape == narrow(G["struct__x0"]).shape
    kept = {name: len(narrow_state[f"{name}.weight"]) for name in convs}
    assert kept == said["current_config"]
    assert {name: len(dense_state[f"{name}.weight"]) for name in convs} == said["original_channels"]
    assert channel_sparsity(kept, said["original_channels"]) == pytest.approx(said["channel_sparsity"])
    lost = {name: said["original_channels"][name] - count for name, count in kept.items()}
    targets = [name for name, count in lost.items() if count]
    assert (targets, [lost[name] for name in targets]) == (said["target_layers"], said["capacities"])
    retention = {name: kept[name] / said["original_channels"][name] for name in convs}
    assert retention == pytest.approx(said["structured_retention"])


def test_kept_channels_of_a_narrowed_layer() -> None:
    said, dense_state, narrow_state, convs = struct()
    for name, lost in said["pruned_channel_indices"].items():
        narrow, dense = narrow_state[f"{name}.weight"], dense_state[f"{name}.weight"]
        near = nearest_filters(narrow, dense)
        assert sorted(set(range(len(dense))) - set(near)) == lost
        assert sorted(near) == said["true_kept_channels"]
    for name in convs:
        live = torch.zeros(len(dense_state[f"{name}.weight"]), dtype=torch.bool)
        live[matched_filters(narrow_state[f"{name}.weight"], dense_state[f"{name}.weight"])] = True
        assert torch.equal(live, G[f"struct__live__{name}"].bool())


def test_taylor_scores() -> None:
    said, dense_state, narrow_state, _ = struct()
    batches = list(zip(G.numbered("struct__x{}"), G.numbered("struct__y{}"), strict=True))
    model = Cnn(narrow_state, batches[0][0].shape[1]).train()  # the mode that the original scored it in
    assert len(batches) == said["taylor_batches"]
    for x, y in batches:
        torch.nn.functional.cross_entropy(model(x), y).backward()
    for key, chosen in said["select_channels_by_taylor_n3"].items():
        gradient = model.get_parameter(f"{key}.weight").grad
        assert gradient is not None
        scores = taylor_scores(gradient, dense_state[f"{key}.weight"])
        torch.testing.assert_close(scores.double(), G[f"struct__taylor__{key}"], rtol=1e-3, atol=0)
        lost = torch.tensor(said["pruned_channel_indices"][key])
        assert lost[scores[lost].argsort(descending=True)][: len(chosen)].tolist() == chosen


def test_filters_as_weights() -> None:
    mask = torch.zeros(4, 2, 3, 3, dtype=torch.bool)
    mask[1] = True
    assert kept_filters(mask).tolist() == [False, True, False, False]
    assert filter_counts({"w": mask}) == {"w": 3}
    index = filter_indices(torch.tensor([3, 0]), mask.shape)
    mask.view(-1)[index] = True
    assert kept_filters(mask).tolist() == [True, True, False, True]
    assert int(mask.sum()) == 3 * 18
