"""Masks equal those of the reference vectors, entry by entry (their README is the definition)."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from tests.trials.vectors import load, numbered
from trials.sparsity import DISTRIBUTIONS, PATTERNS, Masks, build_masks, keep_count

GROUPS = ["filter", "channel"]


def global_masks(scores: list[Tensor], density: float) -> Masks:
    named = {str(i): score for i, score in enumerate(scores)}
    return build_masks(
        named,
        density=density,
        pattern=PATTERNS["weight"],
        distribution=DISTRIBUTIONS["global"],
        absolute=True,
        count=keep_count,
    )


def group_mask(scores: Tensor, pattern: str, density: float) -> Tensor:
    return build_masks(
        {"w": scores},
        density=density,
        pattern=PATTERNS[pattern],
        distribution=DISTRIBUTIONS["uniform"],
        absolute=True,
        count=keep_count,
    )["w"]


def test_unstructured() -> None:
    arrays = load("mask_unstructured.npz")
    scores = numbered(arrays, "scores_{}")
    for a, density in enumerate(arrays["ks"].tolist()):
        masks = global_masks(scores, density)
        assert sum(int(m.sum()) for m in masks.values()) == int(arrays[f"n_kept_k{a}"])
        for mask, reference in zip(masks.values(), numbered(arrays, f"mask_k{a}_{{}}"), strict=True):
            assert torch.equal(mask, reference.bool())


def test_unstructured_ties() -> None:
    arrays = load("mask_unstructured_ties.npz")
    scores = numbered(arrays, "scores_{}")
    values = torch.cat([score.abs().reshape(-1) for score in scores])
    for a, density in enumerate(arrays["ks"].tolist()):
        masks = global_masks(scores, density)
        flat = torch.cat([mask.reshape(-1) for mask in masks.values()])
        kept = int(arrays[f"n_kept_k{a}"])
        assert int(flat.sum()) == kept
        if kept:
            threshold = values.sort(descending=True).values[kept - 1]
            assert flat[values > threshold].all()
            assert not flat[values < threshold].any()
        for mask, reference in zip(masks.values(), numbered(arrays, f"mask_stable_k{a}_{{}}"), strict=True):
            assert torch.equal(mask, reference.bool())


@pytest.mark.parametrize("pattern", GROUPS)
def test_groups(pattern: str) -> None:
    arrays = load(f"mask_{pattern}.npz")
    norms = PATTERNS[pattern].unit_scores(arrays["scores"]).reshape(-1)
    torch.testing.assert_close(norms, arrays["group_norms"], rtol=1e-12, atol=0)
    per_group = arrays["scores"].numel() // norms.numel()
    for a, density in enumerate(arrays["ks"].tolist()):
        mask = group_mask(arrays["scores"], pattern, density)
        assert torch.equal(mask, arrays[f"mask_k{a}"].bool())
        assert int(mask.sum()) == int(arrays[f"groups_kept_k{a}"]) * per_group


@pytest.mark.parametrize("pattern", GROUPS)
def test_groups_ties(pattern: str) -> None:
    arrays = load(f"mask_{pattern}.npz")
    for a, density in enumerate(arrays["ks"].tolist()):
        mask = group_mask(arrays["scores_ties"], pattern, density)
        assert torch.equal(mask, arrays[f"mask_ties_stable_k{a}"].bool())
